// One UDP and TCP port for all receivers, told apart by SSRC and source (`[media] shared_port`).
//
// Theory of operation. One worker owns the sockets and a table of the receivers on them; the receivers live on the workers
// of their streams and tell the table what they know. A packet goes to one receiver and is judged there by the source rule
// as on a port of its own. Which one: that which latched its source and SSRC; else the one that agreed its SSRC, or of
// whose SSRC it is a known variant (INV-03); else the only one that latched its source, for a new epoch. What fits none is
// dropped (threat S-06); if one waiting receiver expects its address, that one is told of the SSRC, so that a call fails
// with the reason. Packets for another worker go there by its mailbox, once for all that one read gave.
//
// A TCP connection belongs to the receiver that its first RTP packet names, and from then on it is a connection of that
// receiver like any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/source.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

/// What the table knows of a receiver.
struct SharedMember {
    ReceiverId id = 0;
    Worker* home = nullptr;
    std::vector<std::uint32_t> agreed;
    HostSet expected;
    bool strict = false;
    /// An RTP sink sends through it.
    bool talks = false;
    std::optional<Source> source;
    std::optional<std::uint32_t> ssrc;

    [[nodiscard]] bool expects(const Source& from) const noexcept {
        return expected.empty() ? !strict : expected.contains(from.host);
    }
};

/// A packet on its way to a receiver on another worker.
struct SharedPacket {
    ReceiverId receiver = 0;
    Source source;
    Buffer data;
    enum class Kind : std::uint8_t { rtp, rtcp, refused } kind = Kind::rtp;
};

/// Hand packets to the receivers of this worker.
void take_shared(Worker& worker, const std::vector<SharedPacket>& packets);

/// Owner of the sockets and of the table. Used by the thread of its worker.
class SharedPort {
public:
    SharedPort(Worker& worker, std::shared_ptr<const UdpPair> udp, UniqueFd listener);
    ~SharedPort();
    SharedPort(const SharedPort&) = delete;
    SharedPort& operator=(const SharedPort&) = delete;

    /// A receiver is there, or what it knows has changed.
    void joined(SharedMember member);
    void left(ReceiverId id);
    /// Close connections that did not say in time whose they are.
    void tick(double now);

private:
    class Socket;
    class Listener;
    class Unnamed;
    friend class Socket;
    friend class Listener;
    friend class Unnamed;

    struct Key {
        Source source;
        std::uint32_t ssrc;
        bool operator==(const Key&) const = default;
    };
    struct KeyHash {
        std::size_t operator()(const Key& key) const noexcept;
    };

    void datagram(ByteView data, const Source& source);
    void control(ByteView data, const Source& source);
    [[nodiscard]] SharedMember* find(const Source& source, std::uint32_t ssrc);
    [[nodiscard]] SharedMember* best(std::uint32_t ssrc, const Source& source);
    void tell_refused(ByteView data, const Source& source);
    void deliver(const SharedMember& member, ByteView data, const Source& source, SharedPacket::Kind kind);
    /// All of one read was delivered.
    void flush();
    void forget(const SharedMember& member);
    void accepted(UniqueFd fd, const SocketAddress& peer);
    /// The first RTP packet of a connection came; `data` is all that came.
    void named(Unnamed& connection, std::uint32_t ssrc, ByteView data);
    void remove(Unnamed& connection);

    Worker& worker_;
    std::shared_ptr<const UdpPair> udp_;
    std::unique_ptr<Socket> rtp_;
    std::unique_ptr<Socket> rtcp_;
    std::unique_ptr<Listener> listener_;
    std::vector<std::unique_ptr<Unnamed>> unnamed_;
    std::unordered_map<ReceiverId, SharedMember> members_;
    std::unordered_multimap<std::uint32_t, ReceiverId> by_ssrc_;  // agreed ones and their known variants
    std::unordered_map<Key, ReceiverId, KeyHash> latched_;
    std::unordered_multimap<std::uint64_t, ReceiverId> by_source_;  // by a hash of it
    std::vector<std::pair<Worker*, std::vector<SharedPacket>>> outgoing_;
    std::vector<ReceiverId> touched_;  // receivers here that were given something
    double looked_at_ = 0;
};

/// What an SSRC becomes with devices that write it wrongly (INV-03): byte-swapped, its digits read as hex.
[[nodiscard]] std::pair<std::uint32_t, std::uint32_t> ssrc_variants_of(std::uint32_t ssrc) noexcept;

}  // namespace gb28181
