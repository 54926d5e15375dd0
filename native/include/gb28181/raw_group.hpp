// The packets of a program stream as they came, since the last key frame.
//
// What a new consumer of the raw stream gets first, and what the demuxer reads when a consumer of frames comes to a
// stream that nobody demultiplexed. Where a group begins is seen at the packets that begin a pack (`pack_start`). A group
// that outgrows the bound is given up as a whole, because a part of it would smear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {

/// What is known of a stream's pictures.
struct PictureHint {
    std::optional<Codec> codec;
    /// The stream has only sound: a consumer can begin at every pack.
    bool sound_only = false;
};

class RawGroup {
public:
    struct Entry {
        Buffer datagram;
        double arrival;
    };
    enum class Place : std::uint8_t {
        /// Behind the beginning of a group, or before the first.
        inside,
        /// A consumer can begin here.
        beginning,
        /// The group was given up with this packet.
        given_up,
    };

    /// Keeps a copy of a packet in order; `last` is it.
    [[nodiscard]] Place add(const RtpPacket& packet, double now, const PictureHint& hint);
    /// The packet that was added last, kept or not.
    [[nodiscard]] const Buffer& last() const noexcept { return last_; }
    void clear() noexcept;
    /// Empty while no key frame has come.
    [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }

private:
    static constexpr std::size_t max_bytes = std::size_t{16} * 1024 * 1024;
    static constexpr std::size_t max_packets = 20'000;

    [[nodiscard]] bool begins(const RtpPacket& packet, const PictureHint& hint);

    PacketArena arena_;
    std::vector<Entry> entries_;
    Buffer last_;
    std::size_t size_bytes_ = 0;
    std::uint32_t key_timestamp_ = 0;
    bool key_is_open_ = false;  // nothing but packs of the key frame since the beginning
};

}  // namespace gb28181
