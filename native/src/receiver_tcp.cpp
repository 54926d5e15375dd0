#include "gb28181/receiver_tcp.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gb28181/receiver_udp.hpp"

namespace gb28181 {
namespace {

constexpr double prove_s = 10.0;
constexpr double listen_pause_s = 0.5;
constexpr std::size_t max_pending = 4;
constexpr std::size_t read_size = std::size_t{256} * 1024;
constexpr std::string_view second_connection = "rtp.second_connection";

}  // namespace

class TcpReceiver::Listener final : public EpollHandler {
public:
    Listener(TcpReceiver& owner, UniqueFd fd) : owner_(owner), fd_(std::move(fd)) {}

    void ready(std::uint32_t /*events*/) override {
        sockaddr_storage peer{};
        socklen_t size = sizeof peer;
        UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) {
            // Without descriptors the connection stays where it is and would be told again at once (fault row F-13).
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) owner_.pause_listening();
            return;
        }
        owner_.accepted(std::move(fd), SocketAddress(reinterpret_cast<const sockaddr*>(&peer), size));
    }

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

private:
    TcpReceiver& owner_;
    UniqueFd fd_;
};

/// One media connection, accepted or dialled.
class TcpReceiver::Connection final : public EpollHandler {
public:
    Connection(TcpReceiver& owner, UniqueFd fd, const Source& from, double now)
        : owner_(owner), fd_(std::move(fd)), framer_(owner.core_.spec().ssrc), source_(from), since_(now) {}

    void ready(std::uint32_t events) override {
        if (!fd_) return;
        Receiver& core = owner_.core_;
        Worker& worker = core.worker();
        if ((events & EPOLLOUT) != 0) {
            write();
            if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
        }
        Worker::Scratch& scratch = worker.scratch();
        scratch.bytes.resize(read_size);
        const auto count = ::recv(fd_.get(), scratch.bytes.data(), scratch.bytes.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        worker.refresh_now();
        if (count <= 0) {
            close();
            return;
        }
        take({scratch.bytes.data(), static_cast<std::size_t>(count)});
    }

    /// What came.
    void take(ByteView data) {
        Receiver& core = owner_.core_;
        Worker::Scratch& scratch = core.worker().scratch();
        scratch.framed.clear();
        const bool well = framer_.feed(data, scratch.framed);
        if (!well) {
            core.quirks(framer_.quirks());
            close();
            return;
        }
        for (const Framed& framed : scratch.framed) {
            if (framed.is_lost()) {
                core.lost_framing(source_);
                continue;
            }
            const Verdict verdict = core.packet(framed.packet, source_);
            if (verdict == Verdict::latched || verdict == Verdict::switched || verdict == Verdict::taken_over) {
                owner_.proved(*this);
            }
        }
        framer_.settle();
        core.quirks(framer_.quirks());
        core.settle();
    }

    void close() {
        if (!fd_) return;
        Receiver& core = owner_.core_;
        core.worker().unwatch(fd_.get());
        fd_.reset();
        const bool was_latched = core.gate().source() == source_;
        core.disconnected(source_);
        if (was_latched) core.tell(EventKind::disconnected, source_.text());
        core.settle();
        owner_.remove(*this);  // last: it gives this away
    }

    /// Sends talk; what the kernel does not take waits, and what would be more than a second of it is left out.
    void send(ByteView framed) {
        if (waiting_.size() + framed.size() > max_waiting) return;
        waiting_.insert(waiting_.end(), framed.begin(), framed.end());
        if (!writing_) write();
    }
    /// As `EpollHandler` is to be watched.
    [[nodiscard]] std::uint32_t interest() const noexcept { return writing_ ? EPOLLIN | EPOLLOUT : EPOLLIN; }

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] const Source& source() const noexcept { return source_; }
    [[nodiscard]] double since() const noexcept { return since_; }

private:
    static constexpr std::size_t max_waiting = 16 * 1024;

    void write() {
        const auto count = ::send(fd_.get(), waiting_.data(), waiting_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count > 0) waiting_.erase(waiting_.begin(), waiting_.begin() + count);
        // A connection that broke is told by reading.
        const bool wanted = !waiting_.empty() && (count >= 0 || errno == EAGAIN || errno == EINTR);
        if (wanted == writing_) return;
        writing_ = wanted;
        owner_.core_.worker().rewatch(fd_.get(), interest(), *this);
    }

    TcpReceiver& owner_;
    UniqueFd fd_;
    Framer framer_;
    Source source_;
    double since_;
    Bytes waiting_;
    bool writing_ = false;
};

TcpReceiver::TcpReceiver(Receiver& core, UniqueFd listener) : core_(core) {
    if (listener) listener_ = std::make_unique<Listener>(*this, std::move(listener));
}

TcpReceiver::~TcpReceiver() = default;

void TcpReceiver::enter(Worker& worker) {
    listen_again_at_ = never;
    if (listener_) worker.watch(listener_->fd(), EPOLLIN, *listener_);
    for (const auto& connection : connections_) worker.watch(connection->fd(), connection->interest(), *connection);
    if (dialler_) dialler_->enter(worker);
}

void TcpReceiver::listen(UniqueFd listener) {
    listener_ = std::make_unique<Listener>(*this, std::move(listener));
    core_.worker().watch(listener_->fd(), EPOLLIN, *listener_);
}

void TcpReceiver::leave(Worker& worker) {
    if (listener_) worker.unwatch(listener_->fd());
    for (const auto& connection : connections_) worker.unwatch(connection->fd());
    if (dialler_) dialler_->leave();
}

