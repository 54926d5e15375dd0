// Cameras: RTP/PS over UDP or TCP, in real time with phases spread, or as fast as asked (flood).
//
//   bench_rtp_send --port 41000 --streams 100 --seconds 10 [--step 2] [--ssrc 1000] [--gso] [--tcp] [--bind 127.0.0.2]
//                  [--drop-packet N] [--flood PACKETS_PER_S [--size 100]] [--together] [--mbit 4]
//
// A picture goes out in one burst with its sound behind it; the streams' pictures and groups are spread over time.
// `--together`: the groups of all streams begin at the same time, and the run ends with whole ones if it lasts an even
// number of seconds. `--drop-packet N`: the Nth packet of every stream is not sent. `--flood`: packets of the right form with the right
// SSRC at that rate, over all ports, without regard to pictures. Prints one JSON object at the end; `late_ms` is how
// far behind its time a burst was sent at worst: a run with much of it tells nothing about the receiver.

#include <poll.h>

#include <algorithm>

#include "camera.hpp"

namespace load {
namespace {

class Stream {
public:
    Stream(const Options& options, const Camera& camera, long index)
        : camera_(camera),
          ssrc_(static_cast<std::uint32_t>(options.integer("ssrc", 1000) + index)),
          tcp_(options.flag("tcp")),
          gso_(options.flag("gso")),
          drop_(options.integer("drop-packet", -1)),
          // The groups of the streams begin at different times.
          number_(options.flag("together") ? 0 : static_cast<std::uint64_t>(index) * 7 % group_size) {
        const sockaddr_in to =
            address(options.text("host", "127.0.0.1"), options.integer("port", 41000) + index * options.integer("step", 2));
        if (tcp_) {
            fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            set_option(fd_, SOL_SOCKET, SO_SNDBUF, 1 << 20);
            if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) die("connect");
        } else {
            fd_ = udp_socket(options.text("bind", "127.0.0.1"), 0, &to);
        }
    }

    /// The next picture and its sound.
    void send_picture() {
        begin();
        const std::uint64_t pts = 90'000 + number_ * ticks;
        const Stamp stamp{now_ns(), static_cast<std::uint32_t>(number_)};
        add(camera_.picture(number_), pts, &stamp, 0);
        add(camera_.sound(), pts, nullptr, 1);
        flush();
        ++number_;
    }

    /// Packets of the middle of a picture, `size` bytes each: as many as one call takes, or one.
    long send_any(std::size_t size) {
        begin();
        const Pack& pack = camera_.picture(1);
        const long count = gso_ ? static_cast<long>(max_segments) : 1;
        for (long index = 0; index < count; ++index) {
            entry(pack.bytes.data() + payload_size, size - header_size, false, 0);
        }
        flush();
        return count;
    }

    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t refused = 0;

private:
    static constexpr std::size_t head_room = 16;

    void begin() {
        heads_.clear();
        vectors_.clear();
        sizes_.clear();
        heads_.reserve(8192 * head_room);  // vectors point into it: it must not move
    }

    void add(const Pack& pack, std::uint64_t pts, const Stamp* stamp, int which) {
        Camera::fill_first(pack, pts, stamp, first_[which].data());
        const std::size_t count = pack.packets();
        for (std::size_t packet = 0; packet < count; ++packet) {
            const std::uint8_t* const data =
                packet == 0 ? first_[which].data() : pack.bytes.data() + packet * payload_size;
            entry(data, pack.size_of(packet), packet + 1 == count, static_cast<std::uint32_t>(pts));
        }
    }

    void entry(const std::uint8_t* data, std::size_t size, bool marker, std::uint32_t timestamp) {
        const std::uint16_t sequence = sequence_++;
        if (drop_ >= 0 && counted_++ == drop_) return;
        const std::size_t at = heads_.size();
        heads_.resize(at + head_room);
        std::uint8_t* const head = heads_.data() + at;
        const std::size_t whole = size + header_size;
        head[0] = static_cast<std::uint8_t>(whole >> 8);
        head[1] = static_cast<std::uint8_t>(whole);
        head[2] = 0x80;
        head[3] = static_cast<std::uint8_t>(96 | (marker ? 0x80 : 0));
        const std::uint16_t net_sequence = htons(sequence);
        const std::uint32_t net_timestamp = htonl(timestamp);
        const std::uint32_t net_ssrc = htonl(ssrc_);
        std::memcpy(head + 4, &net_sequence, 2);
        std::memcpy(head + 6, &net_timestamp, 4);
        std::memcpy(head + 10, &net_ssrc, 4);
        const std::size_t skipped = tcp_ ? 0 : 2;
        vectors_.push_back({head + skipped, header_size + 2 - skipped});
        vectors_.push_back({const_cast<std::uint8_t*>(data), size});
        sizes_.push_back(whole);
        ++packets;
        bytes += whole;
    }

    void flush() {
        if (tcp_) {
            flush_tcp();
        } else {
            flush_udp();
        }
    }

    void flush_tcp() {
        std::size_t at = 0;
        while (at < vectors_.size()) {
            msghdr message{};
            message.msg_iov = vectors_.data() + at;
            message.msg_iovlen = std::min<std::size_t>(vectors_.size() - at, 1000);
            ssize_t count = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
            if (count < 0) {
                if (errno == EINTR && stopped == 0) continue;
                ++refused;
                return;
            }
            while (count > 0) {
                iovec& vector = vectors_[at];
                const std::size_t taken = std::min(static_cast<std::size_t>(count), vector.iov_len);
                vector.iov_base = static_cast<std::uint8_t*>(vector.iov_base) + taken;
                vector.iov_len -= taken;
                count -= static_cast<ssize_t>(taken);
                if (vector.iov_len == 0) ++at;
            }
        }
    }

