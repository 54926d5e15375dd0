#include "gb28181/dialler.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace gb28181 {
namespace {

constexpr int dial_tries = 3;
constexpr double dial_timeout_s = 3.0;

}  // namespace

Dialler::Dialler(const SocketAddress& peer, const SocketAddress* local, Done done)
    : peer_(peer), local_(local != nullptr ? *local : SocketAddress()), done_(std::move(done)) {}

void Dialler::start(Worker& worker) {
    worker_ = &worker;
    try_next(worker.refresh_now());
}

void Dialler::enter(Worker& worker) {
    worker_ = &worker;
    if (fd_) worker.watch(fd_.get(), EPOLLOUT, *this);
}

void Dialler::leave() {
    if (fd_) worker_->unwatch(fd_.get());
}

void Dialler::tick(double now) {
    if (now < due_) return;
    if (fd_) {
        tried(ETIMEDOUT);
    } else {
        try_next(now);
    }
}

void Dialler::ready(std::uint32_t /*events*/) {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    tried(error);
}

void Dialler::try_next(double now) {
    ++tries_;
    Outcome<UniqueFd> outcome = connect_tcp(peer_, local_.size() != 0 ? &local_ : nullptr);
    if (outcome.error != 0 && outcome.error != EINPROGRESS) {
        tried(outcome.error);
        return;
    }
    fd_ = std::move(outcome.value);
    due_ = now + dial_timeout_s;
    worker_->watch(fd_.get(), EPOLLOUT, *this);
}

void Dialler::tried(int error) {
    if (fd_) worker_->unwatch(fd_.get());
    if (error == 0) {
        done_(std::move(fd_), {});
        return;
    }
    fd_.reset();
    if (tries_ < dial_tries) {
        due_ = worker_->refresh_now() + worker_->shared().dial_pause_s.load();
        return;
    }
    done_({}, error == ETIMEDOUT ? "timeout" : std::generic_category().message(error));
}

}  // namespace gb28181
