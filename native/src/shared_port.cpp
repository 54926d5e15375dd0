#include "gb28181/shared_port.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "gb28181/receiver.hpp"
#include "gb28181/receiver_udp.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {
namespace {

constexpr std::size_t max_unnamed = 256;         // connections that did not show an RTP packet yet
constexpr std::size_t max_unnamed_of_host = 16;  // and of one host
constexpr std::size_t max_unnamed_bytes = std::size_t{128} * 1024;
constexpr double prove_s = 10.0;
constexpr double look_s = 0.05;
constexpr unsigned receiver_report = 201;

std::uint64_t hash_of(const Source& source) noexcept {
    std::uint64_t value = source.port + 0x9E3779B97F4A7C15ULL;
    for (std::size_t at = 0; at < source.host.bytes.size(); at += 8) {
        std::uint64_t piece = 0;
        std::memcpy(&piece, source.host.bytes.data() + at, sizeof piece);
        value = (value ^ piece) * 0xFF51AFD7ED558CCDULL;
        value ^= value >> 32;
    }
    return value;
}

std::vector<std::uint32_t> names_of(const SharedMember& member) {
    std::vector<std::uint32_t> names;
    for (const std::uint32_t ssrc : member.agreed) {
        const auto [swapped, as_hex] = ssrc_variants_of(ssrc);
        for (const std::uint32_t name : {ssrc, swapped, as_hex}) {
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    }
    return names;
}

template <class Map, class Name>
void erase_one(Map& map, const Name& name, ReceiverId id) {
    const auto [first, last] = map.equal_range(name);
    for (auto at = first; at != last; ++at) {
        if (at->second == id) {
            map.erase(at);
            return;
        }
    }
}

}  // namespace

std::pair<std::uint32_t, std::uint32_t> ssrc_variants_of(std::uint32_t ssrc) noexcept {
    std::uint32_t as_hex = 0;
    std::uint32_t rest = ssrc;
    for (unsigned place = 0; place < 8; ++place, rest /= 10) as_hex |= rest % 10 << 4 * place;
    return {__builtin_bswap32(ssrc), as_hex};
}

void take_shared(Worker& worker, const std::vector<SharedPacket>& packets) {
    for (const SharedPacket& packet : packets) {
        Receiver* const receiver = worker.receiver(packet.receiver);
        if (receiver == nullptr) continue;
        switch (packet.kind) {
            case SharedPacket::Kind::rtp:
                (void)receiver->packet(packet.data, packet.source);
                break;
            case SharedPacket::Kind::rtcp:
                receiver->rtcp_packet(packet.data, packet.source);
                break;
            case SharedPacket::Kind::refused:
                receiver->refused(packet.data.view().u32(8), packet.source);
                break;
        }
        receiver->settle();
    }
}

std::size_t SharedPort::KeyHash::operator()(const Key& key) const noexcept {
    return static_cast<std::size_t>((hash_of(key.source) ^ key.ssrc) * 0xC4CEB9FE1A85EC53ULL);
}

class SharedPort::Socket final : public EpollHandler {
public:
    Socket(SharedPort& owner, int fd, bool is_rtp) : owner_(owner), fd_(fd), is_rtp_(is_rtp) {
        owner.worker_.watch(fd, EPOLLIN, *this);
    }
    ~Socket() override { owner_.worker_.unwatch(fd_); }

    void ready(std::uint32_t /*events*/) override {
        DatagramBatch& batch = owner_.worker_.scratch().datagrams;
        const std::size_t count = batch.receive(fd_);
        if (count == 0) return;
        owner_.worker_.refresh_now();
        for (std::size_t index = 0; index < count; ++index) {
            const Source source = source_of(batch.peer(index));
            batch.each(index, [&](ByteView datagram) {
                if (is_rtp_) {
                    owner_.datagram(datagram, source);
                } else {
                    owner_.control(datagram, source);
                }
            });
        }
        owner_.flush();
    }

private:
    SharedPort& owner_;
    int fd_;
    bool is_rtp_;
};

class SharedPort::Listener final : public EpollHandler {
public:
    Listener(SharedPort& owner, UniqueFd fd) : owner_(owner), fd_(std::move(fd)) {
        owner.worker_.watch(fd_.get(), EPOLLIN, *this);
    }
    ~Listener() override { owner_.worker_.unwatch(fd_.get()); }

    void ready(std::uint32_t /*events*/) override {
        sockaddr_storage peer{};
        socklen_t size = sizeof peer;
        UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (fd) owner_.accepted(std::move(fd), SocketAddress(reinterpret_cast<const sockaddr*>(&peer), size));
    }

private:
    SharedPort& owner_;
    UniqueFd fd_;
};

/// A connection until its first RTP packet.
class SharedPort::Unnamed final : public EpollHandler {
public:
    Unnamed(SharedPort& owner, UniqueFd fd, const SocketAddress& peer)
        : owner_(owner), fd_(std::move(fd)), peer_(peer), source_(source_of(peer.get())), since_(owner.worker_.now()) {
        owner.worker_.watch(fd_.get(), EPOLLIN, *this);
    }

