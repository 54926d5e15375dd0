#include "gb28181/flv.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <string_view>

#include "gb28181/nal.hpp"

namespace gb28181 {
namespace {

constexpr std::uint8_t audio_tag = 8;
constexpr std::uint8_t video_tag = 9;
constexpr std::uint8_t script_tag = 18;
constexpr unsigned avc_id = 7;
constexpr unsigned hevc_legacy_id = 12;
constexpr std::uint32_t hvc1 = 0x68766331;
constexpr unsigned key_frame = 1;
constexpr unsigned inter_frame = 2;
constexpr unsigned sequence_start = 0;
constexpr unsigned coded_frames = 1;
constexpr unsigned coded_frames_x = 3;
constexpr unsigned extended = 0x80;
/// G.711 decodes to 16 bits; the sampling rate field is 5.5 kHz (0) for rates that it cannot say.
constexpr unsigned sixteen_bit = 0x02;
constexpr std::size_t tag_header = 11;
constexpr std::size_t max_body = 0xFFFFFF;

/// SoundFormat; 0 where FLV has none.
unsigned audio_format(Codec codec) noexcept {
    switch (codec) {
        case Codec::pcma: return 7;
        case Codec::pcmu: return 8;
        case Codec::aac: return 10;
        default: return 0;
    }
}

/// The head of a tag whose body follows; the size is written by `end_tag`.
std::size_t begin_tag(ByteBuilder& out, std::uint8_t kind, std::uint32_t timestamp_ms) {
    const std::size_t start = out.size();
    out.append(kind);
    out.append_u24(0);
    out.append_u24(timestamp_ms);
    out.append(static_cast<std::uint8_t>(timestamp_ms >> 24));
    out.append_u24(0);
    return start;
}

/// The size in front and behind. A tag that is too large for its size is taken back.
void end_tag(ByteBuilder& out, std::size_t start) {
    const std::size_t body = out.size() - start - tag_header;
    if (body > max_body) {
        out.truncate(start);
        return;
    }
    const std::array<std::uint8_t, 3> size = {static_cast<std::uint8_t>(body >> 16),
                                              static_cast<std::uint8_t>(body >> 8), static_cast<std::uint8_t>(body)};
    out.overwrite(start + 1, size);
    out.append_u32(static_cast<std::uint32_t>(body + tag_header));
}

ByteView bytes_of(std::string_view text) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// AMF0: an ECMA array whose count is known at its end.
class AmfArray {
public:
    explicit AmfArray(ByteBuilder& out) : out_(out) {
        out_.append(0x08);
        count_place_ = out_.size();
        out_.append_u32(0);
    }

    void number(std::string_view name, double value) {
        begin(name);
        out_.append(0x00);
        const auto bits = std::bit_cast<std::uint64_t>(value);
        out_.append_u32(static_cast<std::uint32_t>(bits >> 32));
        out_.append_u32(static_cast<std::uint32_t>(bits));
    }

    void boolean(std::string_view name, bool value) {
        begin(name);
        out_.append(0x01);
        out_.append(value ? 1 : 0);
    }

    void string(std::string_view name, std::string_view value) {
        begin(name);
        write_string(out_, value);
    }

    void end() {
        out_.append_u24(9);
        const std::array<std::uint8_t, 4> count = {0, 0, 0, count_};
        out_.overwrite(count_place_, count);
    }

    static void write_string(ByteBuilder& out, std::string_view text) {
        out.append(0x02);
        write_name(out, text);
    }

private:
    static void write_name(ByteBuilder& out, std::string_view text) {
        out.append_u16(static_cast<std::uint32_t>(text.size()));
        out.append(bytes_of(text));
    }

    void begin(std::string_view name) {
        ++count_;
        write_name(out_, name);
    }

    ByteBuilder& out_;
    std::size_t count_place_ = 0;
    std::uint8_t count_ = 0;
};

void write_metadata(ByteBuilder& out, const Track* video, const Track* audio, FlvHevc hevc) {
    AmfArray::write_string(out, "onMetaData");
    AmfArray values(out);
    values.number("duration", 0.0);
    if (video != nullptr) {
        values.number("width", video->width);
        values.number("height", video->height);
        if (video->fps > 0) values.number("framerate", video->fps);
        if (video->codec == Codec::h264) {
            values.number("videocodecid", avc_id);
        } else {
            values.number("videocodecid", hevc == FlvHevc::legacy ? hevc_legacy_id : hvc1);
        }
    }
    if (audio != nullptr) {
        values.number("audiocodecid", audio_format(audio->codec));
        values.number("audiosamplerate", audio->sample_rate);
        values.number("audiosamplesize", 16.0);
        values.boolean("stereo", audio->channels > 1);
    }
    values.string("encoder", "gb28181gw");
    values.end();
}

std::uint8_t byte(unsigned value) noexcept { return static_cast<std::uint8_t>(value); }

}  // namespace

bool FlvMuxer::carries(Codec codec) noexcept {
    return codec == Codec::h264 || codec == Codec::h265 || audio_format(codec) != 0;
}

void FlvMuxer::header(std::span<const TrackPtr> tracks, std::optional<std::int64_t> pts_90k, ByteBuilder& out) {
    const auto first_of = [&](TrackKind kind) -> TrackPtr {
        for (const TrackPtr& track : tracks) {
            if (track != nullptr && track->kind == kind && carries(track->codec)) return track;
        }
        return nullptr;
    };
    const TrackPtr video = first_of(TrackKind::video);
    const TrackPtr audio = first_of(TrackKind::audio);
    const unsigned flags = (video != nullptr ? 0x01U : 0U) | (audio != nullptr ? 0x04U : 0U);
    const std::uint32_t time_ms = pts_90k ? milliseconds(*pts_90k) : 0;
    out.append(bytes_of("FLV"));
    out.append(0x01);
    out.append(byte(flags));
    out.append_u32(9);
    out.append_u32(0);
    const std::size_t start = begin_tag(out, script_tag, time_ms);
    write_metadata(out, video.get(), audio.get(), hevc_);
    end_tag(out, start);
    if (video != nullptr) sequence_header(video, time_ms, out);
    if (audio != nullptr) sequence_header(audio, time_ms, out);
}

void FlvMuxer::configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) {
    const std::uint32_t time_ms = milliseconds(at_90k);
    for (const TrackPtr& track : tracks) sequence_header(track, time_ms, out);
}

