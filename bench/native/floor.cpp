// Floors: the least that any program in user space must do for the same work, to be measured in the same run.
//
//   bench_floor --work relay  --port 41000 --to 51000 --streams 100 [--gso] [--gro]    packets in, packets out
//   bench_floor --work ingest --port 41000 --streams 200 [--gro]                       packets in
//   bench_floor --work tcp    --port 41000 --streams 100                               connections in
//   bench_floor --work fanout --port 18081 --consumers 500 [--merge-ms 300]            one picture to all, 25 times a second
//
// `relay` writes a new SSRC into each packet and sends it on: recvmmsg and sendmmsg; with `--gso` packets of one length
// leave by one UDP_SEGMENT call; with `--gro` they come merged too. No table of sources, no order, no counters. Ends by
// SIGTERM and prints one JSON object with its own CPU time.

#include <fcntl.h>
#include <netinet/tcp.h>

#include <algorithm>

#include "load.hpp"

namespace load {
namespace {

constexpr std::size_t batch = 64;
constexpr std::size_t message_size = 65'536 + 2112;  // not a multiple of the page: see the cache
constexpr std::uint32_t new_ssrc = 0x01020304;

struct Port {
    int in = -1;
    int out = -1;
};

std::size_t merged_size(const msghdr& header) {
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
         control = CMSG_NXTHDR(const_cast<msghdr*>(&header), control)) {
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int size = 0;
            std::memcpy(&size, CMSG_DATA(control), sizeof size);
            return static_cast<std::size_t>(size);
        }
    }
    return 0;
}

class Floor {
public:
    explicit Floor(const Options& options)
        : options_(options),
          streams_(options.integer("streams", 1)),
          gso_(options.flag("gso") || options.flag("gro")),
          gro_(options.flag("gro")),
          epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

    void run() {
        const std::string work = options_.text("work", "relay");
        if (work == "fanout") {
            fan_out();
        } else if (work == "tcp") {
            take_tcp();
        } else {
            take_udp(work == "relay");
        }
        std::printf("{\"packets\":%llu,\"bytes\":%llu,\"out_bytes\":%llu,\"calls\":%llu,\"refused\":%llu,\"cpu_s\":%.4f}\n",
                    static_cast<unsigned long long>(packets_), static_cast<unsigned long long>(bytes_),
                    static_cast<unsigned long long>(out_bytes_), static_cast<unsigned long long>(calls_),
                    static_cast<unsigned long long>(refused_), cpu_s());
    }

private:
    void watch(int fd, void* what) const {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = what;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
    }

    static void ready() {
        std::puts("{\"event\":\"ready\"}");
        std::fflush(stdout);
    }

    // ---- UDP

    void take_udp(bool relays) {
        std::vector<Port> ports(static_cast<std::size_t>(streams_));
        for (long index = 0; index < streams_; ++index) {
            Port& port = ports[static_cast<std::size_t>(index)];
            port.in = udp_socket("127.0.0.1", options_.integer("port", 41000) + 2 * index);
            if (gro_) set_option(port.in, IPPROTO_UDP, UDP_GRO, 1);
            if (relays) {
                const sockaddr_in to = address("127.0.0.1", options_.integer("to", 51000) + 2 * index);
                port.out = udp_socket("127.0.0.1", 0, &to);
            }
            watch(port.in, &port);
        }
        std::vector<std::uint8_t> memory(batch * message_size);
        for (std::size_t index = 0; index < batch; ++index) {
            vectors_[index] = {memory.data() + index * message_size, 65'536};
            in_[index].msg_hdr.msg_iov = &vectors_[index];
            in_[index].msg_hdr.msg_iovlen = 1;
            in_[index].msg_hdr.msg_control = in_controls_[index].data();
        }
        ready();
        std::array<epoll_event, 64> events;
        while (stopped == 0) {
            const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 200);
            for (int index = 0; index < count; ++index) {
                udp(*static_cast<Port*>(events[static_cast<std::size_t>(index)].data.ptr));
            }
        }
    }

    void udp(const Port& port) {
        for (mmsghdr& message : in_) message.msg_hdr.msg_controllen = gro_ ? in_controls_[0].size() : 0;
        const int got = ::recvmmsg(port.in, in_.data(), batch, MSG_DONTWAIT, nullptr);
        ++calls_;
        if (got <= 0) return;
        const auto count = static_cast<std::size_t>(got);
        std::size_t sends = 0;
        for (std::size_t at = 0; at < count;) {
            const std::size_t size = in_[at].msg_len;
            const std::size_t step = gro_ ? merged_size(in_[at].msg_hdr) : 0;
            packets_ += step != 0 ? (size + step - 1) / step : 1;
            bytes_ += size;
            std::size_t together = 1;
            std::size_t segment = step != 0 && step < size ? step : 0;
            if (gso_ && step == 0) {
                while (at + together < count && together < max_segments && in_[at + together - 1].msg_len == size &&
                       in_[at + together].msg_len <= size) {
                    packets_ += 1;
                    bytes_ += in_[at + together].msg_len;
                    ++together;
                }
                segment = together > 1 ? size : 0;
            }
            if (port.out >= 0) queue(sends++, at, together, segment);
            at += together;
        }
        for (std::size_t sent = 0; sent < sends;) {
            const int taken = ::sendmmsg(port.out, out_.data() + sent, static_cast<unsigned>(sends - sent), 0);
            ++calls_;
            if (taken <= 0) {
                ++refused_;
                break;
            }
            sent += static_cast<std::size_t>(taken);
        }
    }

