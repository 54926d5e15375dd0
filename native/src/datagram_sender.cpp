#include "gb28181/datagram_sender.hpp"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace gb28181 {
namespace {

#ifndef UDP_SEGMENT
constexpr int UDP_SEGMENT = 103;
#endif

}  // namespace

DatagramSender::DatagramSender()
    : headers_(max_messages), vectors_(2 * max_packets), controls_(max_messages), run_lengths_(max_messages) {}

DatagramSender::Sent DatagramSender::send(int fd, const SocketAddress* to, std::span<const OutPacket> packets,
                                          bool segment) {
    std::size_t messages = 0;
    std::size_t taken = 0;
    const std::size_t limit = std::min(packets.size(), max_packets);
    while (taken < limit && messages < max_messages) {
        const std::size_t first = taken;
        const std::size_t size = packets[first].size();
        std::size_t bytes = 0;
        do {
            const OutPacket& packet = packets[taken];
            iovec* const vectors = &vectors_[2 * taken];
            // The kernel only reads; iovec has no const.
            vectors[0] = {.iov_base = const_cast<std::uint8_t*>(packet.head.data()) + OutPacket::frame_size,
                          .iov_len = packet.head_size - OutPacket::frame_size};
            vectors[1] = {.iov_base = const_cast<std::uint8_t*>(packet.body.data()), .iov_len = packet.body.size()};
            bytes += packet.size();
            ++taken;
            // All are equal but the last, which may be shorter and ends the run.
        } while (segment && taken < limit && taken - first < max_segments && packets[taken - 1].size() == size &&
                 packets[taken].size() <= size && bytes + packets[taken].size() <= max_run_bytes);
        msghdr& message = headers_[messages].msg_hdr;
        message = {};
        if (to != nullptr) {
            message.msg_name = const_cast<sockaddr*>(to->get());
            message.msg_namelen = to->size();
        }
        message.msg_iov = &vectors_[2 * first];
        message.msg_iovlen = 2 * (taken - first);
        if (taken - first > 1) {
            message.msg_control = controls_[messages].bytes;
            message.msg_controllen = control_size;
            cmsghdr* const control = CMSG_FIRSTHDR(&message);
            control->cmsg_level = IPPROTO_UDP;
            control->cmsg_type = UDP_SEGMENT;
            control->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
            const auto step = static_cast<std::uint16_t>(size);
            std::memcpy(CMSG_DATA(control), &step, sizeof step);
        }
        run_lengths_[messages++] = taken - first;
    }
    if (messages == 0) return {};
    // For one message sendmsg is the shorter way into the kernel.
    const int count = messages == 1
                          ? (::sendmsg(fd, &headers_[0].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ? 1 : -1)
                          : ::sendmmsg(fd, headers_.data(), static_cast<unsigned>(messages), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) return {.packets = 0, .error = errno};
    Sent sent;
    for (std::size_t index = 0; index < static_cast<std::size_t>(count); ++index) sent.packets += run_lengths_[index];
    return sent;
}

}  // namespace gb28181
