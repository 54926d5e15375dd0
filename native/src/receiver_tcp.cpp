#include "gb28181/receiver_tcp.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "gb28181/receiver_udp.hpp"

namespace gb28181 {
namespace {

constexpr int dial_tries = 3;
constexpr double dial_timeout_s = 3.0;
constexpr double prove_s = 10.0;
constexpr double listen_pause_s = 0.5;
constexpr std::size_t max_pending = 4;
constexpr std::size_t read_size = std::size_t{256} * 1024;
constexpr std::string_view second_connection = "rtp.second_connection";

std::string error_text(int error) { return std::generic_category().message(error); }

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

    void ready(std::uint32_t /*events*/) override {
        if (!fd_) return;
        Receiver& core = owner_.core_;
        Worker& worker = core.worker();
        Worker::Scratch& scratch = worker.scratch();
        scratch.bytes.resize(read_size);
        const auto count = ::recv(fd_.get(), scratch.bytes.data(), scratch.bytes.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        worker.refresh_now();
        if (count <= 0) {
            close();
            return;
        }
        scratch.framed.clear();
        const bool well = framer_.feed({scratch.bytes.data(), static_cast<std::size_t>(count)}, scratch.framed);
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

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] const Source& source() const noexcept { return source_; }
    [[nodiscard]] double since() const noexcept { return since_; }

private:
    TcpReceiver& owner_;
    UniqueFd fd_;
    Framer framer_;
    Source source_;
    double since_;
};

/// The tries of one `dial`.
class TcpReceiver::Dialler final : public EpollHandler {
public:
    Dialler(TcpReceiver& owner, const SocketAddress& peer) : owner_(owner), peer_(peer) {}

    void ready(std::uint32_t /*events*/) override {
        int error = 0;
        socklen_t size = sizeof error;
        if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
        owner_.dialled(error);
    }

    [[nodiscard]] const SocketAddress& peer() const noexcept { return peer_; }

    UniqueFd fd;      // empty: pauses
    int tries = 0;
    double due = 0;   // the next try, or the end of this one
    std::string reason;

private:
    TcpReceiver& owner_;
    SocketAddress peer_;
};

TcpReceiver::TcpReceiver(Receiver& core, UniqueFd listener) : core_(core) {
    if (listener) listener_ = std::make_unique<Listener>(*this, std::move(listener));
}

TcpReceiver::~TcpReceiver() = default;

void TcpReceiver::enter(Worker& worker) {
    listen_again_at_ = never;
    if (listener_) worker.watch(listener_->fd(), EPOLLIN, *listener_);
    for (const auto& connection : connections_) worker.watch(connection->fd(), EPOLLIN, *connection);
    if (dialler_ && dialler_->fd) worker.watch(dialler_->fd.get(), EPOLLOUT, *dialler_);
}

void TcpReceiver::leave(Worker& worker) {
    if (listener_) worker.unwatch(listener_->fd());
    for (const auto& connection : connections_) worker.unwatch(connection->fd());
    if (dialler_ && dialler_->fd) worker.unwatch(dialler_->fd.get());
}

void TcpReceiver::dial(const std::string& host, std::uint16_t port) {
    if (dialler_) return;
    const auto peer = SocketAddress::parse(host, port);
    if (!peer) {  // names are not looked up on this path
        core_.tell(EventKind::connect_failed, address_text(host, port), {}, "not_an_address");
        return;
    }
    dialler_ = std::make_unique<Dialler>(*this, *peer);
    try_next(core_.worker().refresh_now());
}

void TcpReceiver::try_next(double now) {
    if (core_.gate().source()) {  // the device has connected to us meanwhile
        core_.worker().bury(std::move(dialler_));
        return;
    }
    ++dialler_->tries;
    Outcome<UniqueFd> outcome = connect_tcp(dialler_->peer());
    if (outcome.error != 0 && outcome.error != EINPROGRESS) {
        dialled(outcome.error);
        return;
    }
    dialler_->fd = std::move(outcome.value);
    dialler_->due = now + dial_timeout_s;
    core_.worker().watch(dialler_->fd.get(), EPOLLOUT, *dialler_);
}

void TcpReceiver::dialled(int error) {
    Worker& worker = core_.worker();
    if (dialler_->fd) worker.unwatch(dialler_->fd.get());
    if (error == 0) {
        UniqueFd fd = std::move(dialler_->fd);
        const SocketAddress peer = dialler_->peer();
        worker.bury(std::move(dialler_));
        accepted(std::move(fd), peer);
        return;
    }
    dialler_->fd.reset();
    dialler_->reason = error == ETIMEDOUT ? "timeout" : error_text(error);
    if (dialler_->tries < dial_tries) {
        dialler_->due = worker.refresh_now() + worker.shared().dial_pause_s.load();
        return;
    }
    core_.tell(EventKind::connect_failed, dialler_->peer().text(), {}, dialler_->reason);
    worker.bury(std::move(dialler_));
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
        if (core_.gate().source() != connection->source() && now - connection->since() > prove_s) {
            late.push_back(connection.get());
        }
    }
    for (Connection* connection : late) connection->close();
    if (!dialler_ || now < dialler_->due) return;
    if (dialler_->fd) {
        dialled(ETIMEDOUT);
    } else {
        try_next(now);
    }
}

}  // namespace gb28181
