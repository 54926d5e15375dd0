#include "gb28181/rtp.hpp"

namespace gb28181 {

std::optional<RtpPacket> RtpPacket::parse(ByteView data) noexcept {
    if (data.size() < rtp_header_size) return std::nullopt;
    const unsigned first = data[0];
    RtpPacket packet;
    packet.payload_type = data[1] & 0x7F;
    packet.marker = data[1] >= 0x80;
    packet.sequence_number = data.u16(2);
    packet.timestamp = data.u32(4);
    packet.ssrc = data.u32(8);
    packet.datagram = data;
    if (first == 0x80) {  // no padding, no extension, no CSRC: almost every packet
        packet.payload = data.from(rtp_header_size);
        return packet;
    }
    if (first >> 6 != 2) return std::nullopt;
    std::size_t position = rtp_header_size + std::size_t{4} * (first & 0x0F);
    if (position > data.size()) return std::nullopt;
    if ((first & 0x10) != 0) {
        if (position + 4 > data.size()) return std::nullopt;
        position += 4 + std::size_t{4} * data.u16(position + 2);
        if (position > data.size()) return std::nullopt;
    }
    std::size_t end = data.size();
    if ((first & 0x20) != 0) {
        const std::size_t padding = data[end - 1];
        if (padding == 0 || position + padding > end) return std::nullopt;
        end -= padding;
    }
    packet.payload = data.slice(position, end);
    return packet;
}

}  // namespace gb28181
