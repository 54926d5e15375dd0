#include "gb28181/receiver_udp.hpp"

#include <netinet/in.h>

#include <array>
#include <cstring>
#include <utility>

namespace gb28181 {

Source source_of(const sockaddr* address, std::uint64_t connection) {
    Source source;
    source.connection = connection;
    if (address->sa_family == AF_INET6) {
        sockaddr_in6 v6;
        std::memcpy(&v6, address, sizeof v6);
        std::array<std::uint8_t, 16> bytes;
        std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
        source.host = IpAddress::v6(bytes, v6.sin6_scope_id);
        source.port = ntohs(v6.sin6_port);
    } else if (address->sa_family == AF_INET) {
        sockaddr_in v4;
        std::memcpy(&v4, address, sizeof v4);
        source.host = IpAddress::v4(ntohl(v4.sin_addr.s_addr));
        source.port = ntohs(v4.sin_port);
    }
    return source;
}

UdpReceiver::UdpReceiver(Receiver& core, std::shared_ptr<const UdpPair> sockets, bool borrowed)
    : core_(core),
      sockets_(std::move(sockets)),
      borrowed_(borrowed),
      rtp_(core, sockets_->rtp.get(), true),
      rtcp_(core, sockets_->rtcp.get(), false) {}

void UdpReceiver::enter(Worker& worker) {
    if (borrowed_) return;
    worker.watch(rtp_.fd(), EPOLLIN, rtp_);
    worker.watch(rtcp_.fd(), EPOLLIN, rtcp_);
}

void UdpReceiver::leave(Worker& worker) {
    if (borrowed_) return;
    worker.unwatch(rtp_.fd());
    worker.unwatch(rtcp_.fd());
}

void UdpReceiver::Socket::ready(std::uint32_t /*events*/) {
    Worker& worker = core_.worker();
    DatagramBatch& batch = worker.scratch().datagrams;
    const std::size_t count = batch.receive(fd_);
    if (count == 0) return;
    worker.refresh_now();
    for (std::size_t index = 0; index < count; ++index) {
        const sockaddr* peer = batch.peer(index);
        const socklen_t size = batch.peer_size(index);
        if (size != last_.size() || std::memcmp(peer, last_.get(), size) != 0) {
            last_ = SocketAddress(peer, size);
            last_source_ = source_of(peer);
        }
        batch.each(index, [this](ByteView datagram) {
            if (is_rtp_) {
                core_.packet(datagram, last_source_);
            } else {
                core_.rtcp_packet(datagram, last_source_);
            }
        });
    }
    core_.settle();
}

void UdpReceiver::Socket::send(ByteView data, const Source& peer) const {
    auto address = SocketAddress::parse(peer.host.text(), peer.port);
    if (!address) return;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&own), &size) != 0) return;
    if (own.ss_family == AF_INET6 && address->family() == AF_INET) {
        address = SocketAddress::parse("::ffff:" + peer.host.text(), peer.port);
        if (!address) return;
    }
    // A report that the kernel does not take is followed by the next one in five seconds.
    (void)::sendto(fd_, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL, address->get(), address->size());
}

void UdpReceiver::tick(double now) {
    const auto& latched = core_.gate().source();
    if (!latched || latched->connection != 0) return;
    const std::vector<std::uint8_t> report = core_.due_report(now);
    if (report.empty()) return;
    if (const auto& peer = core_.rtcp_peer()) {
        (*peer == *latched ? rtp_ : rtcp_).send(report, *peer);
        return;
    }
    if (latched->port < 65535) {
        Source above = *latched;
        ++above.port;
        rtcp_.send(report, above);
    }
    rtp_.send(report, *latched);
}

}  // namespace gb28181
