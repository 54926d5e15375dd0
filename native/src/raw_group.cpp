#include "gb28181/raw_group.hpp"

#include <array>
#include <utility>

namespace gb28181 {
namespace {

constexpr std::array<std::uint8_t, 4> pack_code{0, 0, 1, 0xBA};

}  // namespace

RawGroup::Place RawGroup::add(const RtpPacket& packet, double now, const PictureHint& hint) {
    last_ = arena_.store(packet.datagram);
    if (hint.key_seen && entries_.empty()) searches_ = true;
    const PackStart start = judge(packet, hint);
    if (start == PackStart::more) {
        probed_.push_back({.datagram = last_, .arrival = now});
    } else if (start == PackStart::key && !joins(packet)) {
        probed_.push_back({.datagram = last_, .arrival = now});
        entries_ = std::exchange(probed_, {});
        const ByteView set = first_parameter_set(entries_.front().datagram.view().from(rtp_header_size), hint.codec);
        if (!set.empty()) parameters_.assign(set.begin(), set.end());
        size_bytes_ = 0;
        for (const Entry& entry : entries_) size_bytes_ += entry.datagram.size();
        arena_.release();  // a block is not to hold pieces of two groups for long
        key_is_open_ = true;
        key_timestamp_ = packet.timestamp;
        return Place::beginning;
    } else {
        probed_.clear();
        if (start == PackStart::picture) key_is_open_ = false;
    }
    if (entries_.empty()) return Place::inside;
    entries_.push_back({.datagram = last_, .arrival = now});
    size_bytes_ += last_.size();
    if (size_bytes_ <= max_bytes && entries_.size() <= max_packets) return Place::inside;
    const Buffer kept = last_;
    clear();
    last_ = kept;
    return Place::given_up;
}

void RawGroup::gap() noexcept {
    probe_.clear();
    probed_.clear();
}

void RawGroup::clear() noexcept {
    gap();
    entries_.clear();
    entries_.shrink_to_fit();
    arena_.release();
    last_ = {};
    size_bytes_ = 0;
    key_is_open_ = false;
}

bool RawGroup::joins(const RtpPacket& packet) const noexcept {
    // Parameter sets and slices may have a pack each; they are one key frame.
    return key_is_open_ && packet.timestamp == key_timestamp_ && !entries_.empty();
}

PackStart RawGroup::judge(const RtpPacket& packet, const PictureHint& hint) {
    const ByteView payload = packet.payload;
    std::size_t at = begins_pack(payload) ? 0 : npos;
    if (at == npos && searches_) at = find(payload, ByteView(pack_code), 0);
    if (!probe_.empty()) {
        const ByteView more = payload.slice(0, at);
        probe_.insert(probe_.end(), more.begin(), more.end());
        const bool is_last = at != npos || probe_.size() > max_probe;
        const PackStart start = look_at_pack(ByteView(probe_), hint.codec, is_last);
        if (start != PackStart::more) probe_.clear();
        if (start == PackStart::key || at == npos) return start;
        probed_.clear();
    }
    if (at == npos) return PackStart::none;
    if (hint.sound_only) return PackStart::key;
    const ByteView pack = payload.from(at);
    const PackStart start = look_at_pack(pack, hint.codec, pack.size() > max_probe);
    if (start == PackStart::more) probe_.assign(pack.begin(), pack.end());
    return start;
}

}  // namespace gb28181
