// Sockets of receivers and sinks: descriptors with an owner, addresses, binding all or nothing (fault row F-14).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace gb28181 {

/// A file descriptor that is closed exactly once.
class UniqueFd {
public:
    UniqueFd() noexcept = default;
    explicit UniqueFd(int fd) noexcept : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    void reset() noexcept;

private:
    int fd_ = -1;
};

/// An IPv4 or IPv6 socket address.
class SocketAddress {
public:
    SocketAddress() noexcept = default;
    SocketAddress(const sockaddr* from, socklen_t size) noexcept;
    /// `host` is an address and never a name: nothing is looked up on this path.
    [[nodiscard]] static std::optional<SocketAddress> parse(const std::string& host, std::uint16_t port);

    [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
    [[nodiscard]] socklen_t size() const noexcept { return size_; }
    [[nodiscard]] int family() const noexcept { return storage_.ss_family; }
    [[nodiscard]] std::uint16_t port() const noexcept;
    void set_port(std::uint16_t port) noexcept;
    [[nodiscard]] std::string host() const;
    /// `ip:port`, or `[ip]:port`, for people.
    [[nodiscard]] std::string text() const;

private:
    sockaddr_storage storage_{};
    socklen_t size_ = 0;
};

/// `ip:port` for people.
[[nodiscard]] std::string address_text(const std::string& host, std::uint16_t port);

/// A result or the errno of the call that failed.
template <class T>
struct Outcome {
    T value{};
    int error = 0;
};

struct UdpPair {
    UniqueFd rtp;
    UniqueFd rtcp;
};

/// RTP on `port`, RTCP on the next (MED-32); on an error nothing is bound. Without SO_REUSEADDR: two programs must
/// never share a media port. `gro`: ask the kernel to merge datagrams.
[[nodiscard]] Outcome<UdpPair> bind_udp_pair(const std::string& host, std::uint16_t port, bool gro);
/// A listening socket. SO_REUSEADDR only steps over connections in TIME_WAIT.
[[nodiscard]] Outcome<UniqueFd> listen_tcp(const std::string& host, std::uint16_t port);
/// A connection being made; `error` is 0 or EINPROGRESS. `local`: where to dial from.
[[nodiscard]] Outcome<UniqueFd> connect_tcp(const SocketAddress& peer, const SocketAddress* local = nullptr);
/// Ask for a receive buffer for many streams.
void enlarge_receive_buffer(int fd) noexcept;
/// Holds a port that will be dialled from: connections may be bound to it beside this one.
[[nodiscard]] Outcome<UniqueFd> hold_tcp(const std::string& host, std::uint16_t port);

/// Find a dead peer within 90 s (fault row F-08): 30 s idle, then 3 probes 10 s apart.
void keep_alive(int fd) noexcept;
void set_nonblocking(int fd) noexcept;
/// Does this kernel merge datagrams on receive (UDP_GRO)?
[[nodiscard]] bool probe_udp_gro() noexcept;
/// Does it cut one datagram into many on sending (UDP_SEGMENT)?
[[nodiscard]] bool probe_udp_gso() noexcept;

}  // namespace gb28181