    void flush_udp() {
        messages_.clear();
        controls_.assign(sizes_.size(), {});
        for (std::size_t at = 0; at < sizes_.size();) {
            std::size_t count = 1;
            if (gso_) {
                while (at + count < sizes_.size() && count < max_segments && sizes_[at + count - 1] == sizes_[at] &&
                       sizes_[at + count] <= sizes_[at]) {
                    ++count;
                }
            }
            mmsghdr message{};
            message.msg_hdr.msg_iov = &vectors_[2 * at];
            message.msg_hdr.msg_iovlen = 2 * count;
            if (count > 1) {
                message.msg_hdr.msg_control = &controls_[messages_.size()];
                message.msg_hdr.msg_controllen = CMSG_SPACE(sizeof(std::uint16_t));
                cmsghdr* const control = CMSG_FIRSTHDR(&message.msg_hdr);
                control->cmsg_level = IPPROTO_UDP;
                control->cmsg_type = UDP_SEGMENT;
                control->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
                const auto size = static_cast<std::uint16_t>(sizes_[at]);
                std::memcpy(CMSG_DATA(control), &size, sizeof size);
            }
            messages_.push_back(message);
            at += count;
        }
        std::size_t sent = 0;
        while (sent < messages_.size()) {
            const int count = ::sendmmsg(fd_, messages_.data() + sent, static_cast<unsigned>(messages_.size() - sent), 0);
            if (count > 0) {
                sent += static_cast<std::size_t>(count);
            } else if (errno == EAGAIN || errno == ENOBUFS) {
                pollfd waiting{.fd = fd_, .events = POLLOUT, .revents = 0};
                ::poll(&waiting, 1, 10);
            } else {
                ++refused;  // the port is closed, as it is for a while at the begin and the end of a run
                ++sent;
            }
        }
    }

    struct alignas(cmsghdr) Control {
        std::array<std::uint8_t, 32> data{};
    };

    const Camera& camera_;
    const std::uint32_t ssrc_;
    const bool tcp_;
    const bool gso_;
    const long drop_;
    std::uint64_t number_;
    int fd_ = -1;
    long counted_ = 0;
    std::uint16_t sequence_ = 1;
    std::array<std::array<std::uint8_t, payload_size>, 2> first_{};
    std::vector<std::uint8_t> heads_;
    std::vector<iovec> vectors_;
    std::vector<std::size_t> sizes_;
    std::vector<mmsghdr> messages_;
    std::vector<Control> controls_;
};

/// Each stream has its place within the picture interval.
Histogram send_paced(std::vector<Stream>& streams, double seconds) {
    constexpr std::int64_t interval_ns = 1'000'000'000 / pictures_per_s;
    const auto count = static_cast<std::int64_t>(streams.size());
    const auto rounds = static_cast<std::int64_t>(seconds * pictures_per_s);
    const std::int64_t begun = now_ns();
    Histogram late;
    for (std::int64_t round = 0; round < rounds && stopped == 0; ++round) {
        for (std::int64_t index = 0; index < count; ++index) {
            const std::int64_t due = begun + round * interval_ns + index * interval_ns / count;
            const std::int64_t now = now_ns();
            if (due > now) sleep_until(due);
            streams[static_cast<std::size_t>(index)].send_picture();
            late.add(now_ns() - due);
        }
    }
    return late;
}

Histogram send_flood(std::vector<Stream>& streams, double seconds, double packets_per_s, std::size_t size) {
    const std::int64_t begun = now_ns();
    const auto total = static_cast<std::int64_t>(seconds * packets_per_s);
    Histogram late;
    std::size_t next = 0;
    for (std::int64_t number = 0; number < total && stopped == 0;) {
        const auto due = begun + static_cast<std::int64_t>(static_cast<double>(number) / packets_per_s * 1e9);
        const std::int64_t now = now_ns();
        if (now > begun + static_cast<std::int64_t>(seconds * 1e9)) break;  // it cannot send so many
        if (due > now + 200'000) sleep_until(due);
        number += streams[next++ % streams.size()].send_any(size);
        if (next % 100 == 0) late.add(now_ns() - due);
    }
    return late;
}

}  // namespace
}  // namespace load

int main(int count, char** arguments) {
    using namespace load;
    const Options options(count, arguments);
    end_on_signal();
    raise_file_limit();
    const Camera camera(options.number("mbit", 4.0));
    std::vector<Stream> streams;
    const long wanted = options.integer("streams", 1);
    streams.reserve(static_cast<std::size_t>(wanted));
    for (long index = 0; index < wanted; ++index) streams.emplace_back(options, camera, index);
    const double seconds = options.number("seconds", 10);
    const std::int64_t begun = now_ns();
    const double flood = options.number("flood", 0);
    const auto size = std::min(static_cast<std::size_t>(options.integer("size", packet_size)), packet_size);
    const Histogram late = flood > 0 ? send_flood(streams, seconds, flood, size) : send_paced(streams, seconds);
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t refused = 0;
    for (const Stream& stream : streams) {
        packets += stream.packets;
        bytes += stream.bytes;
        refused += stream.refused;
    }
    std::printf("{\"packets\":%llu,\"bytes\":%llu,\"refused\":%llu,\"seconds\":%.3f,\"cpu_s\":%.3f,\"late_ms\":%s}\n",
                static_cast<unsigned long long>(packets), static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(refused), static_cast<double>(now_ns() - begun) / 1e9, cpu_s(),
                late.json().c_str());
}