    void ready(std::uint32_t /*events*/) override {
        if (!fd_) return;
        std::vector<std::uint8_t>& scratch = owner_.worker_.scratch().bytes;
        scratch.resize(std::max(scratch.size(), read_size));
        const auto count = ::recv(fd_.get(), scratch.data(), read_size, MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count <= 0) {
            close();
            return;
        }
        owner_.worker_.refresh_now();
        const ByteView data{scratch.data(), static_cast<std::size_t>(count)};
        bytes_.insert(bytes_.end(), data.begin(), data.end());
        std::vector<Framed>& framed = owner_.worker_.scratch().framed;
        framed.clear();
        if (!framer_.feed(data, framed) || bytes_.size() > max_unnamed_bytes) {
            close();
            return;
        }
        for (const Framed& one : framed) {
            if (one.is_lost() || one.packet.size() < rtp_header_size || is_rtcp(one.packet)) continue;
            owner_.named(*this, one.packet.u32(8), ByteView(bytes_));
            return;
        }
        framer_.settle();
    }

    void close() {
        if (!fd_) return;
        owner_.worker_.unwatch(fd_.get());
        fd_.reset();
        owner_.remove(*this);  // last: it gives this away
    }
    [[nodiscard]] UniqueFd release() {
        owner_.worker_.unwatch(fd_.get());
        return std::move(fd_);
    }
    [[nodiscard]] const SocketAddress& peer() const noexcept { return peer_; }
    [[nodiscard]] const Source& source() const noexcept { return source_; }
    [[nodiscard]] double since() const noexcept { return since_; }

private:
    static constexpr std::size_t read_size = std::size_t{64} * 1024;

