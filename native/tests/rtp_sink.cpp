// RTP sinks from socket to socket: what is forwarded, from where on, and what it costs the demultiplexer.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "check.hpp"
#include "gb28181/engine.hpp"
#include "gb28181/rtcp.hpp"

namespace gb28181::test {
namespace {

#ifndef UDP_SEGMENT
constexpr int UDP_SEGMENT = 103;
#endif

constexpr std::uint32_t source_ssrc = 100'001;
constexpr std::uint32_t sink_ssrc = 0xDEADBEEF;

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/// A UDP socket on loopback, on a port of the kernel's choice.
class Peer {
public:
    Peer() : Peer(0) {}
    explicit Peer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
        const int room = 4 * 1024 * 1024;
        CHECK(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0);
        const sockaddr_in any = loopback(port);
        bound_ = ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0;
        sockaddr_in own{};
        socklen_t size = sizeof own;
        CHECK(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0);
        port_ = ntohs(own.sin_port);
    }

    [[nodiscard]] bool bound() const { return bound_; }
    [[nodiscard]] std::uint16_t port() const { return port_; }
    void send(const std::vector<std::uint8_t>& data, std::uint16_t to) {
        const sockaddr_in address = loopback(to);
        CHECK(::sendto(fd_.get(), data.data(), data.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                       sizeof address) == static_cast<ssize_t>(data.size()));
    }
    /// All at once, cut by the kernel into pieces of the first one's size.
    void send_merged(const std::vector<std::vector<std::uint8_t>>& packets, std::uint16_t to) {
        std::vector<std::uint8_t> data;
        for (const auto& packet : packets) data.insert(data.end(), packet.begin(), packet.end());
        const int step = static_cast<int>(packets.front().size());
        CHECK(::setsockopt(fd_.get(), IPPROTO_UDP, UDP_SEGMENT, &step, sizeof step) == 0);
        send(data, to);
        const int off = 0;
        CHECK(::setsockopt(fd_.get(), IPPROTO_UDP, UDP_SEGMENT, &off, sizeof off) == 0);
    }
    [[nodiscard]] std::optional<std::vector<std::uint8_t>> receive(double seconds = 20.0) {
        pollfd waiting{.fd = fd_.get(), .events = POLLIN, .revents = 0};
        if (::poll(&waiting, 1, static_cast<int>(seconds * 1000)) != 1) return std::nullopt;
        std::vector<std::uint8_t> data(65536);
        socklen_t size = sizeof from_;
        const auto count = ::recvfrom(fd_.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&from_), &size);
        if (count < 0) return std::nullopt;
        data.resize(static_cast<std::size_t>(count));
        return data;
    }
    /// The port that the last datagram came from.
    [[nodiscard]] std::uint16_t from() const { return ntohs(from_.sin_port); }

private:
    UniqueFd fd_;
    bool bound_ = false;
    std::uint16_t port_ = 0;
    sockaddr_in from_{};
};

/// Two sockets with ports one behind the other, the lower even.
std::pair<Peer, Peer> peer_pair() {
    for (;;) {
        Peer first;
        if (first.port() % 2 != 0) continue;
        Peer second(static_cast<std::uint16_t>(first.port() + 1));
        if (second.bound()) return {std::move(first), std::move(second)};
    }
}

using Packet = std::vector<std::uint8_t>;

std::uint16_t number_of(const Packet& packet) { return ByteView(packet).u16(2); }
std::uint32_t timestamp_of(const Packet& packet) { return ByteView(packet).u32(4); }

/// An engine with one stream, fed over UDP by a device.
class Relay {
public:
    explicit Relay(bool offloads = true, std::size_t picture_size = 1500) : engine_(1), source_(source_ssrc, picture_size) {
        if (!offloads) engine_.forgo_offloads();
        stream_ = engine_.create_stream();
        ReceiverSpec spec;
        spec.host = "127.0.0.1";
        spec.ssrc = source_ssrc;
        spec.payloads = {{96, "PS"}};
        spec.expected_hosts = {"127.0.0.1"};
        receiver_ = open([&](std::uint16_t port) {
            spec.port = receiver_port_ = port;
            return engine_.open_receiver(spec);
        });
        CHECK(engine_.attach(receiver_, stream_));
    }

