#include "gb28181/rtp_outlet.hpp"

#include <sys/epoll.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "gb28181/receiver.hpp"
#include "gb28181/receiver_udp.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {
namespace {

// Refusals (ICMP port unreachable) further apart than this are not one outage; routers send few of them.
constexpr double refusal_gap_s = 3.0;
constexpr int max_refusals_a_send = 2;

bool is_full(int error) noexcept { return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS; }

}  // namespace

UdpOutlet::UdpOutlet(OutletOwner& owner, UdpPair sockets, double stall_s)
    : owner_(owner),
      rtp_(*this, std::move(sockets.rtp), true),
      rtcp_(*this, std::move(sockets.rtcp), false),
      stall_s_(stall_s) {}

void UdpOutlet::enter(Worker& worker) {
    worker_ = &worker;
    segments_ = worker.shared().has_gso;
    worker.watch(rtp_.fd(), EPOLLIN, rtp_);
    worker.watch(rtcp_.fd(), EPOLLIN, rtcp_);
}

void UdpOutlet::leave() {
    worker_->unwatch(rtp_.fd());
    worker_->unwatch(rtcp_.fd());
}

void UdpOutlet::aim(const SocketAddress& remote) {
    // Connected: the kernel looks the way up once and not per packet, and tells when nobody listens there.
    if (::connect(rtp_.fd(), remote.get(), remote.size()) != 0) {
        owner_.outlet_failed(remote.text(), "unreachable");
        return;
    }
    remote_ = remote;
    remote_source_ = source_of(remote.get());
    rtcp_remote_.reset();
    refused_since_.reset();
}

RtpOutlet::Taken UdpOutlet::send(std::span<const OutPacket> packets) {
    Taken taken;
    DatagramSender& sender = worker_->scratch().sender;
    int refusals = 0;
    while (taken.packets < packets.size()) {
        const auto rest = packets.subspan(taken.packets);
        const DatagramSender::Sent sent = sender.send(rtp_.fd(), nullptr, rest, segments_);
        taken.packets += sent.packets;
        taken.any = taken.any || sent.packets > 0;
        if (sent.error == 0 || sent.error == EINTR) continue;
        if (is_full(sent.error)) {
            taken.full = true;
            break;
        }
        if (segments_ && (sent.error == EIO || sent.error == EINVAL || sent.error == EMSGSIZE)) {
            segments_ = false;  // this way out cannot cut: one by one from now on
            continue;
        }
        if (sent.error == EMSGSIZE) {
            taken.lost = 1;
            break;
        }
        // The error of an earlier packet comes back with a later one, which then was not sent.
        refused(worker_->now());
        if (sent.error == ECONNREFUSED && ++refusals <= max_refusals_a_send) continue;
        taken.lost = rest.size();
        break;
    }
    taken.gone = refused_since_ && refused_at_ - *refused_since_ >= stall_s_;
    return taken;
}

void UdpOutlet::refused(double now) {
    if (!refused_since_ || now - refused_at_ > refusal_gap_s) refused_since_ = now;
    refused_at_ = now;
}

void UdpOutlet::wait_writable(bool wanted) {
    if (wanted == waiting_) return;
    waiting_ = wanted;
    worker_->rewatch(rtp_.fd(), wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, rtp_);
}