    SharedPort& owner_;
    UniqueFd fd_;
    SocketAddress peer_;
    Source source_;
    double since_;
    Framer framer_;
    Bytes bytes_;
};

SharedPort::SharedPort(Worker& worker, std::shared_ptr<const UdpPair> udp, UniqueFd listener)
    : worker_(worker), udp_(std::move(udp)) {
    rtp_ = std::make_unique<Socket>(*this, udp_->rtp.get(), true);
    rtcp_ = std::make_unique<Socket>(*this, udp_->rtcp.get(), false);
    listener_ = std::make_unique<Listener>(*this, std::move(listener));
}

SharedPort::~SharedPort() = default;

// ---- receivers

void SharedPort::joined(SharedMember member) {
    left(member.id);
    for (const std::uint32_t name : names_of(member)) by_ssrc_.emplace(name, member.id);
    if (member.source && member.source->connection == 0 && member.ssrc) {
        latched_[{*member.source, *member.ssrc}] = member.id;
        by_source_.emplace(hash_of(*member.source), member.id);
    }
    const ReceiverId id = member.id;
    members_.emplace(id, std::move(member));
}

void SharedPort::left(ReceiverId id) {
    const auto found = members_.find(id);
    if (found == members_.end()) return;
    forget(found->second);
    members_.erase(found);
}

void SharedPort::forget(const SharedMember& member) {
    for (const std::uint32_t name : names_of(member)) erase_one(by_ssrc_, name, member.id);
    if (!member.source || !member.ssrc) return;
    const auto found = latched_.find({*member.source, *member.ssrc});
    if (found != latched_.end() && found->second == member.id) latched_.erase(found);
    erase_one(by_source_, hash_of(*member.source), member.id);
}

// ---- packets

void SharedPort::datagram(ByteView data, const Source& source) {
    if (is_rtcp(data)) {
        control(data, source);
        return;
    }
    if (data.size() < rtp_header_size) return;
    const std::uint32_t ssrc = data.u32(8);
    const auto known = latched_.find({source, ssrc});
    const SharedMember* const member = known != latched_.end() ? &members_.at(known->second) : find(source, ssrc);
    if (member != nullptr) {
        deliver(*member, data, source, SharedPacket::Kind::rtp);
    } else {
        tell_refused(data, source);
    }
}

void SharedPort::control(ByteView data, const Source& source) {
    // To the receiver whose sender says it, or to those that send themselves and may be meant.
    if (data.size() < 8) return;
    const std::uint32_t sender = data.u32(4);
    const auto [first, last] = by_ssrc_.equal_range(sender);
    for (auto at = first; at != last; ++at) {
        const SharedMember& member = members_.at(at->second);
        if (member.ssrc == sender && member.source && member.source->host == source.host) {
            deliver(member, data, source, SharedPacket::Kind::rtcp);
            return;
        }
    }
    if (data[1] != receiver_report) return;
    for (const auto& entry : members_) {
        if (entry.second.talks) deliver(entry.second, data, source, SharedPacket::Kind::rtcp);
    }
}

SharedMember* SharedPort::find(const Source& source, std::uint32_t ssrc) {
    if (SharedMember* const member = best(ssrc, source)) return member;
    SharedMember* only = nullptr;
    const auto [first, last] = by_source_.equal_range(hash_of(source));
    for (auto at = first; at != last; ++at) {
        SharedMember& member = members_.at(at->second);
        if (member.source != source) continue;
        if (only != nullptr) return nullptr;
        only = &member;
    }
    return only;
}

SharedMember* SharedPort::best(std::uint32_t ssrc, const Source& source) {
    // Of several, which happens when a device answers with an SSRC of its own: who knows the source best.
    const auto rank = [&](const SharedMember& member) {
        const bool agreed = std::find(member.agreed.begin(), member.agreed.end(), ssrc) != member.agreed.end();
        return std::tuple(!agreed, member.source != source, !member.expects(source), member.source.has_value());
    };
    SharedMember* chosen = nullptr;
    const auto [first, last] = by_ssrc_.equal_range(ssrc);
    for (auto at = first; at != last; ++at) {
        SharedMember& member = members_.at(at->second);
        if (chosen == nullptr || rank(member) < rank(*chosen)) chosen = &member;
    }
    return chosen;
}

void SharedPort::tell_refused(ByteView data, const Source& source) {
    // Now and then only: it takes all receivers, and a flood of packets of nobody must cost little.
    const double now = worker_.now();
    if (now - looked_at_ < look_s) return;
    looked_at_ = now;
    const SharedMember* only = nullptr;
    for (const auto& entry : members_) {
        const SharedMember& member = entry.second;
        if (member.source || member.expected.empty() || !member.expects(source)) continue;
        if (only != nullptr) return;
        only = &member;
    }
    if (only != nullptr) deliver(*only, data.slice(0, rtp_header_size), source, SharedPacket::Kind::refused);
}

void SharedPort::deliver(const SharedMember& member, ByteView data, const Source& source, SharedPacket::Kind kind) {
    if (member.home != &worker_) {
        const auto place = std::find_if(outgoing_.begin(), outgoing_.end(),
                                        [&](const auto& entry) { return entry.first == member.home; });
        auto& packets = place != outgoing_.end() ? place->second : outgoing_.emplace_back(member.home, std::vector<SharedPacket>()).second;
        packets.push_back({.receiver = member.id, .source = source, .data = Buffer::copy_of(data), .kind = kind});
        return;
    }
    const ReceiverId id = member.id;  // the receiver may change the member
    Receiver* const receiver = worker_.receiver(id);
    if (receiver == nullptr) return;
    switch (kind) {
        case SharedPacket::Kind::rtp:
            (void)receiver->packet(data, source);
            break;
        case SharedPacket::Kind::rtcp:
            receiver->rtcp_packet(data, source);
            break;
        case SharedPacket::Kind::refused:
            receiver->refused(data.u32(8), source);
            break;
    }
    if (touched_.empty() || touched_.back() != id) touched_.push_back(id);
}

void SharedPort::flush() {
    for (const ReceiverId id : touched_) {
        if (Receiver* const receiver = worker_.receiver(id)) receiver->settle();
    }
    touched_.clear();
    for (auto& [home, packets] : outgoing_) {
        if (packets.empty()) continue;
        home->post([packets = std::exchange(packets, {})](Worker& worker) { take_shared(worker, packets); });
    }
}

// ---- connections

void SharedPort::accepted(UniqueFd fd, const SocketAddress& peer) {
    const Source source = source_of(peer.get());
    const auto of_host = std::count_if(unnamed_.begin(), unnamed_.end(),
                                       [&](const auto& other) { return other->source().host == source.host; });
    if (unnamed_.size() >= max_unnamed || static_cast<std::size_t>(of_host) >= max_unnamed_of_host) return;
    worker_.refresh_now();
    unnamed_.push_back(std::make_unique<Unnamed>(*this, std::move(fd), peer));
}

void SharedPort::named(Unnamed& connection, std::uint32_t ssrc, ByteView data) {
    const SharedMember* const member = best(ssrc, connection.source());
    if (member == nullptr) {
        std::array<std::uint8_t, rtp_header_size> head{0x80};
        for (unsigned place = 0; place < 4; ++place) {
            head[8 + place] = static_cast<std::uint8_t>(ssrc >> (24 - 8 * place));
        }
        tell_refused(ByteView(head), connection.source());
        flush();
        connection.close();
        return;
    }
    const ReceiverId id = member->id;
    Worker* const home = member->home;
    home->post([id, fd = connection.release(), peer = connection.peer(), bytes = data.copy()](Worker& worker) mutable {
        if (Receiver* const receiver = worker.receiver(id)) receiver->adopt(std::move(fd), peer, ByteView(bytes));
    });
    remove(connection);
}

void SharedPort::remove(Unnamed& connection) {
    const auto found = std::find_if(unnamed_.begin(), unnamed_.end(),
                                    [&connection](const auto& held) { return held.get() == &connection; });
    if (found == unnamed_.end()) return;
    worker_.bury(std::move(*found));
    unnamed_.erase(found);
}

void SharedPort::tick(double now) {
    std::vector<Unnamed*> late;
    for (const auto& connection : unnamed_) {
        if (now - connection->since() > prove_s) late.push_back(connection.get());
    }
    for (Unnamed* connection : late) connection->close();
}

}  // namespace gb28181