    SinkId add(Peer& to, bool sending = true) {
        RtpSinkSpec spec;
        spec.host = "127.0.0.1";
        spec.ssrc = sink_ssrc;
        spec.payload_type = 98;
        spec.remote = {{"127.0.0.1", to.port()}};
        const SinkId id = open([&](std::uint16_t port) {
            spec.port = sink_port = port;
            return engine_.add_rtp_sink(stream_, spec);
        });
        if (sending) send(id);
        return id;
    }
    void send(SinkId id, bool wanted = true) {
        RtpSinkUpdate update;
        update.sending = wanted;
        engine_.update_rtp_sink(id, update);
    }
    /// The device sends its next picture; the packets.
    std::vector<Packet> picture() {
        std::vector<Packet> packets = source_.next();
        for (const Packet& packet : packets) device_.send(packet, receiver_port_);
        sent_ += packets.size();
        return packets;
    }
    /// All that was sent has been taken.
    void settle() {
        CHECK(until([this] { return engine_.receiver_facts(receiver_)->packets == sent_; }));
    }
    [[nodiscard]] StreamCounters counters() { return *engine_.stream_counters(stream_); }
    [[nodiscard]] RtpSinkFacts facts(SinkId id) { return *engine_.rtp_sink_facts(id); }
    /// Notices so far.
    std::vector<Notice>& notices() {
        engine_.take_notices(notices_);
        return notices_;
    }
    [[nodiscard]] std::string reason_of(SinkId id) {
        for (const Notice& notice : notices()) {
            const auto* const event = std::get_if<Event>(&notice);
            if (event != nullptr && event->kind == EventKind::sink_closed && event->id == id) return event->detail;
        }
        return {};
    }
    [[nodiscard]] std::size_t frames_of(SinkId id) {
        const auto& all = notices();
        return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [id](const Notice& notice) {
            const auto* const frame = std::get_if<FrameNotice>(&notice);
            return frame != nullptr && frame->sink == id;
        }));
    }

    template <class Open>
    std::uint64_t open(Open&& at) {
        for (;;) {
            Peer free;
            const auto port = static_cast<std::uint16_t>(free.port() & 0xFFFEU);
            free = Peer();
            const auto outcome = at(port);
            if (outcome.error == 0) return outcome.value;
            CHECK(outcome.error == EADDRINUSE);
        }
    }

    Engine engine_;
    RtpSource source_;
    Peer device_;
    StreamKey stream_ = 0;
    ReceiverId receiver_ = 0;
    std::uint16_t receiver_port_ = 0;
    std::uint16_t sink_port = 0;
    std::uint64_t sent_ = 0;
    std::vector<Notice> notices_;
};

/// `got` is `source` with another head: same marker, timestamp and payload.
void check_forwarded(const Packet& got, const Packet& source, std::uint16_t offset) {
    CHECK(got.size() == source.size());
    CHECK(got[0] == source[0]);
    CHECK(got[1] == ((source[1] & 0x80U) | 98U));
    CHECK(number_of(got) == static_cast<std::uint16_t>(number_of(source) + offset));
    CHECK(timestamp_of(got) == timestamp_of(source));
    CHECK(ByteView(got).u32(8) == sink_ssrc);
    CHECK(std::equal(got.begin() + 12, got.end(), source.begin() + 12));
}

void check_all_forwarded(Peer& peer, const std::vector<Packet>& sources) {
    std::optional<std::uint16_t> offset;
    for (const Packet& source : sources) {
        const auto got = peer.receive();
        CHECK(got.has_value());
        if (!offset) offset = static_cast<std::uint16_t>(number_of(*got) - number_of(source));
        check_forwarded(*got, source, *offset);
    }
    CHECK(!peer.receive(0.02));
}

void add_to(std::vector<Packet>& all, const std::vector<Packet>& more) { all.insert(all.end(), more.begin(), more.end()); }

void packets_pass_with_a_head_of_their_own(bool offloads) {
    Relay relay(offloads, 20'000);
    Peer peer;
    const SinkId id = relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 0; count < 25; ++count) add_to(sources, relay.picture());
    check_all_forwarded(peer, sources);
    CHECK(peer.from() == relay.sink_port);
    CHECK(until([&] { return relay.facts(id).packets == sources.size(); }));
    const RtpSinkFacts facts = relay.facts(id);
    CHECK(facts.passthrough);
    CHECK(facts.dropped == 0);
    CHECK(std::string(facts.remote.data()) == "127.0.0.1:" + std::to_string(peer.port()));
    std::size_t bytes = 0;
    for (const Packet& source : sources) bytes += source.size();
    CHECK(facts.bytes == bytes);
}

void nothing_is_sent_before_it_is_told_and_then_the_kept_group_first() {
    Relay relay;
    Peer peer;
    const SinkId id = relay.add(peer, false);
    std::vector<Packet> sources;
    for (int count = 0; count < 14; ++count) {
        const std::vector<Packet> packets = relay.picture();
        if (count == 10) sources.clear();  // a group has ten pictures
        add_to(sources, packets);
    }
    relay.settle();
    CHECK(!peer.receive(0.02));
    relay.send(id);
    for (int count = 0; count < 3; ++count) add_to(sources, relay.picture());
    check_all_forwarded(peer, sources);
}

