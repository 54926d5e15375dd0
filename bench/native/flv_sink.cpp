// Consumers: many HTTP-FLV or WebSocket-FLV connections that read all they get.
//
//   bench_flv_sink --port 18081 --consumers 500 --path '/live/s{}_c.flv?token=x' --streams 50 [--ws] [--stamps]
//                  [--settle 2] [--seconds 10] [--one-by-one] [--pause-ms 20]
//
// `{}` in the path becomes the number of the stream: the connections go round over `--streams`. Until its first key
// frame a connection is parsed; after it the bytes are dropped in the kernel, unless `--stamps` asks for the delay and
// the missing numbers of all pictures. Prints {"event":"ready"} when every connection had its first key frame, and at
// the end (`--seconds` later, or SIGTERM) one JSON object. `first_key_ms`: from the request to the first byte of the
// first key picture; `first_picture_ms`: from the sending of the first picture to its last byte. The delay is that of pictures sent `--settle` seconds after the request or later. `--one-by-one`: each connection is closed when it had that, then the next one opens.

#include <algorithm>
#include <string_view>

#include "load.hpp"

namespace load {
namespace {

enum class State { head, body, drain };

class Consumer {
public:
    int fd = -1;
    State state = State::head;
    bool connected = false;
    bool done = false;  // closed by the server
    std::int64_t asked_ns = 0;
    std::uint64_t bytes = 0;
    std::int64_t last_picture_ns = 0;
    std::int64_t longest_pause_ns = 0;
    std::int64_t expected_number = -1;
    std::uint64_t missing = 0;
    std::uint64_t pictures = 0;
    std::vector<std::uint8_t> raw;  // of the connection, not taken apart yet
    std::vector<std::uint8_t> flv;  // without the wrapping
    bool file_head_seen = false;
};

class Sink {
public:
    explicit Sink(const Options& options)
        : options_(options),
          ws_(options.flag("ws")),
          stamps_(options.flag("stamps")),
          settle_ns_(static_cast<std::int64_t>(options.number("settle", 0) * 1e9)),
          streams_(options.integer("streams", 1)),
          to_(address(options.text("host", "127.0.0.1"), options.integer("port", 18081))),
          consumers_(static_cast<std::size_t>(options.integer("consumers", 1))),
          scratch_(1 << 20) {
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    }

    int run() {
        if (options_.flag("one-by-one")) {
            one_by_one();
            report();
            return 0;
        }
        std::size_t opened = 0;
        bool told = false;
        const double seconds = options_.number("seconds", 0);
        std::int64_t end = INT64_MAX;
        while (stopped == 0 && now_ns() < end) {
            // A listener's queue is short: so many on their way at a time.
            while (opened < consumers_.size() && opened - ready_ < 32) open(consumers_[opened], opened), ++opened;
            wait();
            if (!told && ready_ >= consumers_.size()) {
                told = true;
                std::puts("{\"event\":\"ready\"}");
                std::fflush(stdout);
                if (seconds > 0) end = now_ns() + static_cast<std::int64_t>(seconds * 1e9);
            }
        }
        report();
        return 0;
    }

private:
    void one_by_one() {
        for (std::size_t index = 0; index < consumers_.size() && stopped == 0; ++index) {
            Consumer& consumer = consumers_[index];
            open(consumer, index);
            const std::int64_t until = now_ns() + 5'000'000'000;
            while (consumer.state != State::drain && !consumer.done && now_ns() < until) wait();
            if (!consumer.done) {
                ::close(consumer.fd);
                consumer.done = true;
            }
            ::usleep(static_cast<useconds_t>(options_.integer("pause-ms", 20) * 1000));
        }
    }

    void open(Consumer& consumer, std::size_t index) {
        consumer.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (consumer.fd < 0) die("socket");
        if (::connect(consumer.fd, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) != 0) die("connect");
        std::string path = options_.text("path", "/live/s{}_c.flv?token=x");
        const auto place = path.find("{}");
        if (place != std::string::npos) {
            path.replace(place, 2, std::to_string(static_cast<long>(index) % streams_));
        }
        std::string request = "GET " + path + " HTTP/1.1\r\nHost: bench\r\n";
        if (ws_) {
            request += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        }
        request += "\r\n";
        consumer.asked_ns = now_ns();
        if (::send(consumer.fd, request.data(), request.size(), MSG_NOSIGNAL) < 0) die("send");
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = &consumer;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, consumer.fd, &event) != 0) die("epoll_ctl");
    }

