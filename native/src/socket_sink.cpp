#include "gb28181/socket_sink.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "gb28181/stream.hpp"

namespace gb28181 {
namespace {

constexpr std::size_t read_size = 4096;
constexpr std::size_t max_vector = 64;  // buffers handed to the kernel in one call; well below IOV_MAX
constexpr std::size_t linger_bytes = std::size_t{64} * 1024;
constexpr int send_buffer = 256 * 1024;

}  // namespace

SocketSink::SocketSink(SinkId id, UniqueFd fd, const SocketSinkSpec& spec, std::string terminator)
    : id_(id),
      fd_(std::move(fd)),
      variant_(spec.variant),
      terminator_(std::move(terminator)),
      limit_(spec.queue_bytes),
      stall_s_(spec.stall_s),
      merge_s_(spec.merge_s) {
    set_nonblocking(fd_.get());
    // The kernel's own queue must not hide for a minute that the consumer has stopped. It may refuse.
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    keep_alive(fd_.get());
    if (spec.variant.wrapping == Wrapping::websocket) frames_.emplace();
}

SocketSink::~SocketSink() = default;

void SocketSink::open(Worker& worker, std::shared_ptr<Stream> stream) {
    worker_ = &worker;
    stream_ = std::move(stream);
    progress_at_ = worker.now();
    worker.watch(fd_.get(), EPOLLIN, *this);
}

void SocketSink::start(const Buffer& head, const std::vector<Buffer>& group) {
    if (closed_) return;
    skipping_ = group.empty();
    enqueue(head);
    for (const Buffer& piece : group) enqueue(piece);
    exempt_ = queued_bytes_;
}

bool SocketSink::over_limit(std::size_t size) const noexcept {
    // A frame larger than the limit still goes to a consumer that keeps up.
    const std::size_t waiting = queued_bytes_ - exempt_;
    return waiting > 0 && waiting + size > limit_;
}

void SocketSink::write(const Buffer& data, bool key, const Buffer& configuration) {
    if (closed_ || broken_) return;
    if (skipping_ && !key) {
        ++frames_dropped_;
        return;
    }
    // Frames of this turn that were not offered yet are no sign of a slow consumer.
    if (!writing_ && over_limit(data.size())) offer();
    if (over_limit(data.size())) {
        skipping_ = true;
        ++frames_dropped_;
        return;
    }
    if (skipping_) {
        skipping_ = false;
        append(configuration);
    }
    append(data);
    if (!holds()) worker_->mark(*this);
}

bool SocketSink::holds() noexcept {
    if (merge_s_ <= 0) return false;
    if (held_until_ == 0) held_until_ = worker_->now() + merge_s_;
    return worker_->now() < held_until_;
}

void SocketSink::flush() {
    if (closed_) return;
    held_until_ = 0;
    if (!writing_) offer();
    if (broken_) {
        close("viewer_gone");
    } else {
        watch_writable(!queue_.empty());
    }
}

void SocketSink::check(double now) {
    if (closed_) return;
    if (held_until_ != 0 && now >= held_until_) worker_->mark(*this);
    if (!queue_.empty() && now - progress_at_ > stall_s_) close("slow");
}

void SocketSink::close(std::string_view reason) {
    if (closed_) return;
    if (held_until_ != 0 && !writing_ && !broken_) offer();
    closed_ = true;
    std::string rest;
    if (queue_.empty()) {
        rest = terminator_;
    } else if (reason != "slow" && queued_bytes_ <= linger_bytes) {
        rest.reserve(queued_bytes_ + terminator_.size());
        for (const Buffer& piece : queue_) {
            rest.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        }
        rest.erase(0, offset_);
        rest += terminator_;
    }
    if (!rest.empty() && !broken_) {
        const auto count = ::send(fd_.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count > 0) bytes_out_ += static_cast<std::uint64_t>(count);
    }
    queue_.clear();
    queued_bytes_ = 0;
    if (worker_ != nullptr) {
        worker_->unwatch(fd_.get());
        fd_.reset();
        worker_->forget(*this, reason);  // last: it gives this away
    }
}

void SocketSink::ready(std::uint32_t events) {
    if (closed_) return;
    if ((events & EPOLLOUT) != 0) {
        offer();
        if (broken_) {
            close("viewer_gone");
            return;
        }
        watch_writable(!queue_.empty());
    }
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
    std::array<std::uint8_t, read_size> data;
    const auto count = ::recv(fd_.get(), data.data(), data.size(), MSG_DONTWAIT);
    if (count > 0) {
        take_input({data.data(), static_cast<std::size_t>(count)});
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        close("viewer_gone");
    }
}

void SocketSink::append(const Buffer& piece) {
    if (piece.empty()) return;
    if (queue_.empty()) progress_at_ = worker_->now();
    queue_.push_back(piece);
    queued_bytes_ += piece.size();
}

void SocketSink::enqueue(const Buffer& piece) {
    append(piece);
    worker_->mark(*this);
}

void SocketSink::enqueue_text(std::string_view text) {
    enqueue(Buffer::copy_of({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}));
}

void SocketSink::offer() {
    while (!queue_.empty()) {
        std::array<iovec, max_vector> vectors;
        const std::size_t count = std::min(queue_.size(), max_vector);
        std::size_t total = 0;
        for (std::size_t index = 0; index < count; ++index) {
            const std::size_t skip = index == 0 ? offset_ : 0;
            const Buffer& piece = queue_[index];
            // sendmsg only reads; iovec has no const.
            vectors[index] = {.iov_base = const_cast<std::uint8_t*>(piece.data()) + skip,
                              .iov_len = piece.size() - skip};
            total += piece.size() - skip;
        }
        msghdr message{};
        message.msg_iov = vectors.data();
        message.msg_iovlen = count;
        const auto taken = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (taken < 0) {
            if (errno == EINTR) continue;
            broken_ = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
        sent(static_cast<std::size_t>(taken));
        if (static_cast<std::size_t>(taken) < total) return;  // it is full now
    }
}

void SocketSink::sent(std::size_t count) {
    bytes_out_ += count;
    queued_bytes_ -= count;
    exempt_ -= std::min(exempt_, count);
    progress_at_ = worker_->now();
    std::size_t left = count + offset_;
    while (!queue_.empty() && left >= queue_.front().size()) {
        left -= queue_.front().size();
        queue_.pop_front();
    }
    offset_ = left;
    worker_->mark(*stream_);
}

void SocketSink::take_input(ByteView data) {
    if (!frames_ || closed_) return;
    std::vector<websocket::Control> controls;
    const bool well = frames_->feed(data.span(), controls);
    for (const websocket::Control& control : controls) {
        if (control.opcode == static_cast<std::uint8_t>(websocket::Opcode::close)) {
            const std::string code = control.payload.substr(0, 2);
            terminator_.clear();
            websocket::append_head(terminator_, websocket::Opcode::close, code.size());
            terminator_ += code;
            close("viewer_gone");
            return;
        }
        if (control.opcode == static_cast<std::uint8_t>(websocket::Opcode::ping) && queued_bytes_ < limit_) {
            std::string pong;
            websocket::append_head(pong, websocket::Opcode::pong, control.payload.size());
            enqueue_text(pong + control.payload);
        }
    }
    if (!well) {
        terminator_ = websocket::close_frame(websocket::protocol_error);
        close("viewer_gone");
    }
}

void SocketSink::watch_writable(bool wanted) {
    if (wanted == writing_) return;
    writing_ = wanted;
    worker_->rewatch(fd_.get(), wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, *this);
}

}  // namespace gb28181
