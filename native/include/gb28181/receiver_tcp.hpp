// RTP over TCP (RFC 4571; GB/T 28181-2022 Annex D): listening, dialling, or both at once (INV-18).
//
// One connection feeds the stream; until it is known which one, a few may be open. A connection that does not become it
// within ten seconds, and those that come while it is alive, are closed (rule 4.2.6).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gb28181/dialler.hpp"
#include "gb28181/receiver.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

/// Owner of a listener, of its connections, and of what dials.
class TcpReceiver {
public:
    /// `listener` may be empty: then it only dials.
    TcpReceiver(Receiver& core, UniqueFd listener);
    ~TcpReceiver();

    void enter(Worker& worker);
    void leave(Worker& worker);
    /// A listener that comes late (INV-24); on the worker.
    void listen(UniqueFd listener);
    [[nodiscard]] bool listens() const noexcept { return listener_ != nullptr; }
    /// Connect to the device: 3 tries, 1 s apart (Annex D). A dialling under way goes on.
    void dial(const std::string& host, std::uint16_t port);
    /// A connection that was accepted elsewhere, and what came over it.
    void adopt(UniqueFd fd, const SocketAddress& peer, ByteView data);
    /// Send bytes that are framed already on the connection for talk; false: there is none.
    bool talk(ByteView framed);
    [[nodiscard]] bool has_talk() const noexcept { return talk_connection() != nullptr; }
    [[nodiscard]] std::string talk_peer() const;
    /// Close what did not become the stream's connection in time; go on dialling.
    void tick(double now);

private:
    class Listener;
    class Connection;
    friend class Listener;
    friend class Connection;

    /// The latched connection, else the first of an address that was expected: a device that only listens never sends
    /// what would latch it.
    [[nodiscard]] Connection* talk_connection() const noexcept;
    void accepted(UniqueFd fd, const SocketAddress& peer);
    /// Is there room for a connection? One that comes while the stream's own is alive is not wanted, unless that one
    /// latched by grace only (rule 4.2.1).
    [[nodiscard]] bool wants(const Source& source, double now);
    [[nodiscard]] bool make_room(const Source& source);
    /// This connection is the stream's: the others end.
    void proved(const Connection& connection);
    /// It is closed and belongs to the graveyard.
    void remove(Connection& connection);
    void report(double now);
    /// Leave connections waiting for a moment.
    void pause_listening();
    void dialled(UniqueFd fd, const std::string& reason);

    Receiver& core_;
    std::unique_ptr<Listener> listener_;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::unique_ptr<Dialler> dialler_;
    std::uint64_t next_number_ = 1;
    double listen_again_at_ = never;
};

}  // namespace gb28181