void UdpOutlet::report(ByteView data) {
    if (!remote_) return;
    SocketAddress to = rtcp_remote_.value_or(*remote_);
    if (!rtcp_remote_) {
        if (remote_->port() == 65535) return;
        to.set_port(static_cast<std::uint16_t>(remote_->port() + 1));
    }
    // A report that the kernel does not take is followed by the next one.
    (void)::sendto(rtcp_.fd(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL, to.get(), to.size());
}

void UdpOutlet::came(const SocketAddress& peer, ByteView data, bool on_rtcp) {
    // Only of the host that is sent to: its ports may differ behind a NAT.
    if (!remote_ || !is_rtcp(data) || source_of(peer.get()).host != remote_source_.host) return;
    if (on_rtcp) rtcp_remote_ = peer;
    owner_.outlet_rtcp(data);
}

void UdpOutlet::Socket::ready(std::uint32_t events) {
    Worker& worker = *owner_.worker_;
    if ((events & EPOLLOUT) != 0 && is_rtp_) owner_.owner_.outlet_writable();
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
    DatagramBatch& batch = worker.scratch().datagrams;
    const std::size_t count = batch.receive(fd_.get());
    if (count == 0) {
        // A refusal wakes as well, and reading took it off the socket.
        if ((events & EPOLLERR) != 0 && is_rtp_) owner_.refused(worker.refresh_now());
        return;
    }
    worker.refresh_now();
    for (std::size_t index = 0; index < count; ++index) {
        const SocketAddress peer(batch.peer(index), batch.peer_size(index));
        batch.each(index, [&](ByteView datagram) { owner_.came(peer, datagram, !is_rtp_); });
    }
}

// ---- through a receiver

void ThroughOutlet::leave() {
    home_->post([receiver = receiver_, id = id_](Worker& home) {
        if (Receiver* const found = home.receiver(receiver)) found->remove_talker(id);
    });
}

void ThroughOutlet::aim(const SocketAddress& remote) { remote_ = remote; }

RtpOutlet::Taken ThroughOutlet::send(std::span<const OutPacket> packets) {
    home_->post([receiver = receiver_, remote = remote_, batch = std::vector(packets.begin(), packets.end())](Worker& home) {
        if (Receiver* const found = home.receiver(receiver)) found->talk(batch, remote);
    });
    return {.packets = packets.size(), .any = true};
}

void ThroughOutlet::report(ByteView data) {
    home_->post([receiver = receiver_, remote = remote_, report = data.copy()](Worker& home) {
        if (Receiver* const found = home.receiver(receiver)) found->talk_control(ByteView(report), remote);
    });
}

void ThroughOutlet::peer_is(std::string peer) {
    peer_ = std::move(peer);
    owner_.outlet_ready();
}

// ---- TCP

class TcpOutlet::Listener final : public EpollHandler {
public:
    Listener(TcpOutlet& owner, UniqueFd fd) : owner_(owner), fd_(std::move(fd)) {}

    void ready(std::uint32_t /*events*/) override {
        sockaddr_storage peer{};
        socklen_t size = sizeof peer;
        UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (fd) owner_.accepted(std::move(fd), SocketAddress(reinterpret_cast<const sockaddr*>(&peer), size));
    }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

private:
    TcpOutlet& owner_;
    UniqueFd fd_;
};

class TcpOutlet::Connection final : public EpollHandler {
public:
    Connection(TcpOutlet& owner, UniqueFd fd) : owner_(owner), fd_(std::move(fd)) {}

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    void ready(std::uint32_t events) override {
        if ((events & EPOLLOUT) != 0) owner_.owner_.outlet_writable();
        if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
        Worker& worker = *owner_.worker_;
        std::vector<std::uint8_t>& bytes = worker.scratch().bytes;
        bytes.resize(std::max(bytes.size(), read_size));
        const auto count = ::recv(fd_.get(), bytes.data(), read_size, MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        worker.refresh_now();
        if (count <= 0) {
            owner_.owner_.outlet_gone();
            return;
        }
        std::vector<Framed>& framed = worker.scratch().framed;
        framed.clear();
        if (!framer_.feed({bytes.data(), static_cast<std::size_t>(count)}, framed)) {
            framer_ = Framer();  // what it says is of no use; that it reads is what counts
            return;
        }
        for (const Framed& one : framed) {
            if (!one.is_lost() && is_rtcp(one.packet)) owner_.owner_.outlet_rtcp(one.packet);
        }
        framer_.settle();
    }

    /// Writes what the kernel takes; the rest of a packet that it took in part goes first.
    Taken send(std::span<const OutPacket> packets) {
        Taken taken;
        while (taken.packets < packets.size()) {
            const auto rest = packets.subspan(taken.packets);
            std::array<iovec, 2 * max_vector> vectors;
            const std::size_t count = std::min(rest.size(), max_vector);
            std::size_t skip = offset_;
            std::size_t total = 0;
            for (std::size_t index = 0; index < count; ++index) {
                const OutPacket& packet = rest[index];
                const std::size_t in_head = std::min<std::size_t>(skip, packet.head_size);
                const std::size_t in_body = skip - in_head;
                // The kernel only reads; iovec has no const.
                vectors[2 * index] = {.iov_base = const_cast<std::uint8_t*>(packet.head.data()) + in_head,
                                      .iov_len = packet.head_size - in_head};
                vectors[2 * index + 1] = {.iov_base = const_cast<std::uint8_t*>(packet.body.data()) + in_body,
                                          .iov_len = packet.body.size() - in_body};
                total += packet.size() + OutPacket::frame_size - skip;
                skip = 0;
            }
            msghdr message{};
            message.msg_iov = vectors.data();
            message.msg_iovlen = 2 * count;
            const auto written = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (written < 0) {
                if (errno == EINTR) continue;
                taken.full = is_full(errno);
                taken.gone = !taken.full;
                return taken;
            }
            taken.any = taken.any || written > 0;
            std::size_t left = offset_ + static_cast<std::size_t>(written);
            for (std::size_t index = 0; index < count; ++index) {
                const std::size_t size = rest[index].size() + OutPacket::frame_size;
                if (left < size) break;
                left -= size;
                ++taken.packets;
            }
            offset_ = left;
            if (static_cast<std::size_t>(written) < total) {
                taken.full = true;
                return taken;
            }
        }
        return taken;
    }

    void wait_writable(bool wanted) {
        if (wanted == waiting_) return;
        waiting_ = wanted;
        owner_.worker_->rewatch(fd_.get(), wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, *this);
    }

    [[nodiscard]] bool is_inside() const noexcept { return offset_ != 0; }

private:
    static constexpr std::size_t max_vector = 64;
    static constexpr std::size_t read_size = 16 * 1024;

    TcpOutlet& owner_;
    UniqueFd fd_;
    Framer framer_;
    std::size_t offset_ = 0;  // bytes of the first packet that are written already
    bool waiting_ = false;
};

TcpOutlet::TcpOutlet(OutletOwner& owner, UniqueFd socket, bool dials, const std::string& host, HostSet expected,
                     double stall_s)
    : owner_(owner), dials_(dials), expected_(std::move(expected)), stall_s_(stall_s) {
    if (!dials) {
        listener_ = std::make_unique<Listener>(*this, std::move(socket));
        return;
    }
    held_ = std::move(socket);
    std::uint16_t port = 0;
    if (held_) {
        sockaddr_storage own{};
        socklen_t size = sizeof own;
        if (::getsockname(held_.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0) {
            port = SocketAddress(reinterpret_cast<const sockaddr*>(&own), size).port();
        }
    }
    if (!host.empty()) local_ = SocketAddress::parse(host, port);
}

TcpOutlet::~TcpOutlet() = default;

void TcpOutlet::enter(Worker& worker) {
    worker_ = &worker;
    if (listener_) worker.watch(listener_->fd(), EPOLLIN, *listener_);
}

void TcpOutlet::leave() {
    if (listener_) worker_->unwatch(listener_->fd());
    if (connection_) worker_->unwatch(connection_->fd());
    if (dialler_) dialler_->leave();
}

void TcpOutlet::aim(const SocketAddress& remote) {
    remote_ = remote;
    if (begun_at_ != never) dial();
}

void TcpOutlet::begin() {
    begun_at_ = worker_->now();
    dial();
}

void TcpOutlet::dial() {
    if (!dials_ || !remote_ || dialler_ || connection_) return;
    peer_ = remote_->text();
    // A local address of the other family cannot be dialled from.
    const bool fits = local_ && local_->family() == remote_->family();
    dialler_ = std::make_unique<Dialler>(*remote_, fits ? &*local_ : nullptr, [this](UniqueFd fd, const std::string& reason) {
        const SocketAddress peer = dialler_->peer();
        worker_->bury(std::move(dialler_));
        if (fd) {
            made(std::move(fd), peer);
        } else {
            owner_.outlet_failed(peer.text(), reason);
        }
    });
    dialler_->start(*worker_);
}

void TcpOutlet::accepted(UniqueFd fd, const SocketAddress& peer) {
    // One connection a session, and of those who were told the port (threat S-11).
    const Source source = source_of(peer.get());
    if (connection_ || (!expected_.empty() && !expected_.contains(source.host))) return;
    made(std::move(fd), peer);
}

void TcpOutlet::made(UniqueFd fd, const SocketAddress& peer) {
    const int room = 256 * 1024;
    // The kernel's own queue must not hide for a minute that the peer has stopped. It may refuse.
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    const int on = 1;
    (void)::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    keep_alive(fd.get());
    connection_ = std::make_unique<Connection>(*this, std::move(fd));
    worker_->watch(connection_->fd(), EPOLLIN, *connection_);
    peer_ = source_of(peer.get()).text();
    owner_.outlet_connected(peer_);
}

RtpOutlet::Taken TcpOutlet::send(std::span<const OutPacket> packets) { return connection_->send(packets); }

bool TcpOutlet::is_inside() const noexcept { return connection_ != nullptr && connection_->is_inside(); }

void TcpOutlet::wait_writable(bool wanted) {
    if (connection_) connection_->wait_writable(wanted);
}

// The connection itself tells that the peer lives, and old peers take a report for media.
void TcpOutlet::report(ByteView /*data*/) {}

void TcpOutlet::tick(double now) {
    if (dialler_) {
        dialler_->tick(now);
        return;
    }
    if (!dials_ && !connection_ && now - begun_at_ > stall_s_) owner_.outlet_gone();
}

}  // namespace gb28181
