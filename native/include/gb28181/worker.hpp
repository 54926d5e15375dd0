// One thread of the data plane and everything it owns.
//
// Theory of operation. A worker owns its receivers, streams and sinks alone; nothing of them is touched by another
// thread, so the way of a packet takes no lock. What the control plane wants comes as a `Command` through a mailbox
// and runs between two handlers; what the worker has to say goes to the `Outbox` at the end of a turn. A turn is:
// wait, let handlers read, fire what is due, write what consumers have waiting, publish counters, tell. Mail ends it
// early, so a command waits for one handler at most, however much traffic there is.
//
// An exception of a handler is a mistake of ours: it is counted, told, and ends nothing else (invariant I8).
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <queue>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gb28181/datagram_sender.hpp"
#include "gb28181/datagrams.hpp"
#include "gb28181/outbox.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

class Receiver;
class RtpSink;
class SharedPort;
class SocketSink;
class Stream;
class Worker;

/// Monotonic seconds, the clock of Python's `time.monotonic`.
[[nodiscard]] double monotonic_s() noexcept;

inline constexpr double never = std::numeric_limits<double>::infinity();

/// Something that may be in use further up the stack when its time is over (`Worker::bury`).
class Mortal {
public:
    Mortal() = default;
    Mortal(const Mortal&) = delete;
    Mortal& operator=(const Mortal&) = delete;
    virtual ~Mortal() = default;
};

/// Something with a descriptor that a worker waits for.
class EpollHandler : public Mortal {
public:
    /// `events` as epoll tells them. Called by the worker's thread, never after `unwatch`.
    virtual void ready(std::uint32_t events) = 0;
};

/// What all workers of an engine share.
struct Shared {
    Outbox outbox;
    bool has_gro = false;
    bool has_gso = false;
    /// Video behind a loss is held back until the next key frame (MED-24).
    bool freeze_on_loss = false;
    std::atomic<double> dial_pause_s{1.0};
    std::atomic<double> rtcp_report_s{5.0};
    std::atomic<double> rtcp_silence_s{60.0};
    /// Handlers and commands that threw.
    std::atomic<std::uint64_t> failures{0};
};

/// One order to a worker.
class Command {
public:
    Command() = default;
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;
    virtual ~Command() = default;
    virtual void run(Worker& worker) = 0;
};

class Worker final : private EpollHandler {
public:
    Worker(unsigned index, Shared& shared);
    ~Worker() override;

    // ---- the control thread

    void start();
    /// Ends the thread; what it owned is closed. Idempotent.
    void stop();
    /// `order(Worker&)` runs on the worker's thread, in the order of posting.
    template <class Order>
    void post(Order order) {
        send(std::make_unique<CommandOf<Order>>(std::move(order)));
    }
    /// As `post`, and returns when it has run. Rethrows what it threw.
    template <class Order>
    auto call(Order order) {
        using Result = std::invoke_result_t<Order&, Worker&>;
        std::promise<Result> promise;
        auto future = promise.get_future();
        post([promise = std::move(promise), order = std::move(order)](Worker& worker) mutable {
            try {
                if constexpr (std::is_void_v<Result>) {
                    order(worker);
                    promise.set_value();
                } else {
                    promise.set_value(order(worker));
                }
            } catch (...) {
                promise.set_exception(std::current_exception());
            }
        });
        return future.get();
    }

    // ---- the worker's own thread

    [[nodiscard]] Shared& shared() noexcept { return shared_; }
    /// When this turn last looked at the clock.
    [[nodiscard]] double now() const noexcept { return now_; }
    double refresh_now() noexcept { return now_ = monotonic_s(); }

    void watch(int fd, std::uint32_t events, EpollHandler& handler);
    void rewatch(int fd, std::uint32_t events, EpollHandler& handler);
    void unwatch(int fd) noexcept;
    /// Delete at the end of the turn: something further up the stack may be using it.
    void bury(std::unique_ptr<Mortal> dead) { graveyard_.push_back(std::move(dead)); }

