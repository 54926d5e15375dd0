// The packets of a program stream as they came, since the last key frame.
//
// What a new consumer of the raw stream gets first, and what the demuxer reads when a consumer of frames comes to a
// stream that nobody demultiplexed. Where a group begins is seen at the packets in which a pack begins (`pack_start`); if
// one packet does not tell, the next ones are waited for. A group that outgrows the bound is given up as a whole, because
// a part of it would smear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/pack_start.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {

/// What is known of a stream's pictures.
struct PictureHint {
    std::optional<Codec> codec;
    /// The stream has only sound: a consumer can begin at every pack.
    bool sound_only = false;
    /// A key frame was found by the demultiplexer: the group should have begun.
    bool key_seen = false;
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
        /// `entries` begin anew, with this packet or a few before it: a consumer can begin there.
        beginning,
        /// The group was given up with this packet.
        given_up,
    };

    /// Keeps a copy of a packet in order; `last` is it.
    [[nodiscard]] Place add(const RtpPacket& packet, double now, const PictureHint& hint);
    /// The packet that was added last, kept or not.
    [[nodiscard]] const Buffer& last() const noexcept { return last_; }
    /// Packets are missing before the next one.
    void gap() noexcept;
    void clear() noexcept;
    /// The first parameter set of the last key frame that had one whole in its first packet.
    [[nodiscard]] const Bytes& parameters() const noexcept { return parameters_; }
    /// Empty while no key frame has come.
    [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }

private:
    static constexpr std::size_t max_bytes = std::size_t{16} * 1024 * 1024;
    static constexpr std::size_t max_packets = 20'000;

    static constexpr std::size_t max_probe = 4096;  // bytes of a pack, among which its first slice must begin

    [[nodiscard]] PackStart judge(const RtpPacket& packet, const PictureHint& hint);
    [[nodiscard]] bool joins(const RtpPacket& packet) const noexcept;

    PacketArena arena_;
    std::vector<Entry> entries_;
    Buffer last_;
    std::size_t size_bytes_ = 0;
    std::vector<Entry> probed_;  // packets of a pack that did not tell yet what it begins
    Bytes probe_;                // its bytes
    Bytes parameters_;
    bool searches_ = false;      // packs begin inside of packets here
    std::uint32_t key_timestamp_ = 0;
    bool key_is_open_ = false;  // nothing but packs of the key frame since the beginning
};

}  // namespace gb28181