    void queue(std::size_t place, std::size_t at, std::size_t together, std::size_t segment) {
        const std::uint32_t ssrc = htonl(new_ssrc);
        for (std::size_t index = at; index < at + together; ++index) {
            auto* const data = static_cast<std::uint8_t*>(vectors_[index].iov_base);
            const std::size_t size = in_[index].msg_len;
            const std::size_t step = together == 1 && segment != 0 ? segment : size;
            for (std::size_t start = 0; start + header_size <= size; start += step) {
                std::memcpy(data + start + 8, &ssrc, sizeof ssrc);
            }
            out_vectors_[index] = {data, size};
            out_bytes_ += size;
        }
        msghdr& header = out_[place].msg_hdr;
        header = {};
        header.msg_iov = &out_vectors_[at];
        header.msg_iovlen = together;
        if (segment == 0) return;
        header.msg_control = out_controls_[place].data();
        header.msg_controllen = CMSG_SPACE(sizeof(std::uint16_t));
        cmsghdr* const control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = IPPROTO_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
        const auto size = static_cast<std::uint16_t>(segment);
        std::memcpy(CMSG_DATA(control), &size, sizeof size);
    }

    // ---- TCP

    int listen_on(long port) const {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        const sockaddr_in own = address("127.0.0.1", port);
        if (::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) die("bind");
        if (::listen(fd, 1024) != 0) die("listen");
        return fd;
    }

    void take_tcp() {
        std::vector<Port> ports(static_cast<std::size_t>(streams_));
        for (long index = 0; index < streams_; ++index) {
            Port& port = ports[static_cast<std::size_t>(index)];
            port.in = listen_on(options_.integer("port", 41000) + 2 * index);
            watch(port.in, &port);
        }
        ready();
        std::vector<std::uint8_t> memory(256 * 1024);
        std::array<epoll_event, 64> events;
        while (stopped == 0) {
            const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 200);
            for (int index = 0; index < count; ++index) {
                Port& port = *static_cast<Port*>(events[static_cast<std::size_t>(index)].data.ptr);
                if (port.out < 0) {  // the connection replaces its listener
                    port.out = ::accept4(port.in, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
                    ::close(port.in);
                    watch(port.out, &port);
                    continue;
                }
                const auto got = ::recv(port.out, memory.data(), memory.size(), MSG_DONTWAIT);
                ++calls_;
                if (got > 0) bytes_ += static_cast<std::uint64_t>(got);
                if (got == 0) ::close(port.out);
            }
        }
        packets_ = bytes_ / 1302;  // of mean length, with its two bytes of framing
    }

    // ---- fan-out

    void fan_out() {
        constexpr std::size_t picture = 20'000;
        constexpr std::size_t sound = 340;
        const std::vector<std::uint8_t> data(picture, 0x55);
        const auto wanted = static_cast<std::size_t>(options_.integer("consumers", 1));
        const long merge = options_.integer("merge-ms", 0);
        const int listener = listen_on(options_.integer("port", 18081));
        ready();
        std::vector<int> fds;
        std::int64_t due = now_ns();
        const std::int64_t interval = merge > 0 ? merge * 1'000'000 : 40'000'000;
        while (stopped == 0) {
            for (int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC); fd >= 0 && fds.size() < wanted;
                 fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) {
                set_option(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20);
                greet(fd);
                fds.push_back(fd);
            }
            due += interval;
            std::vector<iovec> vectors;
            for (std::int64_t at = 0; at < interval; at += 40'000'000) {
                vectors.push_back({const_cast<std::uint8_t*>(data.data()), picture});
                vectors.push_back({const_cast<std::uint8_t*>(data.data()), sound});
            }
            msghdr message{};
            message.msg_iov = vectors.data();
            message.msg_iovlen = vectors.size();
            for (const int fd : fds) {
                const auto count = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
                ++calls_;
                if (count > 0) {
                    out_bytes_ += static_cast<std::uint64_t>(count);
                } else {
                    ++refused_;
                }
            }
            sleep_until(due);
        }
    }

    /// A response and a key picture, so that the consumers' tool takes it for a server.
    static void greet(int fd) {
        std::array<std::uint8_t, 2048> request;
        if (::recv(fd, request.data(), request.size(), 0) <= 0) return;
        std::string text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        const std::string file("FLV\1\5\0\0\0\11\0\0\0\0", 13);
        const std::string tag("\11\0\0\6\0\0\0\0\0\0\0\x17\1\0\0\0\0\0\0\0\x11", 21);
        text += "22\r\n" + file + tag + "\r\n";
        if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) < 0) ::perror("send");
    }

    const Options& options_;
    const long streams_;
    const bool gso_;
    const bool gro_;
    const int epoll_;
    std::array<iovec, batch> vectors_{};
    std::array<mmsghdr, batch> in_{};
    alignas(cmsghdr) std::array<std::array<std::uint8_t, 64>, batch> in_controls_{};
    std::array<iovec, batch> out_vectors_{};
    std::array<mmsghdr, batch> out_{};
    alignas(cmsghdr) std::array<std::array<std::uint8_t, 32>, batch> out_controls_{};
    std::uint64_t packets_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t out_bytes_ = 0;
    std::uint64_t calls_ = 0;
    std::uint64_t refused_ = 0;
};

}  // namespace
}  // namespace load

int main(int count, char** arguments) {
    using namespace load;
    const Options options(count, arguments);
    end_on_signal();
    raise_file_limit();
    Floor(options).run();
}
