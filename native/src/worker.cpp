#include "gb28181/worker.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "gb28181/receiver.hpp"
#include "gb28181/rtp_sink.hpp"
#include "gb28181/shared_port.hpp"
#include "gb28181/socket_sink.hpp"
#include "gb28181/stream.hpp"

namespace gb28181 {
namespace {

constexpr double tick_s = 0.05;
constexpr int max_events = 64;

}  // namespace

double monotonic_s() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

Worker::Worker(unsigned index, Shared& shared)
    : index_(index),
      shared_(shared),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (!epoll_ || !wake_) throw std::system_error(errno, std::generic_category(), "epoll of a media worker");
    watch(wake_.get(), EPOLLIN, *this);
}

Worker::~Worker() { stop(); }

// ---- the control thread

void Worker::start() {
    // Signals belong to the thread that Python runs on: a new thread inherits the mask.
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    const std::string name = "gb-media-" + std::to_string(index_);
    ::pthread_setname_np(thread_.native_handle(), name.c_str());
}

void Worker::stop() {
    if (!thread_.joinable()) return;
    post([this](Worker&) { stopping_.store(true, std::memory_order_relaxed); });
    thread_.join();
}

void Worker::send(std::unique_ptr<Command> command) {
    bool was_empty = false;
    {
        const std::lock_guard guard(mailbox_lock_);
        was_empty = mailbox_.empty();
        mailbox_.push_back(std::move(command));
        has_mail_.store(true, std::memory_order_release);
    }
    if (was_empty) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
    }
}

// ---- the loop

void Worker::run() {
    now_ = monotonic_s();
    while (!stopping_.load(std::memory_order_relaxed)) guarded("a turn of the media plane", [this] { turn(); });
    close_everything();
}

void Worker::turn() {
    std::array<epoll_event, max_events> events;
    const int count = ::epoll_wait(epoll_.get(), events.data(), max_events, timeout_ms());
    refresh_now();
    // Orders come first: a packet that was sent after an order is not read before it. But one handler runs between two
    // lots of mail, so that a flood of orders starves nobody. What is left is told again by the next wait.
    bool owed = std::exchange(mail_was_last_, false);
    for (int index = 0; index < count; ++index) {
        if (!owed && has_mail_.load(std::memory_order_acquire)) break;
        const epoll_event& event = events[static_cast<std::size_t>(index)];
        auto* const handler = static_cast<EpollHandler*>(event.data.ptr);
        guarded("a socket of the media plane", [&] { handler->ready(event.events); });
        if (handler != this) owed = false;
    }
    fire_due();
    finish_turn();
    if (has_mail_.load(std::memory_order_acquire)) {
        handle_mail();
        finish_turn();
        mail_was_last_ = true;
    }
}

int Worker::timeout_ms() noexcept {
    if (has_mail_.load(std::memory_order_relaxed)) return 0;
    if (receivers_.empty() && streams_.empty() && !shared_port_) {
        tick_at_ = never;
    } else if (tick_at_ == never) {
        tick_at_ = now_ + tick_s;
    }
    const double due = alarms_.empty() ? tick_at_ : std::min(tick_at_, alarms_.top().at);
    if (due == never) return -1;
    return std::clamp(static_cast<int>(std::ceil((due - monotonic_s()) * 1000)), 0, 1000);
}

void Worker::ready(std::uint32_t /*events*/) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
}

void Worker::handle_mail() {
    std::vector<std::unique_ptr<Command>> mail;
    {
        const std::lock_guard guard(mailbox_lock_);
        mail.swap(mailbox_);
        has_mail_.store(false, std::memory_order_relaxed);
    }
    for (const auto& command : mail) {
        guarded("an order to the media plane", [&] { command->run(*this); });
    }
}

void Worker::fire_due() {
    while (!alarms_.empty() && alarms_.top().at <= now_) {
        const Alarm alarm = alarms_.top();
        alarms_.pop();
        Receiver* const found = receiver(alarm.id);
        if (RtpSink* const sink = found == nullptr ? rtp_sink(alarm.id) : nullptr) sink->alarm();
        // One that was set again meanwhile, to an earlier time, has rung already.
        if (found == nullptr || found->alarm_at() != alarm.at) continue;
        guarded("a deadline of a receiver", [&] { found->alarm(now_); });
    }
    if (now_ < tick_at_) return;
    tick_at_ = now_ + tick_s;
    for (const auto& entry : receivers_) {
        guarded("a tick of a receiver", [&] { entry.second->tick(now_); });
    }
    if (shared_port_) guarded("a tick of the shared port", [&] { shared_port_->tick(now_); });
    for (const auto& entry : streams_) {
        guarded("a tick of a stream", [&] { entry.second->tick(now_); });
    }
}

void Worker::finish_turn() {
    // By index: a sink that breaks closes, and its stream may mark itself.
    for (std::size_t index = 0; index < marked_sinks_.size(); ++index) {
        SocketSink& sink = *marked_sinks_[index];
        sink.marked = false;
        guarded("writing to a consumer", [&] { sink.flush(); });
    }
    marked_sinks_.clear();
    for (std::size_t index = 0; index < marked_rtp_sinks_.size(); ++index) {
        RtpSink& sink = *marked_rtp_sinks_[index];
        sink.marked = false;
        guarded("sending to a peer", [&] { sink.flush(); });
    }
    marked_rtp_sinks_.clear();
    for (Receiver* const marked : marked_receivers_) {
        marked->marked = false;
        marked->publish();
    }
    marked_receivers_.clear();
    for (const auto& marked : marked_streams_) {
        marked->marked = false;
        marked->publish();
    }
    marked_streams_.clear();
    graveyard_.clear();
    shared_.outbox.put(notices_);
}

