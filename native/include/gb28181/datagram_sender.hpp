// Many RTP packets to one peer in one system call (sendmmsg), runs of equal size as one datagram that the kernel cuts
// (UDP_SEGMENT).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gb28181/out_packet.hpp"
#include "gb28181/sockets.hpp"

namespace gb28181 {

/// Room for one `sendmmsg`. One a worker.
class DatagramSender {
public:
    struct Sent {
        std::size_t packets = 0;
        /// Why the next packet was not taken; 0 when there is none or nobody knows yet.
        int error = 0;
    };

    DatagramSender();

    /// Offers packets, at most as many as fit one call. `to` null: the socket is connected. `segment`: let the kernel
    /// cut runs of equal size.
    [[nodiscard]] Sent send(int fd, const SocketAddress* to, std::span<const OutPacket> packets, bool segment);

private:
    static constexpr std::size_t max_messages = 64;
    static constexpr std::size_t max_packets = 512;
    static constexpr std::size_t max_segments = 64;         // UDP_MAX_SEGMENTS of the older kernels
    static constexpr std::size_t max_run_bytes = 65'000;    // of one datagram before it is cut
    static constexpr std::size_t control_size = CMSG_SPACE(sizeof(std::uint16_t));

    struct alignas(cmsghdr) Control {
        std::uint8_t bytes[control_size];
    };

    std::vector<mmsghdr> headers_;
    std::vector<iovec> vectors_;
    std::vector<Control> controls_;
    std::vector<std::size_t> run_lengths_;
};

}  // namespace gb28181
