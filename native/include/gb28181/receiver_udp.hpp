// RTP and RTCP over UDP: a pair of sockets, and the receiver reports that go back.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <optional>

#include "gb28181/receiver.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

/// The peer of a datagram as a `Source`.
[[nodiscard]] Source source_of(const sockaddr* address, std::uint64_t connection = 0);

/// Owner of one bound pair.
class UdpReceiver {
public:
    /// `borrowed`: the shared port's, which reads them; they are only sent on here.
    UdpReceiver(Receiver& core, std::shared_ptr<const UdpPair> sockets, bool borrowed);

    void enter(Worker& worker);
    void leave(Worker& worker);
    /// Send the receiver report when it is due (MED-31).
    ///
    /// To where the device's RTCP came from; until some came, to the port above its RTP port, and to the RTP port
    /// itself, which is the only open way through a NAT. Nothing goes to a source that has not proved itself.
    void tick(double now);
    /// A datagram that the kernel does not take is lost as on the way.
    void send(ByteView data, const Source& peer) const { rtp_.send(data, peer); }
    void send(ByteView data, const SocketAddress& peer) const { rtp_.send(data, source_of(peer.get())); }
    void send_control(ByteView data, const Source& peer) const { rtcp_.send(data, peer); }

private:
    class Socket final : public EpollHandler {
    public:
        Socket(Receiver& core, int fd, bool is_rtp) : core_(core), fd_(fd), is_rtp_(is_rtp) {}
        void ready(std::uint32_t events) override;
        [[nodiscard]] int fd() const noexcept { return fd_; }
        void send(ByteView data, const Source& peer) const;

    private:
        Receiver& core_;
        int fd_;
        bool is_rtp_;
        SocketAddress last_;  // the peer of the last datagram, and what it is as a source
        Source last_source_;
    };

    Receiver& core_;
    std::shared_ptr<const UdpPair> sockets_;
    bool borrowed_;
    Socket rtp_;
    Socket rtcp_;
};

}  // namespace gb28181
