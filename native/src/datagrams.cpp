#include "gb28181/datagrams.hpp"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <cstring>

namespace gb28181 {
namespace {

#ifndef UDP_GRO
constexpr int UDP_GRO = 104;
#endif
constexpr std::size_t messages = 32;
constexpr std::size_t message_size = 65536;
// Buffers a whole number of pages apart would all fall into the same few sets of the cache.
constexpr std::size_t stride = message_size + 2048 + 64;

}  // namespace

DatagramBatch::DatagramBatch()
    : memory_(std::make_unique_for_overwrite<std::uint8_t[]>(messages * stride)),
      headers_(messages),
      vectors_(messages),
      peers_(messages),
      controls_(messages * control_size) {
    for (std::size_t index = 0; index < messages; ++index) {
        vectors_[index] = {.iov_base = memory_.get() + index * stride, .iov_len = message_size};
        msghdr& header = headers_[index].msg_hdr;
        header.msg_name = &peers_[index];
        header.msg_iov = &vectors_[index];
        header.msg_iovlen = 1;
        header.msg_control = controls_.data() + index * control_size;
    }
}

std::size_t DatagramBatch::receive(int fd) {
    for (mmsghdr& header : headers_) {
        header.msg_hdr.msg_namelen = sizeof(sockaddr_storage);
        header.msg_hdr.msg_controllen = control_size;
    }
    const int count = ::recvmmsg(fd, headers_.data(), static_cast<unsigned>(headers_.size()), MSG_DONTWAIT, nullptr);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}

const std::uint8_t* DatagramBatch::buffer(std::size_t index) const noexcept {
    return static_cast<const std::uint8_t*>(vectors_[index].iov_base);
}

std::size_t DatagramBatch::segment_size(std::size_t index) const noexcept {
    const msghdr& header = headers_[index].msg_hdr;
    if (header.msg_controllen < CMSG_LEN(sizeof(int))) return 0;
    for (const cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
         control = CMSG_NXTHDR(const_cast<msghdr*>(&header), const_cast<cmsghdr*>(control))) {
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int size = 0;
            std::memcpy(&size, CMSG_DATA(control), sizeof size);
            return size > 0 ? static_cast<std::size_t>(size) : 0;
        }
    }
    return 0;
}

}  // namespace gb28181
