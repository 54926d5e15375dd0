// The engine under churn: streams are opened, fed over UDP and TCP, watched, moved, and closed, all at once; afterwards
// everything is given back. Made for ThreadSanitizer and AddressSanitizer.
//
//   test_churn [STREAMS]     so many streams in all (200 unless told; the documented run is 1000)

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "check.hpp"
#include "gb28181/engine.hpp"

namespace gb28181::test {
namespace {

constexpr std::uint32_t first_ssrc = 100'000;
constexpr std::size_t alive_at_once = 48;
constexpr std::uint16_t first_port = 24'000;
constexpr std::uint16_t last_port = 29'998;
constexpr std::uint16_t shared_port = 23'998;

std::size_t open_descriptors() {
    std::size_t count = 0;
    DIR* const directory = ::opendir("/proc/self/fd");
    CHECK(directory != nullptr);
    while (::readdir(directory) != nullptr) ++count;
    ::closedir(directory);
    return count;
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/// All devices in one thread: each sends the next picture to its port, over UDP or TCP, in turn.
class Devices {
public:
    Devices() : thread_([this] { run(); }) {}
    ~Devices() {
        stopping_ = true;
        thread_.join();
    }

    void add(ReceiverId id, std::uint16_t port, std::uint32_t ssrc, bool tcp) {
        Device device{.source = RtpSource(ssrc), .port = port, .socket = {}, .tcp = tcp};
        const std::lock_guard guard(lock_);
        devices_.emplace(id, std::move(device));
    }
    void remove(ReceiverId id) {
        const std::lock_guard guard(lock_);
        devices_.erase(id);
    }

    std::atomic<std::uint64_t> sent{0};

private:
    struct Device {
        RtpSource source;
        std::uint16_t port;
        UniqueFd socket;
        bool tcp;
    };

    void run() {
        while (!stopping_) {
            {
                const std::lock_guard guard(lock_);
                for (auto& entry : devices_) send(entry.second);
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

    void send(Device& device) {
        const sockaddr_in to = loopback(device.port);
        if (!device.socket) {
            device.socket = UniqueFd(::socket(AF_INET, (device.tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
            if (device.tcp &&
                ::connect(device.socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
                device.socket.reset();
                return;
            }
        }
        for (const auto& packet : device.source.next()) {
            ssize_t count = 0;
            if (device.tcp) {
                std::vector<std::uint8_t> framed{static_cast<std::uint8_t>(packet.size() >> 8U),
                                                 static_cast<std::uint8_t>(packet.size() & 0xFFU)};
                framed.insert(framed.end(), packet.begin(), packet.end());
                count = ::send(device.socket.get(), framed.data(), framed.size(), MSG_NOSIGNAL);
            } else {
                count = ::sendto(device.socket.get(), packet.data(), packet.size(), MSG_NOSIGNAL,
                                 reinterpret_cast<const sockaddr*>(&to), sizeof to);
            }
            if (count > 0) sent.fetch_add(1, std::memory_order_relaxed);
        }
    }

    std::mutex lock_;
    std::map<ReceiverId, Device> devices_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

/// All viewers in one thread: they read, or do not.
class Viewers {
public:
    Viewers() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), thread_([this] { run(); }) {}
    ~Viewers() {
        stopping_ = true;
        thread_.join();
        for (const int fd : fds_) ::close(fd);
    }

    void add(int fd) {
        const std::lock_guard guard(lock_);
        fds_.insert(fd);
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0);
    }
    [[nodiscard]] std::size_t count() {
        const std::lock_guard guard(lock_);
        return fds_.size();
    }

    std::atomic<std::uint64_t> received{0};

private:
    void run() {
        std::vector<char> data(65536);
        while (!stopping_) {
            epoll_event event{};
            if (::epoll_wait(epoll_.get(), &event, 1, 10) != 1) continue;
            const auto count = ::recv(event.data.fd, data.data(), data.size(), MSG_DONTWAIT);
            if (count > 0) {
                received.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
            } else {
                const std::lock_guard guard(lock_);
                fds_.erase(event.data.fd);
                ::close(event.data.fd);
            }
        }
    }

    UniqueFd epoll_;
    std::mutex lock_;
    std::set<int> fds_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

class Churn {
public:
    explicit Churn(unsigned streams) : streams_(streams), engine_(3), random_(1) {}

    void run() {
        CHECK(engine_.open_shared_port("127.0.0.1", shared_port) == 0);
        for (opened_ = 0; opened_ < streams_;) {
            if (alive_.size() < alive_at_once) open();
            if (chance(2)) disturb();
            if (alive_.size() >= alive_at_once || chance(4)) close(pick());
            take();
        }
        while (!alive_.empty()) {
            close(pick());
            take();
        }
        CHECK(until([this] {
            take();
            return closed_sinks_ == socket_sinks_;
        }));
        CHECK(engine_.failures() == 0);
        CHECK(frames_ > streams_);
        CHECK(first_packets_ > streams_ / 4);
        engine_.stop();
    }

    void report() {
        std::printf("%u streams, %llu packets sent, %llu frames, %llu socket sinks, %llu bytes read, %u moved\n",
                    streams_, static_cast<unsigned long long>(devices_.sent.load()),
                    static_cast<unsigned long long>(frames_), static_cast<unsigned long long>(socket_sinks_),
                    static_cast<unsigned long long>(viewers_.received.load()), moved_);
    }

private:
    struct Alive {
        StreamKey stream;
        ReceiverId receiver;
        std::vector<SinkId> sinks;
    };

    bool chance(unsigned one_in) { return random_() % one_in == 0; }
    std::size_t pick() { return random_() % alive_.size(); }

    ReceiverId open_receiver() {
        for (;;) {
            ReceiverSpec spec;
            spec.transport = chance(3) ? Transport::tcp_passive : Transport::udp;
            spec.host = "127.0.0.1";
            spec.shared = chance(4);
            spec.port = spec.shared ? shared_port
                                    : static_cast<std::uint16_t>(first_port +
                                                                 2 * (random_() % ((last_port - first_port) / 2)));
            spec.ssrc = first_ssrc + ++ssrcs_;
            spec.payloads = {{96, "PS"}};
            spec.expected_hosts = {"127.0.0.1"};
            spec.silence_s = 0.1;
            const bool tcp = chance(3);
            const std::uint16_t port = spec.port;
            const std::uint32_t ssrc = spec.ssrc;
            const Outcome<ReceiverId> opened = engine_.open_receiver(std::move(spec));
            if (opened.error != 0) continue;  // another of ours has the port
            devices_.add(opened.value, port, ssrc, tcp);
            return opened.value;
        }
    }

    void open() {
        ++opened_;
        Alive made;
        if (chance(2)) {
            made.stream = engine_.create_stream();
            made.receiver = open_receiver();
        } else {
            made.receiver = open_receiver();
            made.stream = engine_.create_stream();
        }
        CHECK(engine_.attach(made.receiver, made.stream));
        add_sinks(made);
        alive_.push_back(std::move(made));
    }

    /// RTP to nobody or to another receiver, over a port of its own, a connection that nobody makes, or a receiver's socket.
    void add_rtp_sink(Alive& to) {
        RtpSinkSpec spec;
        spec.host = "127.0.0.1";
        spec.port = static_cast<std::uint16_t>(first_port + 2 * (random_() % ((last_port - first_port) / 2)));
        spec.ssrc = 1;
        spec.transport = chance(3) ? Transport::tcp_passive : Transport::udp;
        spec.packing = chance(3) ? Packing::es : Packing::ps;
        spec.audio = chance(2);
        spec.stall_s = 0.2;
        if (chance(3) && !alive_.empty()) spec.through = alive_[pick()].receiver;
        spec.remote = {{"127.0.0.1", static_cast<std::uint16_t>(first_port + random_() % (last_port - first_port))}};
        const Outcome<SinkId> added = engine_.add_rtp_sink(to.stream, std::move(spec));
        if (added.error != 0) return;  // another of ours has the port
        ++socket_sinks_;
        RtpSinkUpdate update;
        update.sending = true;
        engine_.update_rtp_sink(added.value, update);
        if (chance(4)) update.sending = false;
        update.payload_type = 97;
        engine_.update_rtp_sink(added.value, update);
        (void)engine_.rtp_sink_facts(added.value);
        to.sinks.push_back(added.value);
    }

    void add_sinks(Alive& to) {
        while (chance(2)) add_rtp_sink(to);
        to.sinks.push_back(engine_.add_frame_sink(to.stream, {}));
        for (int number = 0; number < 2; ++number) {
            int fds[2];
            CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
            SocketSinkSpec spec;
            spec.variant.wrapping = chance(2) ? Wrapping::chunked : Wrapping::websocket;
            spec.variant.audio = chance(2) ? AudioChoice::copy : AudioChoice::aac;
            spec.queue_bytes = 20'000;
            spec.stall_s = 0.2;
            to.sinks.push_back(engine_.add_socket_sink(to.stream, fds[0], std::move(spec)));
            ++socket_sinks_;
            if (chance(8)) {
                ::close(fds[1]);  // leaves before the first byte
            } else {
                viewers_.add(fds[1]);
            }
        }
    }

    /// Something else than opening and closing.
    void disturb() {
        if (alive_.empty()) return;
        Alive& chosen = alive_[pick()];
        switch (random_() % 6) {
            case 0: {  // the session has invited again: a new receiver for the same stream
                const ReceiverId fresh = open_receiver();
                close_receiver(chosen.receiver);
                CHECK(engine_.attach(fresh, chosen.stream));
                chosen.receiver = fresh;
                break;
            }
            case 1: {  // receivers change places, and so perhaps workers
                Alive& other = alive_[pick()];
                CHECK(engine_.attach(chosen.receiver, other.stream));
                CHECK(engine_.attach(other.receiver, chosen.stream));
                std::swap(chosen.receiver, other.receiver);
                ++moved_;
                break;
            }
            case 2: {
                ReceiverUpdate update;
                update.ssrc = first_ssrc + ssrcs_;
                if (chance(2) && !chosen.sinks.empty()) add_rtp_sink(chosen);
                update.payloads = Payloads{{96, "PS"}, {98, "H264"}};
                update.connect = {{"127.0.0.1", 9}};
                update.acknowledged = true;
                engine_.update_receiver(chosen.receiver, std::move(update));
                break;
            }
            case 3:
                if (!chosen.sinks.empty()) {
                    engine_.close_sink(chosen.sinks.back());
                    chosen.sinks.pop_back();
                }
                break;
            case 4: {
                Frame frame;
                auto track = std::make_shared<Track>();
                track->kind = TrackKind::audio;
                track->codec = Codec::aac;
                track->sample_rate = 8000;
                track->channels = 1;
                track->parameter_sets = {{0x15, 0x88}};
                frame.track = std::move(track);
                frame.key = true;
                frame.payload = Buffer::copy_of(ByteView(Bytes(100, 0x21)));
                engine_.push(chosen.stream, std::move(frame));
                break;
            }
            default:
                CHECK(engine_.receiver_facts(chosen.receiver).has_value());
                CHECK(engine_.stream_counters(chosen.stream).has_value());
                (void)engine_.tracks(chosen.stream);
        }
    }

    void close_receiver(ReceiverId id) {
        devices_.remove(id);
        engine_.close_receiver(id);
        engine_.close_receiver(id);
    }

    void close(std::size_t index) {
        const Alive closed = std::move(alive_[index]);
        alive_.erase(alive_.begin() + static_cast<std::ptrdiff_t>(index));
        if (chance(2)) {
            close_receiver(closed.receiver);
            engine_.close_stream(closed.stream, "stream_closed");
        } else {
            engine_.close_stream(closed.stream, "stream_closed");
            close_receiver(closed.receiver);
        }
    }

    /// What the workers have to say, as the event loop would take it.
    void take() {
        pollfd waiting{.fd = engine_.event_fd(), .events = POLLIN, .revents = 0};
        if (::poll(&waiting, 1, 1) != 1) return;
        std::vector<Notice> notices;
        engine_.take_notices(notices);
        for (const Notice& notice : notices) {
            if (const auto* const event = std::get_if<Event>(&notice)) {
                closed_sinks_ += event->kind == EventKind::sink_closed ? 1 : 0;
                first_packets_ += event->kind == EventKind::first_packet ? 1 : 0;
            } else if (const auto* const frame = std::get_if<FrameNotice>(&notice)) {
                CHECK(!frame->frame.payload.empty());
                ++frames_;
            } else {
                std::fprintf(stderr, "%s\n", std::get<Complaint>(notice).text.c_str());
            }
        }
    }

    const unsigned streams_;
    Engine engine_;
    Devices devices_;
    Viewers viewers_;
    std::minstd_rand random_;
    std::vector<Alive> alive_;
    unsigned opened_ = 0;
    unsigned moved_ = 0;
    std::uint32_t ssrcs_ = 0;
    std::uint64_t frames_ = 0;
    std::uint64_t first_packets_ = 0;
    std::uint64_t socket_sinks_ = 0;
    std::uint64_t closed_sinks_ = 0;
};

}  // namespace
}  // namespace gb28181::test

int main(int count, char** arguments) {
    using namespace gb28181::test;
    const unsigned streams = count > 1 ? static_cast<unsigned>(std::stoul(arguments[1])) : 200;
    const std::size_t before = open_descriptors();
    {
        Churn churn(streams);
        churn.run();
        churn.report();
    }
    CHECK(open_descriptors() == before);
    std::puts("ok");
}
