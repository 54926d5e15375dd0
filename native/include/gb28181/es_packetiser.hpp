// Elementary streams to RTP: H.264 (RFC 6184), H.265 (RFC 7798), AAC (RFC 3640), G.711 (RFC 3551).
//
// The counterpart of `es_depacketiser`. Video goes as single NAL units and fragments (packetization-mode 1), never in
// aggregates, which old readers do not know. The timestamp is the presentation time in the payload's clock. Same packets
// as gb28181gw/media/wire/es_packetiser.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// Keeps RTP, UDP and IP within an MTU of 1,500 (MED-27).
inline constexpr std::size_t max_rtp_payload = 1400;

/// What one packet carries: up to four bytes of its own before bytes that it shares.
struct RtpPiece {
    std::array<std::uint8_t, 4> prefix{};
    std::uint8_t prefix_size = 0;
    bool marker = false;
    std::uint32_t timestamp = 0;
    Buffer body;
};

/// There is a payload format for it here.
[[nodiscard]] bool is_packable(Codec codec) noexcept;

/// Of the RTP timestamp.
[[nodiscard]] std::uint32_t payload_clock(const Track& track) noexcept;

/// Frames of one codec that `is_packable` in, pieces out.
class EsPacketiser {
public:
    using OnPiece = std::function<void(RtpPiece)>;

    /// `head`: parameter sets in Annex B that go before the frame; may be empty.
    void packetise(const Frame& frame, const Buffer& head, const OnPiece& on_piece);

private:
    void video(const Buffer& stream, bool is_end, Codec codec, std::uint32_t timestamp, const OnPiece& on_piece);

    bool talking_ = false;
};

/// The bytes in pieces of at most 1,400, the marker on the last.
void cut(const Buffer& data, std::uint32_t timestamp, const EsPacketiser::OnPiece& on_piece);

}  // namespace gb28181