    /// Call the `alarm` of the receiver or RTP sink at `at`.
    void set_alarm(std::uint64_t id, double at) { alarms_.push({at, id}); }
    void tell(Notice notice) { notices_.push_back(std::move(notice)); }
    void complain(std::string_view what, std::string_view error);
    /// It has something to publish at the end of the turn.
    void mark(Receiver& receiver);
    void mark(Stream& stream);
    /// It has something to write at the end of the turn.
    void mark(SocketSink& sink);
    void mark(RtpSink& sink);

    // Receivers
    void adopt(std::unique_ptr<Receiver> receiver);
    /// Takes the receiver out, its sockets open but watched by nobody.
    [[nodiscard]] std::unique_ptr<Receiver> detach(ReceiverId id);
    [[nodiscard]] Receiver* receiver(ReceiverId id) noexcept;
    void close_receiver(ReceiverId id);

    /// The port that receivers share, where it is this worker that owns it.
    void open_shared_port(std::shared_ptr<const UdpPair> udp, UniqueFd listener);
    [[nodiscard]] SharedPort* shared_port() noexcept { return shared_port_.get(); }

    // Streams
    void adopt(std::shared_ptr<Stream> stream);
    [[nodiscard]] std::shared_ptr<Stream> stream(StreamKey key) noexcept;
    void close_stream(StreamKey key, std::string_view reason);

    // Sinks
    void adopt(std::unique_ptr<SocketSink> sink);
    [[nodiscard]] SocketSink* sink(SinkId id) noexcept;
    void adopt(std::unique_ptr<RtpSink> sink);
    [[nodiscard]] RtpSink* rtp_sink(SinkId id) noexcept;
    /// The sink closes now; called by itself.
    void forget(SocketSink& sink, std::string_view reason);
    void forget(RtpSink& sink, std::string_view reason);

    /// Scratch space for the handlers; one uses it at a time.
    struct Scratch {
        DatagramBatch datagrams;
        DatagramSender sender;
        std::vector<std::uint8_t> bytes;
        std::vector<Framed> framed;
    };
    [[nodiscard]] Scratch& scratch() noexcept { return scratch_; }

private:
    template <class Order>
    class CommandOf final : public Command {
    public:
        explicit CommandOf(Order order) : order_(std::move(order)) {}
        void run(Worker& worker) override { order_(worker); }

    private:
        Order order_;
    };

    struct Alarm {
        double at;
        std::uint64_t id;
        bool operator>(const Alarm& other) const noexcept { return at > other.at; }
    };

    void send(std::unique_ptr<Command> command);
    void ready(std::uint32_t events) override;  // the mailbox
    void run();
    void turn();
    void handle_mail();
    void fire_due();
    void finish_turn();
    [[nodiscard]] int timeout_ms() noexcept;
    template <class Sink>
    void tell_closed(const Sink& sink, std::string_view reason);
    template <class Action>
    void guarded(std::string_view what, Action&& action) noexcept;
    void close_everything() noexcept;

    const unsigned index_;
    Shared& shared_;
    UniqueFd epoll_;
    UniqueFd wake_;
    std::mutex mailbox_lock_;
    std::vector<std::unique_ptr<Command>> mailbox_;
    std::atomic<bool> has_mail_{false};
    std::atomic<bool> stopping_{false};
    std::thread thread_;

    bool mail_was_last_ = false;
    double now_ = 0;
    double tick_at_ = never;
    std::unordered_map<ReceiverId, std::unique_ptr<Receiver>> receivers_;
    std::unique_ptr<SharedPort> shared_port_;
    std::unordered_map<StreamKey, std::shared_ptr<Stream>> streams_;
    std::unordered_map<SinkId, std::unique_ptr<SocketSink>> sinks_;
    std::unordered_map<SinkId, std::unique_ptr<RtpSink>> rtp_sinks_;
    std::priority_queue<Alarm, std::vector<Alarm>, std::greater<>> alarms_;
    std::vector<Receiver*> marked_receivers_;
    std::vector<std::shared_ptr<Stream>> marked_streams_;
    std::vector<SocketSink*> marked_sinks_;
    std::vector<RtpSink*> marked_rtp_sinks_;
    std::vector<std::unique_ptr<Mortal>> graveyard_;
    std::vector<Notice> notices_;
    Scratch scratch_;
};

}  // namespace gb28181
