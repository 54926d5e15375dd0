// What the load tools share: clocks, options, sockets, the time stamp in a picture, histograms.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace load {

inline constexpr std::size_t packet_size = 1400;  // RTP header included
inline constexpr std::size_t header_size = 12;
inline constexpr std::size_t payload_size = packet_size - header_size;
/// Datagrams that one system call with UDP_SEGMENT may carry: 65,507 bytes, and 64 by the oldest kernels.
inline constexpr std::size_t max_segments = 46;

inline std::int64_t now_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

/// User and system time of this process, all threads.
inline double cpu_s() {
    timespec used{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

inline void sleep_until(std::int64_t at_ns) {
    const timespec at{at_ns / 1'000'000'000, at_ns % 1'000'000'000};
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
}

[[noreturn]] inline void die(const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

/// `--name value` pairs; a name without a value is "1".
class Options {
public:
    Options(int count, char** arguments) {
        for (int index = 1; index < count; ++index) {
            const std::string name = arguments[index];
            if (name.rfind("--", 0) != 0) {
                std::fprintf(stderr, "not an option: %s\n", name.c_str());
                std::exit(2);
            }
            const bool has_value = index + 1 < count && std::strncmp(arguments[index + 1], "--", 2) != 0;
            values_[name.substr(2)] = has_value ? arguments[++index] : "1";
        }
    }
    [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise = "") const {
        const auto found = values_.find(name);
        return found != values_.end() ? found->second : otherwise;
    }
    [[nodiscard]] double number(const std::string& name, double otherwise) const {
        const auto found = values_.find(name);
        return found != values_.end() ? std::atof(found->second.c_str()) : otherwise;
    }
    [[nodiscard]] long integer(const std::string& name, long otherwise) const {
        return static_cast<long>(number(name, static_cast<double>(otherwise)));
    }
    [[nodiscard]] bool flag(const std::string& name) const { return values_.contains(name); }

private:
    std::map<std::string, std::string> values_;
};

inline sockaddr_in address(const std::string& host, long port) {
    sockaddr_in made{};
    made.sin_family = AF_INET;
    made.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::inet_pton(AF_INET, host.c_str(), &made.sin_addr) != 1) {
        errno = EINVAL;
        die("address " + host);
    }
    return made;
}

inline void set_option(int fd, int level, int name, int value) {
    if (::setsockopt(fd, level, name, &value, sizeof value) != 0) die("setsockopt");
}

/// A UDP socket; `port` 0: any, and connected to `to` where it is given.
inline int udp_socket(const std::string& host, long port, const sockaddr_in* to = nullptr) {
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    constexpr int room = 4 << 20;
    set_option(fd, SOL_SOCKET, SO_RCVBUF, room);
    set_option(fd, SOL_SOCKET, SO_SNDBUF, room);
    const sockaddr_in own = address(host, port);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) die("bind " + std::to_string(port));
    if (to != nullptr && ::connect(fd, reinterpret_cast<const sockaddr*>(to), sizeof *to) != 0) die("connect");
    return fd;
}

/// As many descriptors as the system lets us have.
inline void raise_file_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

inline volatile sig_atomic_t stopped = 0;

/// SIGTERM and SIGINT end the loops of the tools, which then print what they have counted.
inline void end_on_signal() {
    struct sigaction action {};
    action.sa_handler = [](int) { stopped = 1; };
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

// ---- the stamp: when a picture was sent and which it is, in bytes that no codec layer touches

/// No byte of it is 0 to 3, so that neither start codes nor emulation prevention arise.
inline constexpr std::array<std::uint8_t, 8> stamp_mark = {0xA7, 'g', 'b', 'S', 't', 'A', 'm', 0xA7};
inline constexpr std::size_t stamp_size = stamp_mark.size() + 16 + 8;

struct Stamp {
    std::int64_t sent_ns = 0;
    std::uint32_t number = 0;
};

inline void write_nibbles(std::uint8_t* to, std::uint64_t value, int count) {
    for (int index = 0; index < count; ++index) {
        to[index] = static_cast<std::uint8_t>(0x40 | (value >> (4 * (count - 1 - index)) & 15));
    }
}

inline std::uint64_t read_nibbles(const std::uint8_t* from, int count) {
    std::uint64_t value = 0;
    for (int index = 0; index < count; ++index) value = value << 4 | (from[index] & 15);
    return value;
}

inline void write_stamp(std::uint8_t* to, const Stamp& stamp) {
    std::memcpy(to, stamp_mark.data(), stamp_mark.size());
    write_nibbles(to + stamp_mark.size(), static_cast<std::uint64_t>(stamp.sent_ns), 16);
    write_nibbles(to + stamp_mark.size() + 16, stamp.number, 8);
}

/// The first stamp within `size` bytes.
inline bool find_stamp(const std::uint8_t* data, std::size_t size, Stamp& stamp) {
    const void* const found = ::memmem(data, size, stamp_mark.data(), stamp_mark.size());
    if (found == nullptr) return false;
    const auto* const at = static_cast<const std::uint8_t*>(found);
    if (at + stamp_size > data + size) return false;
    stamp.sent_ns = static_cast<std::int64_t>(read_nibbles(at + stamp_mark.size(), 16));
    stamp.number = static_cast<std::uint32_t>(read_nibbles(at + stamp_mark.size() + 16, 8));
    return true;
}

/// Times in steps of 10 µs up to 10 s.
class Histogram {
public:
    void add(std::int64_t ns) {
        const std::int64_t step = ns < 0 ? 0 : ns / 10'000;
        ++counts_[static_cast<std::size_t>(step < last ? step : last)];
        ++total_;
        if (ns > most_) most_ = ns;
    }
    [[nodiscard]] double quantile_ms(double part) const {
        auto left = static_cast<std::uint64_t>(part * static_cast<double>(total_));
        for (std::size_t step = 0; step < counts_.size(); ++step) {
            if (counts_[step] > left) return static_cast<double>(step) / 100 + 0.005;
            left -= counts_[step];
        }
        return most_ms();
    }
    [[nodiscard]] double most_ms() const { return static_cast<double>(most_) / 1e6; }
    [[nodiscard]] std::uint64_t total() const { return total_; }
    /// As the value of a JSON key.
    [[nodiscard]] std::string json() const {
        if (total_ == 0) return "null";
        std::array<char, 160> text{};
        std::snprintf(text.data(), text.size(), "{\"count\":%llu,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}",
                      static_cast<unsigned long long>(total_), quantile_ms(0.5), quantile_ms(0.9), quantile_ms(0.99),
                      most_ms());
        return text.data();
    }

private:
    static constexpr std::int64_t last = 1'000'000;
    std::vector<std::uint32_t> counts_ = std::vector<std::uint32_t>(last + 1);
    std::uint64_t total_ = 0;
    std::int64_t most_ = 0;
};

}  // namespace load
