#include "gb28181/variant.hpp"

#include <array>
#include <charconv>
#include <utility>

#include "gb28181/flv.hpp"
#include "gb28181/fmp4.hpp"
#include "gb28181/ts_mux.hpp"
#include "gb28181/websocket.hpp"

namespace gb28181 {
namespace {

// Sixteen hexadecimal digits and CRLF, or the head of a WebSocket frame.
constexpr std::size_t front = 18;
constexpr std::array<std::uint8_t, 2> crlf{'\r', '\n'};

}  // namespace

std::string terminator_of(Wrapping wrapping) {
    switch (wrapping) {
        case Wrapping::chunked:
            return "0\r\n\r\n";
        case Wrapping::websocket:
            return websocket::close_frame(websocket::going_away);
        case Wrapping::plain:
            break;
    }
    return {};
}

bool waits_for_audio(const VariantKey& key, const RoleTracks& tracks) noexcept {
    const TrackPtr& source = tracks[static_cast<std::size_t>(Role::audio)];
    return key.container != Container::flv && key.audio == AudioChoice::aac && source != nullptr &&
           (source->codec == Codec::pcma || source->codec == Codec::pcmu) &&
           tracks[static_cast<std::size_t>(Role::made_audio)] == nullptr;
}

Variant::Variant(const VariantKey& key, const RoleTracks& tracks, std::int64_t base_90k) : key_(key) {
    switch (key.container) {
        case Container::flv:
            muxer_ = std::make_unique<FlvMuxer>(key.hevc, base_90k);
            break;
        case Container::fmp4:
            muxer_ = std::make_unique<Fmp4Muxer>(select(tracks), base_90k);
            break;
        case Container::ts:
            muxer_ = std::make_unique<TsMuxer>(select(tracks), base_90k);
            break;
    }
}

bool Variant::fits(const VariantKey& key, const RoleTracks& tracks) const {
    return key == key_ && muxer_->fits(select(tracks));
}

Buffer Variant::head(const RoleTracks& tracks) {
    ByteBuilder builder = begin(1536);
    muxer_->header(select(tracks), group_at_, builder);
    return wrap(std::move(builder));
}

Buffer Variant::configuration(const RoleTracks& tracks, std::int64_t at_90k) {
    ByteBuilder builder = begin(512);
    muxer_->configuration(select(tracks), at_90k, builder);
    return wrap(std::move(builder));
}

Buffer Variant::add(Role role, const Frame& frame, bool kept) {
    if (role == Role::video) {
        if (frame.key) {
            group_.clear();
            group_at_ = frame.dts_90k;
        }
    } else if (!wants(role, *frame.track)) {
        return {};
    }
    ByteBuilder builder = begin(muxer_->bound(frame));
    muxer_->mux(frame, builder);
    Buffer data = wrap(std::move(builder));
    if (data.empty()) return data;
    if (kept) {
        group_.push_back(data);
    } else if (!group_.empty()) {
        clear();
    }
    return data;
}

void Variant::clear() noexcept {
    group_.clear();
    group_at_.reset();
}

bool Variant::wants(Role role, const Track& track) const noexcept {
    switch (key_.audio) {
        case AudioChoice::none:
            return false;
        case AudioChoice::aac:
            return track.codec == Codec::aac;
        case AudioChoice::copy:
            break;
    }
    return role == Role::audio;
}

std::vector<TrackPtr> Variant::select(const RoleTracks& tracks) const {
    std::vector<TrackPtr> chosen;
    for (std::size_t index = 0; index < tracks.size(); ++index) {
        const TrackPtr& track = tracks[index];
        const auto role = static_cast<Role>(index);
        if (track && (role == Role::video || wants(role, *track))) chosen.push_back(track);
    }
    return chosen;
}

ByteBuilder Variant::begin(std::size_t size) const {
    ByteBuilder builder(front + size + crlf.size());
    [[maybe_unused]] auto* const room = builder.extend(front);
    return builder;
}

Buffer Variant::wrap(ByteBuilder builder) const {
    const std::size_t size = builder.size() - front;
    if (size == 0) return {};
    std::size_t start = front;
    if (key_.wrapping == Wrapping::chunked) {
        std::array<char, 16> digits{};
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), size, 16).ptr;
        const auto count = static_cast<std::size_t>(end - digits.data());
        start = front - crlf.size() - count;
        builder.overwrite(start, {reinterpret_cast<const std::uint8_t*>(digits.data()), count});
        builder.overwrite(start + count, {crlf.data(), crlf.size()});
        builder.append(ByteView{crlf.data(), crlf.size()});
    } else if (key_.wrapping == Wrapping::websocket) {
        std::string frame_head;
        websocket::append_head(frame_head, websocket::Opcode::binary, size);
        start = front - frame_head.size();
        builder.overwrite(start, {reinterpret_cast<const std::uint8_t*>(frame_head.data()), frame_head.size()});
    }
    const std::size_t end = builder.size();
    return builder.finish().slice(start, end);
}

}  // namespace gb28181
