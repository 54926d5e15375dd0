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
#include "gb28181/dialler.hpp"
#include "gb28181/out_packet.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/rfc4571.hpp"
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
    /// There is somewhere to send to now.
    virtual void outlet_ready() = 0;
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
        /// Bytes went, perhaps of a part of a packet.
        bool any = false;
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
    /// A connection, which keeps order.
    [[nodiscard]] virtual bool is_connection() const noexcept = 0;
    /// The kernel has a part of the first packet: it must be offered again before any other.
    [[nodiscard]] virtual bool is_inside() const noexcept { return false; }
    /// The receiver that it sends through, on the worker that owns it now.
    virtual void rehome(Worker& /*home*/) {}
    /// Where that receiver believes its device to be; empty: nowhere.
    virtual void peer_is(std::string /*peer*/) {}
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
    void tick(double /*now*/) override {}
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

    void came(const SocketAddress& peer, ByteView data, bool on_rtcp);
    void refused(double now);

    OutletOwner& owner_;
    Socket rtp_;
    Socket rtcp_;
    Worker* worker_ = nullptr;
    const double stall_s_;
    std::optional<SocketAddress> remote_;
    Source remote_source_;
    std::optional<SocketAddress> rtcp_remote_;  // where its reports come from, else the port above
    bool segments_ = true;
    bool waiting_ = false;
    std::optional<double> refused_since_;
    double refused_at_ = 0;
};

/// Sends on what a receiver owns (talk: both ways on one port, GB/T 28181-2022 9.12). The receiver may live on another
/// worker, so packets go there by its mailbox: once a turn, and talk is some fifty packets a second.
class ThroughOutlet final : public RtpOutlet {
public:
    ThroughOutlet(OutletOwner& owner, SinkId id, ReceiverId receiver, Worker& home)
        : owner_(owner), id_(id), receiver_(receiver), home_(&home) {}

    void enter(Worker& worker) override { worker_ = &worker; }
    void leave() override;
    void aim(const SocketAddress& remote) override;
    void begin() override {}
    [[nodiscard]] bool ready() const noexcept override { return remote_ || !peer_.empty(); }
    [[nodiscard]] Taken send(std::span<const OutPacket> packets) override;
    void wait_writable(bool /*wanted*/) override {}
    void report(ByteView data) override;
    void tick(double /*now*/) override {}
    [[nodiscard]] std::string remote() const override { return peer_.empty() && remote_ ? remote_->text() : peer_; }
    [[nodiscard]] bool is_connection() const noexcept override { return false; }
    void rehome(Worker& home) override { home_ = &home; }
    void peer_is(std::string peer) override;

private:
    OutletOwner& owner_;
    const SinkId id_;
    const ReceiverId receiver_;
    Worker* home_;
    Worker* worker_ = nullptr;
    std::optional<SocketAddress> remote_;
    std::string peer_;
};

/// One connection, listened for or dialled (RFC 4571; GB/T 28181-2022 Annex D).
class TcpOutlet final : public RtpOutlet {
public:
    /// `socket`: a listener; where `dials`, one that holds the port to dial from, or none. `expected`: who may connect
    /// (threat S-11); empty: any. `stall_s`: a peer that has not connected for so long is gone.
    TcpOutlet(OutletOwner& owner, UniqueFd socket, bool dials, const std::string& host, HostSet expected, double stall_s);
    ~TcpOutlet() override;

    void enter(Worker& worker) override;
    void leave() override;
    void aim(const SocketAddress& remote) override;
    void begin() override;
    [[nodiscard]] bool ready() const noexcept override { return connection_ != nullptr; }
    [[nodiscard]] Taken send(std::span<const OutPacket> packets) override;
    void wait_writable(bool wanted) override;
    void report(ByteView data) override;
    void tick(double now) override;
    [[nodiscard]] std::string remote() const override { return peer_; }
    [[nodiscard]] bool is_connection() const noexcept override { return true; }
    [[nodiscard]] bool is_inside() const noexcept override;

private:
    class Listener;
    class Connection;
    friend class Listener;
    friend class Connection;

    void accepted(UniqueFd fd, const SocketAddress& peer);
    void made(UniqueFd fd, const SocketAddress& peer);
    void dial();

    OutletOwner& owner_;
    UniqueFd held_;
    const bool dials_;
    const HostSet expected_;
    const double stall_s_;
    std::optional<SocketAddress> local_;
    std::unique_ptr<Listener> listener_;
    std::unique_ptr<Connection> connection_;
    std::unique_ptr<Dialler> dialler_;
    Worker* worker_ = nullptr;
    std::optional<SocketAddress> remote_;
    std::string peer_;
    double begun_at_ = never;
};

}  // namespace gb28181
