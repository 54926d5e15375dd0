#include "gb28181/rtp_outlet.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

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
    if (!remote_ || remote_->port() == 65535) return;
    SocketAddress to = *remote_;
    to.set_port(static_cast<std::uint16_t>(remote_->port() + 1));
    // A report that the kernel does not take is followed by the next one.
    (void)::sendto(rtcp_.fd(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL, to.get(), to.size());
}

void UdpOutlet::tick(double /*now*/) {}

void UdpOutlet::came(const sockaddr* peer, ByteView data) {
    // Only of the host that is sent to: its ports may differ behind a NAT.
    if (remote_ && is_rtcp(data) && source_of(peer).host == remote_source_.host) owner_.outlet_rtcp(data);
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
        batch.each(index, [&](ByteView datagram) { owner_.came(batch.peer(index), datagram); });
    }
}

}  // namespace gb28181
