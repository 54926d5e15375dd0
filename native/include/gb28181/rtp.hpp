// RTP packets (RFC 3550 5.1): reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gb28181/bytes.hpp"

namespace gb28181 {

inline constexpr std::size_t rtp_header_size = 12;

/// An RTCP packet that shares a port or a connection with RTP (MED-29; RFC 5761 4).
[[nodiscard]] constexpr bool is_rtcp(ByteView data) noexcept {
    return data.size() >= 2 && data[1] >= 200 && data[1] <= 204 && data[0] >> 6 == 2;
}

/// One RTP packet; a view into the datagram it was read from.
struct RtpPacket {
    std::uint8_t payload_type = 0;
    bool marker = false;
    std::uint16_t sequence_number = 0;
    std::uint32_t timestamp = 0;
    std::uint32_t ssrc = 0;
    /// Without padding and extension.
    ByteView payload;
    /// The whole packet as it came.
    ByteView datagram;

    /// Empty when this is no RTP packet: shorter than its header, version not 2, lists or padding that do not fit.
    [[nodiscard]] static std::optional<RtpPacket> parse(ByteView data) noexcept;
};

}  // namespace gb28181
