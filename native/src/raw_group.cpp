#include "gb28181/raw_group.hpp"

#include "gb28181/pack_start.hpp"

namespace gb28181 {

RawGroup::Place RawGroup::add(const RtpPacket& packet, double now, const PictureHint& hint) {
    const bool is_beginning = begins(packet, hint);
    if (is_beginning) {
        entries_.clear();
        size_bytes_ = 0;
        arena_.release();  // the blocks of the old group go with it
    }
    last_ = arena_.store(packet.datagram);
    if (!is_beginning && entries_.empty()) return Place::inside;
    entries_.push_back({.datagram = last_, .arrival = now});
    size_bytes_ += last_.size();
    if (is_beginning) return Place::beginning;
    if (size_bytes_ <= max_bytes && entries_.size() <= max_packets) return Place::inside;
    const Buffer kept = last_;
    clear();
    last_ = kept;
    return Place::given_up;
}

void RawGroup::clear() noexcept {
    entries_.clear();
    entries_.shrink_to_fit();
    arena_.release();
    last_ = {};
    size_bytes_ = 0;
    key_is_open_ = false;
}

bool RawGroup::begins(const RtpPacket& packet, const PictureHint& hint) {
    if (hint.sound_only) return begins_pack(packet.payload);
    switch (look_at_pack(packet.payload, hint.codec)) {
        case PackStart::none:
            return false;
        case PackStart::picture:
            key_is_open_ = false;
            return false;
        case PackStart::key:
            break;
    }
    // Parameter sets and slices may have a pack each; they are one key frame.
    if (key_is_open_ && packet.timestamp == key_timestamp_ && !entries_.empty()) return false;
    key_is_open_ = true;
    key_timestamp_ = packet.timestamp;
    return true;
}

}  // namespace gb28181
