// Opening and closing under traffic, over and over on the same few ports: descriptors, ports and memory come back exactly.
//
//   test_cycles [CYCLES]     500 unless told; the documented run is 10000

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "check.hpp"
#include "gb28181/engine.hpp"

namespace gb28181::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool keeps_freed_memory = true;
#else
constexpr bool keeps_freed_memory = false;
#endif

constexpr std::uint16_t first_port = 21'000;
constexpr std::size_t places = 16;
constexpr std::uint16_t ports_a_place = 6;  // receiver, sink, peer: two each
constexpr std::uint32_t first_ssrc = 500'000;

std::size_t open_descriptors() {
    std::size_t count = 0;
    DIR* const directory = ::opendir("/proc/self/fd");
    CHECK(directory != nullptr);
    while (::readdir(directory) != nullptr) ++count;
    ::closedir(directory);
    return count;
}

std::size_t resident_bytes() {
    std::FILE* const file = std::fopen("/proc/self/statm", "r");
    CHECK(file != nullptr);
    unsigned long size = 0;
    unsigned long resident = 0;
    CHECK(std::fscanf(file, "%lu %lu", &size, &resident) == 2);
    std::fclose(file);
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

std::uint16_t port_of(std::size_t place, std::uint16_t offset) {
    return static_cast<std::uint16_t>(first_port + place * ports_a_place + offset);
}

/// A device for each place, which sends whether or not somebody listens.
class Traffic {
public:
    Traffic() : thread_([this] { run(); }) {}
    ~Traffic() {
        stopping_ = true;
        thread_.join();
    }
    std::atomic<std::uint64_t> sent{0};

private:
    void run() {
        const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        std::vector<RtpSource> sources;
        for (std::size_t place = 0; place < places; ++place) {
            sources.emplace_back(first_ssrc + static_cast<std::uint32_t>(place));
        }
        while (!stopping_) {
            for (std::size_t place = 0; place < places; ++place) {
                const sockaddr_in to = loopback(port_of(place, 0));
                for (const auto& packet : sources[place].next()) {
                    // Refused where nobody listens at the moment.
                    (void)::sendto(socket.get(), packet.data(), packet.size(), MSG_NOSIGNAL,
                                   reinterpret_cast<const sockaddr*>(&to), sizeof to);
                    sent.fetch_add(1, std::memory_order_relaxed);
                }
            }
            std::this_thread::sleep_for(std::chrono::microseconds(500));
        }
    }

    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

class Cycles {
public:
    Cycles() : engine_(2) {
        for (std::size_t place = 0; place < places; ++place) open_.push_back({});
    }

    void run(unsigned cycles) {
        const Traffic traffic;
        for (unsigned count = 0; count < cycles; ++count) {
            const std::size_t place = count % places;
            close(place);
            open(place, count);
            take();
        }
        CHECK(until([&] {  // the traffic is real
            take();
            return traffic.sent > cycles && first_packets_ > 0;
        }));
        for (std::size_t place = 0; place < places; ++place) close(place);
        CHECK(until([this] {
            take();
            return closed_sinks_ == sinks_;
        }));
        CHECK(engine_.failures() == 0);
    }
    /// A turn of every worker has passed, so what was closed is gone.
    void settle() {
        for (int count = 0; count < 4; ++count) {
            ReceiverSpec spec;
            spec.host = "127.0.0.1";
            const auto opened = engine_.open_receiver(spec);
            CHECK(opened.error == 0);
            engine_.close_receiver(opened.value);
        }
    }

private:
    struct Open {
        StreamKey stream = 0;
        ReceiverId receiver = 0;
        SinkId sink = 0;
    };

    void open(std::size_t place, unsigned count) {
        Open& made = open_[place];
        ReceiverSpec spec;
        spec.host = "127.0.0.1";
        spec.port = port_of(place, 0);
        spec.ssrc = first_ssrc + static_cast<std::uint32_t>(place);
        spec.payloads = {{96, "PS"}};
        spec.expected_hosts = {"127.0.0.1"};
        const auto receiver = engine_.open_receiver(spec);
        CHECK(receiver.error == 0);  // the port is free as soon as `close_receiver` has returned
        made.receiver = receiver.value;
        made.stream = engine_.create_stream();
        CHECK(engine_.attach(made.receiver, made.stream));
        RtpSinkSpec sink;
        sink.host = "127.0.0.1";
        sink.ssrc = 7;
        sink.transport = count % 3 == 0 ? Transport::tcp_passive : Transport::udp;
        sink.packing = count % 5 == 0 ? Packing::es : Packing::ps;
        sink.remote = {{"127.0.0.1", port_of(place, 4)}};
        sink.port = port_of(place, 2);
        // A sink's ports come back a turn after it was told to close.
        Outcome<SinkId> added;
        CHECK(until([&] {
            added = engine_.add_rtp_sink(made.stream, sink);
            return added.error == 0;
        }));
        made.sink = added.value;
        ++sinks_;
        RtpSinkUpdate update;
        update.sending = true;
        engine_.update_rtp_sink(made.sink, update);
    }

    void close(std::size_t place) {
        Open& made = open_[place];
        if (made.receiver == 0) return;
        engine_.close_stream(made.stream, "stream_closed");
        engine_.close_receiver(made.receiver);
        made = {};
    }

    void take() {
        std::vector<Notice> notices;
        engine_.take_notices(notices);
        for (const Notice& notice : notices) {
            if (const auto* const event = std::get_if<Event>(&notice)) {
                closed_sinks_ += event->kind == EventKind::sink_closed ? 1 : 0;
                first_packets_ += event->kind == EventKind::first_packet ? 1 : 0;
            } else if (const auto* const complaint = std::get_if<Complaint>(&notice)) {
                std::fprintf(stderr, "%s\n", complaint->text.c_str());
            }
        }
    }

    Engine engine_;
    std::vector<Open> open_;
    std::uint64_t sinks_ = 0;
    std::uint64_t closed_sinks_ = 0;
    std::uint64_t first_packets_ = 0;
};

}  // namespace
}  // namespace gb28181::test

int main(int count, char** arguments) {
    using namespace gb28181::test;
    const unsigned cycles = count > 1 ? static_cast<unsigned>(std::stoul(arguments[1])) : 500;
    const std::size_t descriptors_before = open_descriptors();
    {
        Cycles run;
        run.settle();
        const std::size_t idle = open_descriptors();
        run.run(cycles);  // until caches are warm
        run.settle();
        CHECK(open_descriptors() == idle);
        const std::size_t resident = resident_bytes();
        run.run(cycles);
        run.settle();
        CHECK(open_descriptors() == idle);
        const auto grown = static_cast<long>(resident_bytes()) - static_cast<long>(resident);
        std::printf("%u cycles: %zu descriptors, memory %+ld kB\n", cycles, idle, grown / 1024);
        // Caches of free blocks are bounded by 4 MiB a thread and may fill late. AddressSanitizer keeps what was freed.
        CHECK(keeps_freed_memory || grown < 8L * 1024 * 1024);
    }
    CHECK(open_descriptors() == descriptors_before);
    std::puts("ok");
}