void TcpReceiver::dial(const std::string& host, std::uint16_t port) {
    if (dialler_) return;
    const auto peer = SocketAddress::parse(host, port);
    if (!peer) {  // names are not looked up on this path
        core_.tell(EventKind::connect_failed, address_text(host, port), {}, "not_an_address");
        return;
    }
    if (core_.gate().source()) return;  // the device has connected to us meanwhile
    dialler_ = std::make_unique<Dialler>(*peer, nullptr, [this](UniqueFd fd, const std::string& reason) {
        dialled(std::move(fd), reason);
    });
    dialler_->start(core_.worker());
}

void TcpReceiver::dialled(UniqueFd fd, const std::string& reason) {
    const SocketAddress peer = dialler_->peer();
    core_.worker().bury(std::move(dialler_));
    if (fd) {
        accepted(std::move(fd), peer);
    } else {
        core_.tell(EventKind::connect_failed, peer.text(), {}, reason);
    }
}

void TcpReceiver::accepted(UniqueFd fd, const SocketAddress& peer) {
    Worker& worker = core_.worker();
    const double now = worker.refresh_now();
    const Source source = source_of(peer.get(), next_number_++);
    if (!wants(source, now)) {
        core_.quirk(second_connection, source.text());
        return;
    }
    keep_alive(fd.get());
    connections_.push_back(std::make_unique<Connection>(*this, std::move(fd), source, now));
    worker.watch(connections_.back()->fd(), EPOLLIN, *connections_.back());
    core_.tell(EventKind::connected, source.text());
    core_.settle();
}

void TcpReceiver::adopt(UniqueFd fd, const SocketAddress& peer, ByteView data) {
    const std::uint64_t number = next_number_;
    accepted(std::move(fd), peer);
    if (!connections_.empty() && connections_.back()->source().connection == number) connections_.back()->take(data);
}

bool TcpReceiver::wants(const Source& source, double now) {
    const SourceRule& gate = core_.gate();
    const auto last = gate.last_accepted();
    const bool alive = gate.source() && last && now - *last < SourceRule::silent_same_host_s;
    if (alive && !(gate.by_grace() && gate.expects(source))) return false;
    return connections_.size() <= max_pending || make_room(source);
}

bool TcpReceiver::make_room(const Source& source) {
    // Strangers who came first must not lock an expected address out (threat S-06).
    const SourceRule& gate = core_.gate();
    if (!gate.expects(source)) return false;
    for (const auto& other : connections_) {
        if (gate.source() != other->source() && !gate.expects(other->source())) {
            other->close();
            return true;
        }
    }
    return false;
}

TcpReceiver::Connection* TcpReceiver::talk_connection() const noexcept {
    const SourceRule& gate = core_.gate();
    Connection* believed = nullptr;
    for (const auto& connection : connections_) {
        if (gate.source() == connection->source()) return connection.get();
        const bool is_first = believed == nullptr || connection->since() < believed->since();
        if (is_first && gate.expects_some() && gate.expects(connection->source())) believed = connection.get();
    }
    return gate.source() ? nullptr : believed;
}

bool TcpReceiver::talk(ByteView framed) {
    Connection* const connection = talk_connection();
    if (connection == nullptr) return false;
    connection->send(framed);
    return true;
}

std::string TcpReceiver::talk_peer() const {
    const Connection* const connection = talk_connection();
    return connection != nullptr ? connection->source().text() : std::string();
}

void TcpReceiver::proved(const Connection& connection) {
    std::vector<Connection*> others;
    for (const auto& other : connections_) {
        if (other.get() != &connection) others.push_back(other.get());
    }
    for (Connection* other : others) other->close();
}

void TcpReceiver::remove(Connection& connection) {
    const auto found = std::find_if(connections_.begin(), connections_.end(),
                                    [&connection](const auto& held) { return held.get() == &connection; });
    if (found == connections_.end()) return;
    core_.worker().bury(std::move(*found));
    connections_.erase(found);
}

void TcpReceiver::report(double now) {
    // A device that sends no RTCP may take a report for media, and the connection itself tells it that we live; so it goes
    // only to those that speak it (RFC 4571 2, GB/T 28181-2022 5.2).
    const auto& latched = core_.gate().source();
    if (!latched || latched->connection == 0 || core_.rtcp_peer() != latched) return;
    for (const auto& connection : connections_) {
        if (connection->source() != *latched) continue;
        const std::vector<std::uint8_t> data = core_.due_report(now);
        if (data.empty()) return;
        Bytes framed{static_cast<std::uint8_t>(data.size() >> 8U), static_cast<std::uint8_t>(data.size() & 0xFFU)};
        framed.insert(framed.end(), data.begin(), data.end());
        connection->send(ByteView(framed));
    }
}

void TcpReceiver::pause_listening() {
    Worker& worker = core_.worker();
    worker.unwatch(listener_->fd());
    listen_again_at_ = worker.now() + listen_pause_s;
}

void TcpReceiver::tick(double now) {
    if (now >= listen_again_at_) {
        listen_again_at_ = never;
        core_.worker().watch(listener_->fd(), EPOLLIN, *listener_);
    }
    std::vector<Connection*> late;
    for (const auto& connection : connections_) {
        if (core_.has_talkers() && connection.get() == talk_connection()) continue;
        if (core_.gate().source() != connection->source() && now - connection->since() > prove_s) {
            late.push_back(connection.get());
        }
    }
    for (Connection* connection : late) connection->close();
    report(now);
    if (!dialler_) return;
    if (core_.gate().source()) {  // the device has connected to us meanwhile
        dialler_->leave();
        core_.worker().bury(std::move(dialler_));
        return;
    }
    dialler_->tick(now);
}

}  // namespace gb28181
