// RTP and RTCP over TCP: two bytes of length before each packet (RFC 4571; GB/T 28181-2022 Annex D).
//
// Theory of operation. `Framer` learns the dialect from the first bytes (RFC 4571, `$`-interleaved, a 256-byte
// private header before either). From then on it believes a length only if an RTP or RTCP header of version 2 stands
// behind it. Where the next header is in the buffer already it is looked at *before* the packet is delivered, so a
// packet that a partial write cut short (MED-25) is dropped and the search begins inside it. The search wants a
// length, version 2, the SSRC seen so far, a plausible sequence number, and the same again one frame later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// How packets are delimited on a connection.
enum class Framing : std::uint8_t { unknown, length, interleaved };

/// A packet, or a place where bytes were lost.
struct Framed {
    /// Empty view: bytes were lost here.
    ByteView packet;
    [[nodiscard]] bool is_lost() const noexcept { return packet.empty(); }
};

/// Cuts the bytes of one TCP connection into RTP and RTCP packets.
///
/// `ssrc`, where it is known, is the one to expect; another is believed when two frames in a row have it.
class Framer {
public:
    /// Bytes that may be passed over in search of a frame before the connection is given up (F-09).
    static constexpr std::size_t resync_limit = 256 * 1024;

    explicit Framer(std::optional<std::uint32_t> ssrc = std::nullopt) noexcept : expected_ssrc_(ssrc) {}

    /// Take what the socket gave; appends packets in order. They point into `data` or into the framer and are valid
    /// until either changes. False: nothing plausible within `resync_limit` bytes; close the connection.
    [[nodiscard]] bool feed(ByteView data, std::vector<Framed>& out);

    /// Give back memory that only the packets of the last `feed` needed.
    void settle();

    [[nodiscard]] Framing framing() const noexcept { return framing_; }
    [[nodiscard]] std::uint64_t resyncs() const noexcept { return resyncs_; }
    [[nodiscard]] std::uint64_t skipped_bytes() const noexcept { return skipped_bytes_; }
    [[nodiscard]] QuirkSet quirks() const noexcept { return quirks_; }
    /// Bytes that wait for the rest of their packet; at most a frame and a read.
    [[nodiscard]] std::size_t buffered() const noexcept { return buffer_.size() - consumed_; }

private:
    enum class Judgement : std::uint8_t { no, yes, more };
    struct Found {
        bool found;
        std::size_t position;
    };

    [[nodiscard]] std::optional<std::size_t> sniff(ByteView buffer);
    [[nodiscard]] Judgement judge(ByteView buffer, std::size_t position) const;
    [[nodiscard]] std::optional<std::size_t> take(ByteView buffer, std::size_t position, std::vector<Framed>& out);
    [[nodiscard]] Found search(ByteView buffer, std::size_t position) const;
    [[nodiscard]] bool is_near(ByteView buffer, std::size_t start) const;
    [[nodiscard]] std::optional<std::uint32_t> known_ssrc() const noexcept { return ssrc_ ? ssrc_ : expected_ssrc_; }

    Framing framing_ = Framing::unknown;
    bool searching_ = false;
    std::size_t header_ = 2;
    std::optional<std::uint32_t> expected_ssrc_;
    std::optional<std::uint32_t> ssrc_;
    std::uint16_t sequence_number_ = 0;
    std::size_t searched_ = 0;
    ByteBuilder buffer_;
    std::size_t consumed_ = 0;  // of buffer_, by packets that the caller may still look at
    QuirkSet quirks_;
    std::uint64_t resyncs_ = 0;
    std::uint64_t skipped_bytes_ = 0;
};

}  // namespace gb28181
