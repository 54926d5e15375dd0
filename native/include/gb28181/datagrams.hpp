// Many datagrams in one system call, merged ones taken apart (recvmmsg, UDP_GRO).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gb28181/bytes.hpp"

namespace gb28181 {

/// Buffers for one `recvmmsg`. One a worker: what a call gave is good until the next.
class DatagramBatch {
public:
    DatagramBatch();

    /// Messages that came; 0 when none waits, or on an error that the socket has told.
    [[nodiscard]] std::size_t receive(int fd);
    /// It was full: there is probably more.
    [[nodiscard]] bool was_full(std::size_t count) const noexcept { return count == headers_.size(); }

    [[nodiscard]] const sockaddr* peer(std::size_t index) const noexcept {
        return reinterpret_cast<const sockaddr*>(&peers_[index]);
    }
    [[nodiscard]] socklen_t peer_size(std::size_t index) const noexcept {
        return headers_[index].msg_hdr.msg_namelen;
    }

    /// Calls `take(ByteView)` for each datagram of a message.
    template <class Take>
    void each(std::size_t index, Take&& take) const {
        const ByteView all{buffer(index), headers_[index].msg_len};
        const std::size_t step = segment_size(index);
        if (step == 0 || step >= all.size()) {
            take(all);
            return;
        }
        for (std::size_t at = 0; at < all.size(); at += step) take(all.slice(at, at + step));
    }

private:
    static constexpr std::size_t control_size = 64;

    [[nodiscard]] const std::uint8_t* buffer(std::size_t index) const noexcept;
    /// Of the datagrams that the kernel merged into this message; 0: it is one.
    [[nodiscard]] std::size_t segment_size(std::size_t index) const noexcept;

    std::unique_ptr<std::uint8_t[]> memory_;
    std::vector<mmsghdr> headers_;
    std::vector<iovec> vectors_;
    std::vector<sockaddr_storage> peers_;
    std::vector<std::uint8_t> controls_;
};

}  // namespace gb28181