template <class Action>
void Worker::guarded(std::string_view what, Action&& action) noexcept {
    try {
        action();
    } catch (const std::exception& error) {
        complain(what, error.what());
    } catch (...) {
        complain(what, "unknown");
    }
}

void Worker::complain(std::string_view what, std::string_view error) {
    shared_.failures.fetch_add(1, std::memory_order_relaxed);
    tell(Complaint{std::string(what) + " failed: " + std::string(error)});
}

void Worker::close_everything() noexcept {
    guarded("closing the media plane", [&] {
        while (!streams_.empty()) close_stream(streams_.begin()->first, "shutting_down");
        while (!receivers_.empty()) close_receiver(receivers_.begin()->first);
        shared_port_.reset();
        finish_turn();
    });
}

// ---- descriptors

void Worker::watch(int fd, std::uint32_t events, EpollHandler& handler) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &handler;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }
}

void Worker::rewatch(int fd, std::uint32_t events, EpollHandler& handler) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &handler;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
        throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }
}

void Worker::unwatch(int fd) noexcept { (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

// ---- marks

void Worker::mark(Receiver& receiver) {
    if (receiver.marked) return;
    receiver.marked = true;
    marked_receivers_.push_back(&receiver);
}

void Worker::mark(Stream& stream) {
    if (stream.marked) return;
    stream.marked = true;
    marked_streams_.push_back(stream.shared_from_this());
}

void Worker::mark(RtpSink& sink) {
    if (sink.marked) return;
    sink.marked = true;
    marked_rtp_sinks_.push_back(&sink);
}

void Worker::mark(SocketSink& sink) {
    if (sink.marked) return;
    sink.marked = true;
    marked_sinks_.push_back(&sink);
}

// ---- what it owns

void Worker::adopt(std::unique_ptr<Receiver> receiver) {
    Receiver& adopted = *receiver;
    receivers_[adopted.id()] = std::move(receiver);
    adopted.enter(*this);
}

std::unique_ptr<Receiver> Worker::detach(ReceiverId id) {
    const auto found = receivers_.find(id);
    if (found == receivers_.end()) return nullptr;
    std::unique_ptr<Receiver> receiver = std::move(found->second);
    receivers_.erase(found);
    if (receiver->marked) {
        std::erase(marked_receivers_, receiver.get());
        receiver->marked = false;
    }
    receiver->leave();
    return receiver;
}

Receiver* Worker::receiver(ReceiverId id) noexcept {
    const auto found = receivers_.find(id);
    return found != receivers_.end() ? found->second.get() : nullptr;
}

void Worker::close_receiver(ReceiverId id) {
    if (const std::unique_ptr<Receiver> receiver = detach(id)) receiver->close();
}

void Worker::open_shared_port(std::shared_ptr<const UdpPair> udp, UniqueFd listener) {
    shared_port_ = std::make_unique<SharedPort>(*this, std::move(udp), std::move(listener));
}

void Worker::adopt(std::shared_ptr<Stream> stream) {
    stream->open(*this);
    const StreamKey key = stream->key();
    streams_[key] = std::move(stream);
}

std::shared_ptr<Stream> Worker::stream(StreamKey key) noexcept {
    const auto found = streams_.find(key);
    return found != streams_.end() ? found->second : nullptr;
}

void Worker::close_stream(StreamKey key, std::string_view reason) {
    const auto found = streams_.find(key);
    if (found == streams_.end()) return;
    const std::shared_ptr<Stream> stream = std::move(found->second);
    streams_.erase(found);
    stream->close(reason);
}

void Worker::adopt(std::unique_ptr<SocketSink> sink) {
    const SinkId id = sink->id();
    sinks_[id] = std::move(sink);
}

SocketSink* Worker::sink(SinkId id) noexcept {
    const auto found = sinks_.find(id);
    return found != sinks_.end() ? found->second.get() : nullptr;
}

void Worker::adopt(std::unique_ptr<RtpSink> sink) {
    const SinkId id = sink->id();
    rtp_sinks_[id] = std::move(sink);
}

RtpSink* Worker::rtp_sink(SinkId id) noexcept {
    const auto found = rtp_sinks_.find(id);
    return found != rtp_sinks_.end() ? found->second.get() : nullptr;
}

template <class Sink>
void Worker::tell_closed(const Sink& sink, std::string_view reason) {
    Event event;
    event.target = Target::sink;
    event.id = sink.id();
    event.kind = EventKind::sink_closed;
    event.stream = sink.stream()->key();
    event.detail = reason;
    event.bytes_out = sink.bytes_out();
    tell(std::move(event));
}

void Worker::forget(SocketSink& sink, std::string_view reason) {
    sink.stream()->forget_sink(sink);
    tell_closed(sink, reason);
    const auto found = sinks_.find(sink.id());
    if (found != sinks_.end()) {
        bury(std::move(found->second));
        sinks_.erase(found);
    }
}

void Worker::forget(RtpSink& sink, std::string_view reason) {
    sink.stream()->forget_sink(sink);
    tell_closed(sink, reason);
    const auto found = rtp_sinks_.find(sink.id());
    if (found != rtp_sinks_.end()) {
        bury(std::move(found->second));
        rtp_sinks_.erase(found);
    }
}

}  // namespace gb28181