void sink_waits_for_a_key_frame_and_numbers_go_on_over_a_pause() {
    Relay relay;
    for (int count = 0; count < 5; ++count) (void)relay.source_.next();  // the device was there before us
    Peer peer;
    const SinkId id = relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 5; count < 12; ++count) {
        const std::vector<Packet> packets = relay.picture();
        if (count >= 10) add_to(sources, packets);
    }
    check_all_forwarded(peer, sources);
    CHECK(relay.facts(id).packets == sources.size());
    relay.send(id, false);
    sources.clear();
    for (int count = 12; count < 22; ++count) {
        const std::vector<Packet> packets = relay.picture();
        if (count >= 20) add_to(sources, packets);
    }
    relay.settle();
    CHECK(!peer.receive(0.02));
    relay.send(id);  // begins anew, at the key frame that is kept
    for (int count = 0; count < 2; ++count) add_to(sources, relay.picture());
    check_all_forwarded(peer, sources);
}

void late_sink_begins_with_what_is_kept() {
    Relay relay;
    std::vector<Packet> sources;
    for (int count = 0; count < 14; ++count) {
        const std::vector<Packet> packets = relay.picture();
        if (count >= 10) add_to(sources, packets);
    }
    relay.settle();
    Peer peer;
    relay.add(peer);
    add_to(sources, relay.picture());
    check_all_forwarded(peer, sources);
}

void gap_of_the_source_stays_a_gap_of_the_same_width() {
    Relay relay(true, 8'000);
    Peer peer;
    relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 0; count < 4; ++count) add_to(sources, relay.picture());
    std::vector<Packet> torn = relay.source_.next();
    CHECK(torn.size() >= 4);
    torn.erase(torn.begin() + 1, torn.begin() + 3);
    for (const Packet& packet : torn) relay.device_.send(packet, relay.receiver_port_);
    add_to(sources, torn);
    add_to(sources, relay.picture());
    check_all_forwarded(peer, sources);
}

void f09_packets_out_of_turn_leave_in_order() {
    Relay relay(true, 8'000);
    Peer peer;
    relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 0; count < 3; ++count) add_to(sources, relay.picture());
    std::vector<Packet> packets = relay.source_.next();
    add_to(sources, packets);
    std::swap(packets[1], packets[2]);
    for (const Packet& packet : packets) relay.device_.send(packet, relay.receiver_port_);
    check_all_forwarded(peer, sources);
}

void merged_datagrams_are_taken_apart() {
    Relay relay(true, 8'000);
    if (!relay.engine_.has_gro()) return;
    Peer peer;
    relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 0; count < 12; ++count) {
        const std::vector<Packet> packets = relay.source_.next();
        relay.device_.send_merged(packets, relay.receiver_port_);
        add_to(sources, packets);
    }
    check_all_forwarded(peer, sources);
}

void nobody_demultiplexes_for_raw_sinks_alone() {
    Relay relay;
    Peer peer;
    relay.add(peer);
    std::vector<Packet> sources;
    for (int count = 0; count < 3; ++count) add_to(sources, relay.picture());
    relay.settle();
    CHECK(until([&] { return relay.counters().frames_in > 0; }));
    // Sound was not declared: the stream is published with its first key frame.
    std::uint64_t demuxed = 0;
    CHECK(until([&] {
        add_to(sources, relay.picture());
        relay.settle();
        const std::uint64_t before = std::exchange(demuxed, relay.counters().demuxed);
        return before != 0 && before == demuxed;
    }));
    for (int count = 0; count < 33; ++count) add_to(sources, relay.picture());
    relay.settle();
    CHECK(relay.counters().demuxed == demuxed);
    CHECK(relay.counters().frames_in < demuxed);

    // A consumer of frames gets the kept group and all that follows, whole.
    const std::uint64_t sent = relay.sent_;
    const SinkId frames = relay.engine_.add_frame_sink(relay.stream_, {});
    const std::uint64_t pictures = sources.empty() ? 0 : timestamp_of(sources.back()) / 3600 + 1;
    for (int count = 0; count < 10; ++count) add_to(sources, relay.picture());
    // The last picture waits for the next one's first packet or for a frame interval.
    CHECK(until([&] { return relay.frames_of(frames) >= pictures % 10 + 9; }));
    CHECK(relay.counters().demuxed > demuxed);
    CHECK(relay.sent_ > sent);
    const auto& notices = relay.notices();
    const auto first = std::find_if(notices.begin(), notices.end(),
                                    [](const Notice& notice) { return std::holds_alternative<FrameNotice>(notice); });
    CHECK(std::get<FrameNotice>(*first).frame.key);
    std::optional<std::int64_t> last;
    std::size_t key_events = 0;
    for (const Notice& notice : notices) {
        if (const auto* const frame = std::get_if<FrameNotice>(&notice)) {
            CHECK(!frame->frame.damaged);
            CHECK(!last || frame->frame.dts_90k == *last + 3600);
            last = frame->frame.dts_90k;
        } else if (const auto* const event = std::get_if<Event>(&notice)) {
            key_events += event->kind == EventKind::key_frame ? 1 : 0;
        }
    }
    CHECK(key_events == 1);

    // And when it has gone nobody demultiplexes again.
    relay.engine_.close_sink(frames);
    CHECK(until([&] {
        add_to(sources, relay.picture());
        relay.settle();
        const std::uint64_t before = std::exchange(demuxed, relay.counters().demuxed);
        return before == demuxed;
    }));
    check_all_forwarded(peer, sources);
}

