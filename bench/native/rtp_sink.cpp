// Upper platforms: takes RTP on many UDP ports and says what came, what was lost and how late pictures are.
//
//   bench_rtp_sink --port 51000 --streams 100 [--step 2] [--seconds 10] [--gro]
//
// Ends after `--seconds` or by SIGTERM and prints one JSON object. `delay_ms`: from the sending of a picture to the
// arrival of its last packet; `first_delay_ms`: of its first packet.

#include "load.hpp"

namespace load {
namespace {

constexpr std::size_t batch = 64;
constexpr std::size_t message_size = 65'536;

struct Port {
    int fd = -1;
    std::int64_t expected = -1;
    std::uint64_t packets = 0;
    std::int64_t sent_ns = 0;  // of the picture that is coming
};

class Sink {
public:
    explicit Sink(const Options& options) : gro_(options.flag("gro")), memory_(batch * message_size) {
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        const long count = options.integer("streams", 1);
        ports_.resize(static_cast<std::size_t>(count));
        for (long index = 0; index < count; ++index) {
            Port& port = ports_[static_cast<std::size_t>(index)];
            port.fd = udp_socket("127.0.0.1", options.integer("port", 51000) + index * options.integer("step", 2));
            if (gro_) set_option(port.fd, IPPROTO_UDP, UDP_GRO, 1);
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.ptr = &port;
            if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, port.fd, &event) != 0) die("epoll_ctl");
        }
        for (std::size_t index = 0; index < batch; ++index) {
            vectors_[index] = {memory_.data() + index * message_size, message_size};
            messages_[index].msg_hdr.msg_iov = &vectors_[index];
            messages_[index].msg_hdr.msg_iovlen = 1;
            messages_[index].msg_hdr.msg_control = controls_[index].data();
        }
    }

    void run(double seconds) {
        const std::int64_t end = seconds > 0 ? now_ns() + static_cast<std::int64_t>(seconds * 1e9) : INT64_MAX;
        std::array<epoll_event, 64> events;
        while (stopped == 0 && now_ns() < end) {
            const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 100);
            for (int index = 0; index < count; ++index) {
                take(*static_cast<Port*>(events[static_cast<std::size_t>(index)].data.ptr));
            }
        }
    }

    void report() const {
        std::uint64_t packets = 0;
        std::size_t live = 0;
        for (const Port& port : ports_) {
            packets += port.packets;
            live += port.packets != 0 ? 1 : 0;
        }
        std::printf("{\"packets\":%llu,\"bytes\":%llu,\"lost\":%llu,\"live\":%zu,\"cpu_s\":%.3f,\"delay_ms\":%s,"
                    "\"first_delay_ms\":%s}\n",
                    static_cast<unsigned long long>(packets), static_cast<unsigned long long>(bytes_),
                    static_cast<unsigned long long>(lost_), live, cpu_s(), whole_.json().c_str(), first_.json().c_str());
    }

private:
    void take(Port& port) {
        for (mmsghdr& message : messages_) message.msg_hdr.msg_controllen = gro_ ? controls_[0].size() : 0;
        const int count = ::recvmmsg(port.fd, messages_.data(), batch, MSG_DONTWAIT, nullptr);
        const std::int64_t now = now_ns();
        for (int index = 0; index < count; ++index) {
            const mmsghdr& message = messages_[static_cast<std::size_t>(index)];
            const auto* data = static_cast<const std::uint8_t*>(message.msg_hdr.msg_iov->iov_base);
            std::size_t left = message.msg_len;
            const std::size_t step = segment(message.msg_hdr);
            while (left > 0) {
                const std::size_t size = step == 0 || step > left ? left : step;
                packet(port, data, size, now);
                data += size;
                left -= size;
            }
        }
    }

    static std::size_t segment(const msghdr& header) {
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

    void packet(Port& port, const std::uint8_t* data, std::size_t size, std::int64_t now) {
        if (size < header_size || data[0] >> 6 != 2) return;
        ++port.packets;
        bytes_ += size;
        const auto sequence = static_cast<std::uint16_t>(data[2] << 8 | data[3]);
        if (port.expected >= 0) lost_ += static_cast<std::uint16_t>(sequence - port.expected) & 0x7FFF;
        port.expected = static_cast<std::uint16_t>(sequence + 1);
        Stamp stamp;
        // The first packet of a pack begins with its start code.
        if (size > 16 && data[12] == 0 && data[13] == 0 && data[14] == 1 && data[15] == 0xBA &&
            find_stamp(data, std::min<std::size_t>(size, 256), stamp)) {
            port.sent_ns = stamp.sent_ns;
            first_.add(now - stamp.sent_ns);
        }
        if ((data[1] & 0x80) != 0 && port.sent_ns != 0) {
            whole_.add(now - port.sent_ns);
            port.sent_ns = 0;
        }
    }

    const bool gro_;
    int epoll_ = -1;
    std::vector<Port> ports_;
    std::vector<std::uint8_t> memory_;
    std::array<iovec, batch> vectors_{};
    std::array<mmsghdr, batch> messages_{};
    std::array<std::array<std::uint8_t, 64>, batch> controls_{};
    std::uint64_t bytes_ = 0;
    std::uint64_t lost_ = 0;
    Histogram whole_;
    Histogram first_;
};

}  // namespace
}  // namespace load

int main(int count, char** arguments) {
    using namespace load;
    const Options options(count, arguments);
    end_on_signal();
    raise_file_limit();
    Sink sink(options);
    std::puts("{\"event\":\"ready\"}");
    std::fflush(stdout);
    sink.run(options.number("seconds", 0));
    sink.report();
}
