// One consumer's socket: what is queued, skipped, and when it ends. The same cases as
// tests/loop/test_plane_socket_sink.py has for the reference plane.

#include "gb28181/socket_sink.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "check.hpp"
#include "gb28181/stream.hpp"
#include "gb28181/worker.hpp"

namespace gb28181::test {
namespace {

constexpr std::size_t limit = 10'000;

Buffer bytes(const std::string& text) {
    return Buffer::copy_of({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

/// A sink on one end of a socket pair whose buffers are small unless told.
class Pair {
public:
    explicit Pair(Wrapping wrapping = Wrapping::chunked, int small = 4096, double merge_s = 0)
        : worker_(0, shared_) {
        int fds[2];
        CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
        theirs_ = UniqueFd(fds[1]);
        set_nonblocking(theirs_.get());
        CHECK(::setsockopt(theirs_.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
        SocketSinkSpec spec;
        spec.variant.wrapping = wrapping;
        spec.queue_bytes = limit;
        spec.stall_s = 10.0;
        spec.merge_s = merge_s;
        auto sink = std::make_unique<SocketSink>(1, UniqueFd(fds[0]), spec, "<end>");
        CHECK(::setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
        sink_ = sink.get();
        worker_.start();
        run([&] {
            auto stream = std::make_shared<Stream>(1, std::make_shared<StreamBoard>());
            worker_.adopt(stream);
            worker_.adopt(std::move(sink));
            sink_->open(worker_, stream);
        });
    }

    template <class Action>
    auto run(Action action) -> decltype(action()) {
        return worker_.call([&action](Worker&) { return action(); });
    }

    void start(const std::string& head, const std::vector<std::string>& group) {
        run([&] {
            std::vector<Buffer> pieces;
            for (const std::string& piece : group) pieces.push_back(bytes(piece));
            sink_->start(bytes(head), pieces);
        });
    }

    void write(const std::string& data, bool key, const std::string& configuration = {}) {
        run([&] { sink_->write(bytes(data), key, bytes(configuration)); });
    }

    /// Frames until the queue is full.
    void fill() {
        int frames = 0;
        while (!run([&] { return sink_->skipping(); })) {
            CHECK(++frames < 1000);
            write(std::string(1000, '.'), false);
        }
    }

    /// Everything so far.
    const std::string& read() {
        char data[65536];
        for (;;) {
            const auto count = ::recv(theirs_.get(), data, sizeof data, 0);
            if (count == 0) ended = true;
            if (count <= 0) return got_;
            got_.append(data, static_cast<std::size_t>(count));
        }
    }

    void send(const std::string& data) {
        CHECK(::send(theirs_.get(), data.data(), data.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(data.size()));
    }
    void hang_up() { theirs_.reset(); }

    /// Why it was closed, so far.
    std::vector<std::string> reasons() {
        std::vector<Notice> notices;
        shared_.outbox.take(notices);
        for (const Notice& notice : notices) {
            if (const auto* const event = std::get_if<Event>(&notice)) reasons_.push_back(event->detail);
        }
        return reasons_;
    }

    [[nodiscard]] std::size_t queued() {
        return run([&] { return sink_->queued_bytes(); });
    }
    [[nodiscard]] std::uint64_t dropped() {
        return run([&] { return sink_->frames_dropped(); });
    }
    SocketSink& sink() { return *sink_; }

    bool ended = false;

private:
    Shared shared_;
    Worker worker_;
    UniqueFd theirs_;
    SocketSink* sink_ = nullptr;
    std::string got_;
    std::vector<std::string> reasons_;
};

void waits_for_a_key_frame_and_gets_the_configuration_first() {
    Pair pair;
    pair.start("head;", {});
    pair.write("delta;", false);
    pair.write("key;", true, "conf;");
    pair.write("delta;", false);
    CHECK(until([&] { return pair.read() == "head;conf;key;delta;"; }));
    CHECK(pair.dropped() == 1);
}

void kept_group_larger_than_the_queue_is_delivered_whole() {
    Pair pair;
    pair.start("head;", std::vector<std::string>(40, std::string(5000, 'x')));
    pair.write("delta;", false);
    CHECK(until([&] { return pair.read().size() == 5 + 200'000 + 6; }));
    CHECK(pair.dropped() == 0);
}

void f10_full_queue_skips_to_the_next_key_frame() {
    Pair pair;
    pair.start("head;", {"key;"});
    pair.fill();
    CHECK(pair.queued() <= limit);
    CHECK(until([&] {
        (void)pair.read();
        return pair.queued() == 0;
    }));
    pair.write("delta;", false);
    pair.write("KEY;", true, "CONF;");
    pair.write("DELTA;", false);
    CHECK(until([&] { return pair.read().ends_with("CONF;KEY;DELTA;"); }));
    CHECK(pair.read().find("delta;") == std::string::npos);
    CHECK(pair.reasons().empty());
}

void frame_larger_than_the_queue_reaches_a_consumer_that_keeps_up() {
    Pair pair;
    pair.start("", {"key;"});
    CHECK(until([&] { return pair.queued() == 0; }));
    pair.write(std::string(3 * limit, 'y'), false);
    CHECK(until([&] { return pair.read().size() == 4 + 3 * limit; }));
    CHECK(pair.dropped() == 0);
}

void frames_of_one_turn_are_no_sign_of_a_slow_consumer() {
    Pair pair(Wrapping::chunked, 1 << 20);
    pair.start("", {"key;"});
    pair.run([&] {
        for (int number = 0; number < 5; ++number) {
            pair.sink().write(bytes(std::string(limit, 'z')), false, Buffer());
        }
    });
    CHECK(until([&] { return pair.read().size() == 4 + 5 * limit; }));
    CHECK(pair.dropped() == 0);
}

void f10_consumer_without_progress_is_dropped_once() {
    Pair pair;
    pair.start("head;", {"key;"});
    pair.fill();
    const double now = monotonic_s();
    pair.run([&] {
        pair.sink().check(now + 9);
        CHECK(!pair.sink().closed());
        pair.sink().check(now + 11);
        pair.sink().check(now + 12);
        pair.sink().close("again");
        pair.sink().write(bytes("late"), true, Buffer());
        CHECK(pair.sink().queued_bytes() == 0);
    });
    CHECK(until([&] { return pair.reasons() == std::vector<std::string>{"slow"}; }));
}

void merged_writes_wait_for_their_time_and_for_no_more() {
    Pair pair(Wrapping::chunked, 4096, 5.0);
    pair.start("head;", {"key;"});
    CHECK(until([&] { return pair.read() == "head;key;"; }));
    pair.write("a;", false);
    pair.write("b;", false);
    const double now = monotonic_s();
    pair.run([&] { pair.sink().check(now + 1); });
    CHECK(pair.queued() == 4);
    pair.run([&] { pair.sink().check(now + 6); });
    CHECK(until([&] { return pair.read() == "head;key;a;b;"; }));
    pair.write("c;", false);
    CHECK(pair.queued() == 2);
    pair.run([&] { pair.sink().close("stream_closed"); });
    CHECK(until([&] { return pair.read() == "head;key;a;b;c;<end>"; }));
}

void idle_consumer_of_a_silent_stream_is_not_slow() {
    Pair pair;
    pair.start("head;", {"key;"});
    CHECK(until([&] { return pair.queued() == 0; }));
    pair.run([&] {
        pair.sink().check(monotonic_s() + 3600);
        CHECK(!pair.sink().closed());
    });
}

void end_in_good_order_flushes_what_waits() {
    Pair pair;
    pair.run([&] {
        pair.sink().start(bytes("head;"), {bytes("key;")});
        pair.sink().close("stream_closed");
    });
    CHECK(until([&] {
        (void)pair.read();
        return pair.ended;
    }));
    CHECK(pair.read() == "head;key;<end>");
    CHECK(until([&] { return pair.reasons() == std::vector<std::string>{"stream_closed"}; }));
}

void consumer_that_closes_is_gone() {
    Pair pair;
    pair.start("head;", {"key;"});
    pair.hang_up();
    CHECK(until([&] { return pair.reasons() == std::vector<std::string>{"viewer_gone"}; }));
}

void websocket_breach_is_answered_by_a_protocol_error() {
    Pair pair(Wrapping::websocket);
    pair.start("", {});
    pair.send("\x89\x01x");
    CHECK(until([&] { return pair.reasons() == std::vector<std::string>{"viewer_gone"}; }));
    CHECK(until([&] {
        (void)pair.read();
        return pair.ended;
    }));
    CHECK(pair.read() == "\x88\x02\x03\xea");
}

}  // namespace
}  // namespace gb28181::test

int main() {
    using namespace gb28181::test;
    waits_for_a_key_frame_and_gets_the_configuration_first();
    kept_group_larger_than_the_queue_is_delivered_whole();
    f10_full_queue_skips_to_the_next_key_frame();
    frame_larger_than_the_queue_reaches_a_consumer_that_keeps_up();
    frames_of_one_turn_are_no_sign_of_a_slow_consumer();
    f10_consumer_without_progress_is_dropped_once();
    merged_writes_wait_for_their_time_and_for_no_more();
    idle_consumer_of_a_silent_stream_is_not_slow();
    end_in_good_order_flushes_what_waits();
    consumer_that_closes_is_gone();
    websocket_breach_is_answered_by_a_protocol_error();
    std::puts("ok");
}
