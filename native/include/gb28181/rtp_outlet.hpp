// Where the packets of one RTP sink leave: a pair of UDP sockets, or one TCP connection (RFC 4571).
//
// An outlet owns descriptors and knows how the kernel takes packets. What is sent, and when, is the sink's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gb28181/bytes.hpp"
#include "gb28181/out_packet.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/source.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

/// What an outlet tells its sink.
class OutletOwner {
public:
    OutletOwner() = default;
    OutletOwner(const OutletOwner&) = delete;
    OutletOwner& operator=(const OutletOwner&) = delete;
    virtual ~OutletOwner() = default;
    /// A connection was made.
    virtual void outlet_connected(const std::string& peer) = 0;
    /// None could be made.
    virtual void outlet_failed(const std::string& peer, const std::string& reason) = 0;
    /// The kernel takes packets again.
    virtual void outlet_writable() = 0;
    /// The peer is gone. The outlet may be used no more.
    virtual void outlet_gone() = 0;
    /// An RTCP packet of the peer.
    virtual void outlet_rtcp(ByteView data) = 0;
};

class RtpOutlet {
public:
    struct Taken {
        /// Packets that the kernel took whole.
        std::size_t packets = 0;
        /// Packets behind those that cannot be sent and are to be passed over.
        std::size_t lost = 0;
        /// The kernel is full; `wait_writable` says when it is not.
        bool full = false;
        /// The peer cannot be reached any more.
        bool gone = false;
    };

    RtpOutlet() = default;
    RtpOutlet(const RtpOutlet&) = delete;
    RtpOutlet& operator=(const RtpOutlet&) = delete;
    virtual ~RtpOutlet() = default;

    virtual void enter(Worker& worker) = 0;
    virtual void leave() = 0;
    virtual void aim(const SocketAddress& remote) = 0;
    /// The sink sends from now on: dial, if that is how.
    virtual void begin() = 0;
    /// Packets have somewhere to go.
    [[nodiscard]] virtual bool ready() const noexcept = 0;
    [[nodiscard]] virtual Taken send(std::span<const OutPacket> packets) = 0;
    virtual void wait_writable(bool wanted) = 0;
    /// Send an RTCP packet, where there is a way for it.
    virtual void report(ByteView data) = 0;
    /// Called several times a second.
    virtual void tick(double now) = 0;
    /// `ip:port` of the peer; empty while unknown.
    [[nodiscard]] virtual std::string remote() const = 0;
    /// A connection, which keeps order and may be written in part.
    [[nodiscard]] virtual bool is_connection() const noexcept = 0;
};

/// RTP from one socket and RTCP from the next.
class UdpOutlet final : public RtpOutlet {
public:
    /// `stall_s`: an unreachable port for so long is a peer that is gone.
    UdpOutlet(OutletOwner& owner, UdpPair sockets, double stall_s);

    void enter(Worker& worker) override;
    void leave() override;
    void aim(const SocketAddress& remote) override;
    void begin() override {}
    [[nodiscard]] bool ready() const noexcept override { return remote_.has_value(); }
    [[nodiscard]] Taken send(std::span<const OutPacket> packets) override;
    void wait_writable(bool wanted) override;
    void report(ByteView data) override;
    void tick(double now) override;
    [[nodiscard]] std::string remote() const override { return remote_ ? remote_->text() : std::string(); }
    [[nodiscard]] bool is_connection() const noexcept override { return false; }

private:
    class Socket final : public EpollHandler {
    public:
        Socket(UdpOutlet& owner, UniqueFd fd, bool is_rtp) : owner_(owner), fd_(std::move(fd)), is_rtp_(is_rtp) {}
        void ready(std::uint32_t events) override;
        [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    private:
        UdpOutlet& owner_;
        UniqueFd fd_;
        bool is_rtp_;
    };

    void came(const sockaddr* peer, ByteView data);
    void refused(double now);

    OutletOwner& owner_;
    Socket rtp_;
    Socket rtcp_;
    Worker* worker_ = nullptr;
    const double stall_s_;
    std::optional<SocketAddress> remote_;
    Source remote_source_;
    bool segments_ = true;
    bool waiting_ = false;
    std::optional<double> refused_since_;
    double refused_at_ = 0;
};

}  // namespace gb28181
