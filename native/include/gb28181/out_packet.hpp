// One RTP packet on its way to the kernel: a header of its own before bytes that it shares.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "gb28181/buffer.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {

struct OutPacket {
    static constexpr std::size_t frame_size = 2;  // the length that RFC 4571 wants before it

    /// The length for RFC 4571, the fixed header of RTP, and up to four bytes of the payload format.
    std::array<std::uint8_t, frame_size + rtp_header_size + 4> head{};
    std::uint8_t head_size = frame_size + rtp_header_size;
    /// What follows.
    Buffer body;

    /// Of the RTP packet.
    [[nodiscard]] std::size_t size() const noexcept { return head_size - frame_size + body.size(); }
    [[nodiscard]] std::uint32_t timestamp() const noexcept { return ByteView(head).u32(frame_size + 4); }
};

}  // namespace gb28181
