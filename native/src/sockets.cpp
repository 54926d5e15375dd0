#include "gb28181/sockets.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace gb28181 {
namespace {

#ifndef UDP_GRO
constexpr int UDP_GRO = 104;
#endif
#ifndef UDP_SEGMENT
constexpr int UDP_SEGMENT = 103;
#endif
// A key frame of a 4K camera arrives faster than a busy worker may turn; the kernel caps it at rmem_max.
constexpr int receive_buffer = 2 * 1024 * 1024;
constexpr int backlog = 8;

Outcome<UniqueFd> open_bound(const std::string& host, std::uint16_t port, int kind, bool reuse) {
    const auto address = SocketAddress::parse(host, port);
    if (!address) {
        return {.error = EADDRNOTAVAIL};
    }
    UniqueFd fd(::socket(address->family(), kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
        return {.error = errno};
    }
    if (address->family() == AF_INET6 && host == "::") {
        const int off = 0;
        if (::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) {
            return {.error = errno};
        }
    }
    if (reuse) {
        const int on = 1;
        if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
            return {.error = errno};
        }
    }
    if (::bind(fd.get(), address->get(), address->size()) != 0) {
        return {.error = errno};
    }
    return {.value = std::move(fd)};
}

}  // namespace

void UniqueFd::reset() noexcept {
    if (fd_ >= 0) {
        ::close(fd_);
        fd_ = -1;
    }
}

SocketAddress::SocketAddress(const sockaddr* from, socklen_t size) noexcept {
    if (size > 0 && size <= sizeof storage_) {
        std::memcpy(&storage_, from, size);
        size_ = size;
    }
}

std::optional<SocketAddress> SocketAddress::parse(const std::string& host, std::uint16_t port) {
    if (host.find(':') == std::string::npos) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) {
            return std::nullopt;
        }
        return SocketAddress(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
    }
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    const auto percent = host.find('%');
    if (::inet_pton(AF_INET6, host.substr(0, percent).c_str(), &v6.sin6_addr) != 1) {
        return std::nullopt;
    }
    if (percent != std::string::npos) {
        v6.sin6_scope_id = ::if_nametoindex(host.c_str() + percent + 1);
    }
    return SocketAddress(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
}

std::uint16_t SocketAddress::port() const noexcept {
    if (family() == AF_INET) {
        return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
    }
    return family() == AF_INET6 ? ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port) : std::uint16_t{0};
}

void SocketAddress::set_port(std::uint16_t port) noexcept {
    if (family() == AF_INET) {
        reinterpret_cast<sockaddr_in*>(&storage_)->sin_port = htons(port);
    } else if (family() == AF_INET6) {
        reinterpret_cast<sockaddr_in6*>(&storage_)->sin6_port = htons(port);
    }
}

std::string SocketAddress::host() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* address = nullptr;
    if (family() == AF_INET) {
        address = &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr;
    } else if (family() == AF_INET6) {
        address = &reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr;
    }
    if (address == nullptr || ::inet_ntop(family(), address, text.data(), text.size()) == nullptr) {
        return {};
    }
    return text.data();
}

std::string SocketAddress::text() const { return address_text(host(), port()); }

std::string address_text(const std::string& host, std::uint16_t port) {
    if (host.find(':') != std::string::npos) {
        return "[" + host + "]:" + std::to_string(port);
    }
    return host + ":" + std::to_string(port);
}

Outcome<UdpPair> bind_udp_pair(const std::string& host, std::uint16_t port, bool gro) {
    auto rtp = open_bound(host, port, SOCK_DGRAM, false);
    if (rtp.error != 0) {
        return {.error = rtp.error};
    }
    auto rtcp = open_bound(host, static_cast<std::uint16_t>(port + 1), SOCK_DGRAM, false);
    if (rtcp.error != 0) {
        return {.error = rtcp.error};
    }
    // Neither of these may fail the binding: a smaller buffer and single datagrams work as well. With CAP_NET_ADMIN the
    // buffer may pass rmem_max.
    if (::setsockopt(rtp.value.get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0) {
        (void)::setsockopt(rtp.value.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    if (gro) {
        const int on = 1;
        (void)::setsockopt(rtp.value.get(), IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    }
    return {.value = {.rtp = std::move(rtp.value), .rtcp = std::move(rtcp.value)}};
}

Outcome<UniqueFd> listen_tcp(const std::string& host, std::uint16_t port) {
    auto bound = open_bound(host, port, SOCK_STREAM, true);
    if (bound.error != 0) {
        return bound;
    }
    if (::listen(bound.value.get(), backlog) != 0) {
        return {.error = errno};
    }
    return bound;
}

Outcome<UniqueFd> connect_tcp(const SocketAddress& peer, const SocketAddress* local) {
    UniqueFd fd(::socket(peer.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
        return {.error = errno};
    }
    if (local != nullptr) {
        const int on = 1;
        if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
            ::bind(fd.get(), local->get(), local->size()) != 0) {
            return {.error = errno};
        }
    }
    if (::connect(fd.get(), peer.get(), peer.size()) == 0) {
        return {.value = std::move(fd)};
    }
    if (errno != EINPROGRESS) {
        return {.error = errno};
    }
    return {.value = std::move(fd), .error = EINPROGRESS};
}

void enlarge_receive_buffer(int fd) noexcept {
    const int wanted = 8 * receive_buffer;  // the kernel caps it at rmem_max
    (void)::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted);
}

Outcome<UniqueFd> hold_tcp(const std::string& host, std::uint16_t port) {
    return open_bound(host, port, SOCK_STREAM, true);
}

void keep_alive(int fd) noexcept {
    // A socket that is not TCP (a test's pair) takes none of these, and lives as well without.
    const int on = 1;
    (void)::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    const int idle = 30;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    const int interval = 10;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    const int probes = 3;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void set_nonblocking(int fd) noexcept {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0) {
        (void)::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
}

bool probe_udp_gro() noexcept {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    return fd && ::setsockopt(fd.get(), IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
}

bool probe_udp_gso() noexcept {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int size = 1400;
    return fd && ::setsockopt(fd.get(), IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) == 0;
}

}  // namespace gb28181