void FlvMuxer::sequence_header(const TrackPtr& track, std::uint32_t timestamp_ms, ByteBuilder& out) {
    if (track->kind == TrackKind::audio) {
        audio_ = {track, track->codec};
        if (track->codec != Codec::aac || track->parameter_sets.empty()) return;
        const std::size_t start = begin_tag(out, audio_tag, timestamp_ms);
        out.append_u16(0xAF00);
        out.append(track->parameter_sets.front());
        end_tag(out, start);
        return;
    }
    video_ = {track, track->codec};
    const bool is_avc = track->codec == Codec::h264;
    const Bytes configuration = is_avc ? nal::avcc(track->parameter_sets) : nal::hvcc(track->parameter_sets);
    if (configuration.empty()) return;
    const std::size_t start = begin_tag(out, video_tag, timestamp_ms);
    if (is_avc || hevc_ == FlvHevc::legacy) {
        out.append(byte(key_frame << 4 | (is_avc ? avc_id : hevc_legacy_id)));
        out.append_u32(0);
    } else {
        out.append(byte(extended | key_frame << 4 | sequence_start));
        out.append_u32(hvc1);
    }
    out.append(configuration);
    end_tag(out, start);
}

void FlvMuxer::mux(const Frame& frame, ByteBuilder& out) {
    const TrackPtr& track = frame.track;
    const Codec codec = track->codec;
    if (!carries(codec)) return;
    const std::uint32_t dts_ms = milliseconds(frame.dts_90k);
    if (track->kind == TrackKind::audio) {
        if (!is_announced(audio_, track)) sequence_header(track, dts_ms, out);
        audio_.track = track;
        const std::size_t start = begin_tag(out, audio_tag, dts_ms);
        if (codec == Codec::aac) {
            out.append_u16(0xAF01);
        } else {
            out.append(byte(audio_format(codec) << 4 | sixteen_bit));
        }
        out.append(frame.payload);
        end_tag(out, start);
        return;
    }
    if (!is_announced(video_, track)) sequence_header(track, dts_ms, out);
    video_.track = track;
    const std::int64_t offset_ms = relative_ms(frame.pts_90k) - std::max<std::int64_t>(0, relative_ms(frame.dts_90k));
    const auto composition = static_cast<std::uint32_t>(offset_ms & 0xFFFFFF);
    const unsigned kind = (frame.key ? key_frame : inter_frame) << 4;
    const std::size_t start = begin_tag(out, video_tag, dts_ms);
    if (codec == Codec::h264 || hevc_ == FlvHevc::legacy) {
        out.append(byte(kind | (codec == Codec::h264 ? avc_id : hevc_legacy_id)));
        out.append(0x01);
        out.append_u24(composition);
    } else if (offset_ms != 0) {
        out.append(byte(extended | kind | coded_frames));
        out.append_u32(hvc1);
        out.append_u24(composition);
    } else {
        out.append(byte(extended | kind | coded_frames_x));
        out.append_u32(hvc1);
    }
    nal::append_length_prefixed(frame.payload, out);
    end_tag(out, start);
}

std::size_t FlvMuxer::bound(const Frame& frame) const {
    constexpr std::size_t own = tag_header + 8 + 4;  // with the codec's head and the size behind
    std::size_t configuration = 0;
    const bool announced = is_announced(frame.track->kind == TrackKind::video ? video_ : audio_, frame.track);
    if (!announced) {
        configuration = own + 64;
        for (const Bytes& unit : frame.track->parameter_sets) configuration += unit.size() + 8;
    }
    return frame.payload.size() + own + configuration;
}

std::uint32_t FlvMuxer::milliseconds(std::int64_t time_90k) {
    return static_cast<std::uint32_t>(std::max<std::int64_t>(0, relative_ms(time_90k)));
}

std::int64_t FlvMuxer::relative_ms(std::int64_t time_90k) {
    if (!base_) base_ = time_90k;
    return floor_div(time_90k - *base_, 90);
}

bool FlvMuxer::is_announced(const Announced& announced, const TrackPtr& track) noexcept {
    if (announced.track == nullptr) return false;
    if (announced.track == track) return true;
    return announced.codec == track->codec && announced.track->parameter_sets == track->parameter_sets;
}

}  // namespace gb28181