void reports_go_both_ways() {
    Relay relay;
    relay.engine_.set_rtcp_times(0.05, 60.0);
    auto [rtp, rtcp] = peer_pair();
    const SinkId id = relay.add(rtp);
    for (int count = 0; count < 5; ++count) relay.picture();
    std::optional<Packet> report;
    std::uint32_t packets = 0;
    CHECK(until([&] {
        report = rtcp.receive();
        packets = report ? ByteView(*report).u32(20) : 0;
        return packets == relay.facts(id).packets && packets == relay.sent_;
    }));
    CHECK(rtcp.from() == relay.sink_port + 1);
    const ByteView view(*report);
    CHECK(view[1] == 200);
    CHECK(view.u32(4) == sink_ssrc);
    const auto reports = parse_sender_reports(view.span());
    CHECK(reports && reports->size() == 1);
    ReportBlock block;
    block.ssrc = sink_ssrc;
    block.cumulative_lost = 7;
    block.last_sender_report = reports->front().middle_ntp();
    block.delay_since_last_sender_report = 0;
    rtcp.send(build_receiver_report(5, block, "peer"), static_cast<std::uint16_t>(relay.sink_port + 1));
    CHECK(until([&] { return relay.facts(id).reported_lost == 7; }));
    CHECK(relay.facts(id).rtt_ms > 0);
    CHECK(relay.facts(id).rtt_ms < 20'000);
    // What was reported once is missed when it stays away.
    relay.engine_.set_rtcp_times(5.0, 0.1);
    CHECK(until([&] { return relay.reason_of(id) == "silent"; }));
}

void peer_whose_port_is_closed_is_gone() {
    Relay relay;
    std::uint16_t closed = 0;
    {
        const Peer peer;
        closed = peer.port();
    }
    RtpSinkSpec spec;
    spec.host = "127.0.0.1";
    spec.ssrc = sink_ssrc;
    spec.stall_s = 0.1;
    spec.remote = {{"127.0.0.1", closed}};
    const SinkId id = relay.open([&](std::uint16_t port) {
        spec.port = port;
        return relay.engine_.add_rtp_sink(relay.stream_, spec);
    });
    relay.send(id);
    CHECK(until([&] {
        relay.picture();
        return relay.reason_of(id) == "viewer_gone";
    }));
}

void ends_are_told_once() {
    Relay relay;
    Peer peer;
    const SinkId first = relay.add(peer);
    const SinkId second = relay.add(peer);
    relay.picture();
    relay.engine_.close_sink(first);
    relay.engine_.close_sink(first);
    CHECK(until([&] { return relay.reason_of(first) == "closed"; }));
    relay.engine_.close_stream(relay.stream_, "stream_closed");
    CHECK(until([&] { return relay.reason_of(second) == "stream_closed"; }));
    const auto& all = relay.notices();
    CHECK(std::count_if(all.begin(), all.end(), [](const Notice& notice) {
              const auto* const event = std::get_if<Event>(&notice);
              return event != nullptr && event->kind == EventKind::sink_closed;
          }) == 2);
    CHECK(!relay.engine_.rtp_sink_facts(first));
}

}  // namespace
}  // namespace gb28181::test

int main() {
    using namespace gb28181::test;
    packets_pass_with_a_head_of_their_own(true);
    packets_pass_with_a_head_of_their_own(false);
    nothing_is_sent_before_it_is_told_and_then_the_kept_group_first();
    sink_waits_for_a_key_frame_and_numbers_go_on_over_a_pause();
    late_sink_begins_with_what_is_kept();
    gap_of_the_source_stays_a_gap_of_the_same_width();
    f09_packets_out_of_turn_leave_in_order();
    merged_datagrams_are_taken_apart();
    nobody_demultiplexes_for_raw_sinks_alone();
    reports_go_both_ways();
    peer_whose_port_is_closed_is_gone();
    ends_are_told_once();
    std::puts("ok");
}