    void wait() {
        std::array<epoll_event, 128> events;
        const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 100);
        for (int index = 0; index < count; ++index) {
            take(*static_cast<Consumer*>(events[static_cast<std::size_t>(index)].data.ptr));
        }
    }

    void take(Consumer& consumer) {
        if (consumer.done) return;
        const bool drop = consumer.state == State::drain && !stamps_;
        // With MSG_TRUNC the kernel drops the bytes of a TCP connection and copies nothing.
        const auto count = ::recv(consumer.fd, scratch_.data(), scratch_.size(), MSG_DONTWAIT | (drop ? MSG_TRUNC : 0));
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count <= 0) {
            consumer.done = true;
            ++closed_;
            if (consumer.state != State::drain) ++ready_;  // never will be
            ::close(consumer.fd);
            return;
        }
        const auto size = static_cast<std::size_t>(count);
        consumer.bytes += size;
        if (drop) return;
        const std::int64_t now = now_ns();
        consumer.raw.insert(consumer.raw.end(), scratch_.data(), scratch_.data() + size);
        if (consumer.state == State::head && !take_head(consumer)) return;
        unwrap(consumer);
        tags(consumer, now);
        if (consumer.state == State::body && consumer.file_head_seen && begins_key(consumer)) has_key(consumer, now);
    }

    /// The first bytes of a tag with a key picture have come, in a chunk or message that is not whole yet.
    bool begins_key(const Consumer& consumer) const {
        const std::vector<std::uint8_t>& raw = consumer.raw;
        if (!consumer.flv.empty() || raw.size() < 2) return false;
        std::size_t head = (raw[1] & 0x7F) == 126 ? 4 : (raw[1] & 0x7F) == 127 ? 10 : 2;
        if (!ws_) {
            const void* const line = ::memchr(raw.data(), '\n', std::min<std::size_t>(raw.size(), 20));
            if (line == nullptr) return false;
            head = static_cast<std::size_t>(static_cast<const std::uint8_t*>(line) - raw.data()) + 1;
        }
        return raw.size() >= head + 13 && raw[head] == 9 && raw[head + 11] >> 4 == 1 && raw[head + 12] == 1;
    }

    void has_key(Consumer& consumer, std::int64_t now) {
        consumer.state = State::drain;
        first_key_.add(now - consumer.asked_ns);
        ++ready_;
    }

    static bool take_head(Consumer& consumer) {
        constexpr std::string_view end = "\r\n\r\n";
        const std::string_view text(reinterpret_cast<const char*>(consumer.raw.data()), consumer.raw.size());
        const auto place = text.find(end);
        if (place == std::string_view::npos) return false;
        if (text.substr(9, 3) != "200" && text.substr(9, 3) != "101") {
            std::fprintf(stderr, "refused: %s\n", std::string(text.substr(0, place)).c_str());
        }
        consumer.raw.erase(consumer.raw.begin(), consumer.raw.begin() + static_cast<std::ptrdiff_t>(place + end.size()));
        consumer.state = State::body;
        return true;
    }

    /// Whole chunks or messages, and what has come of an unfinished one, so that the first byte of a picture counts.
    void unwrap(Consumer& consumer) const {
        std::size_t at = 0;
        std::vector<std::uint8_t>& raw = consumer.raw;
        while (at < raw.size()) {
            std::size_t head = 0;
            std::size_t size = 0;
            std::size_t tail = 0;
            if (ws_) {
                if (raw.size() - at < 2) break;
                size = raw[at + 1] & 0x7F;
                head = size == 126 ? 4 : size == 127 ? 10 : 2;
                if (raw.size() - at < head) break;
                if (head > 2) {
                    size = 0;
                    for (std::size_t index = 2; index < head; ++index) size = size << 8 | raw[at + index];
                }
            } else {
                const auto* const line = static_cast<const std::uint8_t*>(::memchr(raw.data() + at, '\n', raw.size() - at));
                if (line == nullptr) break;
                head = static_cast<std::size_t>(line - raw.data()) - at + 1;
                size = std::strtoul(reinterpret_cast<const char*>(raw.data() + at), nullptr, 16);
                tail = 2;
            }
            if (raw.size() - at < head + size + tail) break;
            const auto begin = raw.begin() + static_cast<std::ptrdiff_t>(at + head);
            consumer.flv.insert(consumer.flv.end(), begin, begin + static_cast<std::ptrdiff_t>(size));
            at += head + size + tail;
        }
        raw.erase(raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(at));
    }

    void tags(Consumer& consumer, std::int64_t now) {
        std::vector<std::uint8_t>& flv = consumer.flv;
        std::size_t at = 0;
        if (!consumer.file_head_seen) {
            if (flv.size() < 13) return;
            consumer.file_head_seen = true;
            at = 13;
        }
        while (flv.size() - at >= 11) {
            const std::size_t size = std::size_t{flv[at + 1]} << 16 | std::size_t{flv[at + 2]} << 8 | flv[at + 3];
            if (flv.size() - at < 11 + size + 4) break;
            if (flv[at] == 9 && size > 5 && flv[at + 12] == 1) picture(consumer, flv.data() + at + 11, size, now);
            at += 11 + size + 4;
        }
        flv.erase(flv.begin(), flv.begin() + static_cast<std::ptrdiff_t>(at));
    }

    void picture(Consumer& consumer, const std::uint8_t* data, std::size_t size, std::int64_t now) {
        const bool key = data[0] >> 4 == 1;
        if (key && consumer.state == State::body) has_key(consumer, now);
        if (!stamps_) return;
        Stamp stamp;
        if (!find_stamp(data, std::min<std::size_t>(size, 512), stamp)) return;
        if (consumer.pictures++ == 0) first_picture_.add(now - stamp.sent_ns);
        if (consumer.expected_number >= 0 && stamp.number != consumer.expected_number) {
            consumer.missing += static_cast<std::uint32_t>(stamp.number - consumer.expected_number);
        }
        consumer.expected_number = stamp.number + std::int64_t{1};
        // What was kept of the past is no delay: a picture counts from the time of the request on.
        if (stamp.sent_ns < consumer.asked_ns + settle_ns_) return;
        delay_.add(now - stamp.sent_ns);
        if (consumer.last_picture_ns != 0) {
            consumer.longest_pause_ns = std::max(consumer.longest_pause_ns, now - consumer.last_picture_ns);
        }
        consumer.last_picture_ns = now;
    }

    void report() const {
        std::uint64_t bytes = 0;
        std::uint64_t least = UINT64_MAX;
        std::uint64_t most = 0;
        std::uint64_t missing = 0;
        std::uint64_t pictures = 0;
        std::int64_t pause = 0;
        for (const Consumer& consumer : consumers_) {
            bytes += consumer.bytes;
            least = std::min(least, consumer.bytes);
            most = std::max(most, consumer.bytes);
            missing += consumer.missing;
            pictures += consumer.pictures;
            pause = std::max(pause, consumer.longest_pause_ns);
        }
        std::printf("{\"bytes\":%llu,\"least_bytes\":%llu,\"most_bytes\":%llu,\"closed\":%zu,\"pictures\":%llu,"
                    "\"missing\":%llu,\"longest_pause_ms\":%.3f,\"cpu_s\":%.3f,\"first_key_ms\":%s,"
                    "\"first_picture_ms\":%s,\"delay_ms\":%s}\n",
                    static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(least),
                    static_cast<unsigned long long>(most), closed_, static_cast<unsigned long long>(pictures),
                    static_cast<unsigned long long>(missing), static_cast<double>(pause) / 1e6, cpu_s(),
                    first_key_.json().c_str(), first_picture_.json().c_str(), delay_.json().c_str());
    }

    const Options& options_;
    const bool ws_;
    const bool stamps_;
    const std::int64_t settle_ns_;
    const long streams_;
    const sockaddr_in to_;
    int epoll_ = -1;
    std::vector<Consumer> consumers_;
    std::vector<std::uint8_t> scratch_;
    std::size_t ready_ = 0;
    std::size_t closed_ = 0;
    Histogram first_key_;
    Histogram first_picture_;
    Histogram delay_;
};

}  // namespace
}  // namespace load

int main(int count, char** arguments) {
    using namespace load;
    const Options options(count, arguments);
    end_on_signal();
    raise_file_limit();
    return Sink(options).run();
}
