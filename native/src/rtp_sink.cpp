#include "gb28181/rtp_sink.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "gb28181/rtcp.hpp"
#include "gb28181/stream.hpp"

namespace gb28181 {
namespace {

// The kept group leaves at about 100 Mbit/s: a key frame and its group reach a peer within a tenth of a second or two,
// in portions that the smallest usual socket buffer (208 kB) holds.
constexpr std::size_t pace_bytes = std::size_t{48} * 1024;
constexpr double pace_s = 0.004;
constexpr std::string_view cname = "g";
constexpr std::size_t max_kept_packets = 64;  // of queue space

double wall_s() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::uint16_t random_sequence() {
    std::random_device device;
    return static_cast<std::uint16_t>(device());
}

void put_u16(std::uint8_t* place, std::uint32_t value) noexcept {
    place[0] = static_cast<std::uint8_t>(value >> 8U);
    place[1] = static_cast<std::uint8_t>(value);
}

void put_u32(std::uint8_t* place, std::uint32_t value) noexcept {
    put_u16(place, value >> 16U);
    put_u16(place + 2, value);
}

}  // namespace

RtpSink::RtpSink(SinkId id, RtpSinkSpec spec, SinkSockets sockets, std::shared_ptr<RtpSinkBoard> board)
    : id_(id), spec_(std::move(spec)), board_(std::move(board)), next_sequence_(random_sequence()) {
    OutletOwner& self = *this;
    outlet_ = std::make_unique<UdpOutlet>(self, std::move(sockets.udp), spec_.stall_s);
}

RtpSink::~RtpSink() = default;

void RtpSink::open(Worker& worker, std::shared_ptr<Stream> stream) {
    worker_ = &worker;
    stream_ = std::move(stream);
    outlet_->enter(worker);
    RtpSinkUpdate aimed;
    aimed.remote = std::exchange(spec_.remote, {});
    update(aimed);
}

void RtpSink::update(const RtpSinkUpdate& update) {
    if (closed_) return;
    if (update.ssrc) spec_.ssrc = *update.ssrc;
    if (update.payload_type) spec_.payload_type = *update.payload_type;
    if (update.remote && update.remote != spec_.remote) {
        spec_.remote = update.remote;
        const auto remote = SocketAddress::parse(update.remote->first, update.remote->second);
        if (remote) {
            outlet_->aim(*remote);
            note_remote();
        } else {  // names are not looked up on this path
            outlet_failed(address_text(update.remote->first, update.remote->second), "not_an_address");
        }
        if (closed_) return;
    }
    if (update.sending && *update.sending != sending_) {
        sending_ = *update.sending;
        if (sending_) {
            sending_since_ = report_at_ = worker_->refresh_now();
            outlet_->begin();
        } else {
            pause();
        }
        if (closed_) return;
    }
    if (can_start()) stream_->start(*this);
    publish();
}

void RtpSink::close(std::string_view reason) {
    if (closed_) return;
    closed_ = true;
    queue_.clear();
    first_ = queued_bytes_ = exempt_ = 0;
    publish();
    if (worker_ != nullptr) {
        outlet_->leave();
        worker_->forget(*this, reason);  // last: it gives this away
    }
}

// ---- from the stream

void RtpSink::start(const std::vector<RawGroup::Entry>& group) {
    started_ = true;
    skipping_ = false;
    rebase_ = true;
    facts_.passthrough = true;
    for (const RawGroup::Entry& entry : group) enqueue(entry.datagram);
    exempt_ = queued_bytes_;
    pacing_ = !outlet_->is_connection() && queued_bytes_ > pace_bytes;
    progress_at_ = worker_->now();
}

void RtpSink::packet(const Buffer& datagram, bool beginning) {
    if (!started_) {
        if (!beginning || !can_start()) return;
        start({});
    }
    if (beginning) skipping_ = false;
    if ((full_ || pacing_) && queued_bytes_ - exempt_ + datagram.size() > spec_.queue_bytes) skipping_ = true;
    if (skipping_) {
        ++facts_.dropped;
        return;
    }
    enqueue(datagram);
}

void RtpSink::new_source() noexcept {
    if (started_) begin_anew();
}

// ---- from the worker

void RtpSink::flush() {
    if (closed_) return;
    const double now = worker_->now();
    // What came live behind the group makes the portions larger: a fast stream must not queue up behind them.
    std::size_t portion = pacing_ ? pace_bytes + (queued_bytes_ - exempt_) / 4 : queued_bytes_;
    if (pacing_ && now < pace_at_) portion = 0;
    while (!full_ && waiting() > 0 && portion > 0) {
        std::size_t count = waiting();
        if (pacing_) {
            std::size_t bytes = 0;
            count = 0;
            while (count < waiting() && bytes < portion) bytes += queue_[first_ + count++].size();
            portion -= std::min(portion, bytes);
        }
        const RtpOutlet::Taken taken = outlet_->send({queue_.data() + first_, count});
        sent(taken.packets);
        skip(taken.lost);
        if (taken.gone) {
            close("viewer_gone");
            return;
        }
        full_ = taken.full;
    }
    if (waiting() == 0) {
        queue_.clear();
        if (queue_.capacity() > max_kept_packets * 4) queue_ = {};
        first_ = exempt_ = 0;
        pacing_ = false;
    } else if (first_ > waiting()) {
        queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(first_));
        first_ = 0;
    }
    outlet_->wait_writable(full_);
    if (pacing_ && now >= pace_at_) {
        pace_at_ = now + pace_s;
        worker_->set_alarm(id_, pace_at_);
    }
    publish();
}

void RtpSink::alarm() {
    if (!closed_) worker_->mark(*this);
}

void RtpSink::check(double now) {
    if (closed_) return;
    outlet_->tick(now);
    if (closed_) return;
    if (full_ && now - progress_at_ > spec_.stall_s) {
        close("slow");
        return;
    }
    if (heard_at_ && now - *heard_at_ > worker_->shared().rtcp_silence_s.load(std::memory_order_relaxed)) {
        close("silent");
        return;
    }
    if (sending_ && facts_.packets > 0 && now >= report_at_) report(now);
}

// ---- from the outlet

void RtpSink::outlet_connected(const std::string& peer) {
    tell(EventKind::connected, peer);
    note_remote();
    if (can_start()) stream_->start(*this);
    publish();
}

void RtpSink::outlet_failed(const std::string& peer, const std::string& reason) {
    tell(EventKind::connect_failed, peer, reason);
    close("viewer_gone");
}

void RtpSink::outlet_writable() {
    full_ = false;
    flush();
}

void RtpSink::outlet_gone() { close("viewer_gone"); }

void RtpSink::outlet_rtcp(ByteView data) {
    if (closed_) return;
    const ReportOf found = parse_report_of(data.span(), spec_.ssrc);
    if (!found.readable) return;
    heard_at_ = worker_->now();
    if (!found.block) return;
    facts_.reported_lost = found.block->cumulative_lost;
    if (found.block->last_sender_report != 0) {
        // 6.4.1: the middle 32 bits of NTP time, in 1/65536 s; a peer with a wrong delay may make it negative.
        const auto arrival = static_cast<std::uint32_t>(ntp_time(wall_s()) >> 16U);
        const auto trip = static_cast<std::int32_t>(arrival - found.block->last_sender_report -
                                                    found.block->delay_since_last_sender_report);
        if (trip >= 0) facts_.rtt_ms = trip * 1000.0 / 65536;
    }
    publish();
}

// ---- within

void RtpSink::enqueue(const Buffer& datagram) {
    const std::uint8_t* const source = datagram.data();
    const auto number = static_cast<std::uint16_t>(source[2] << 8U | source[3]);
    if (rebase_) {
        rebase_ = false;
        offset_ = static_cast<std::uint16_t>(next_sequence_ - number);
    }
    const auto ours = static_cast<std::uint16_t>(number + offset_);
    next_sequence_ = static_cast<std::uint16_t>(ours + 1);
    OutPacket& packet = queue_.emplace_back();
    std::uint8_t* const head = packet.head.data();
    put_u16(head, static_cast<std::uint32_t>(datagram.size()));
    std::uint8_t* const rtp = head + OutPacket::frame_size;
    rtp[0] = source[0];
    rtp[1] = static_cast<std::uint8_t>((source[1] & 0x80U) | spec_.payload_type);
    put_u16(rtp + 2, ours);
    std::memcpy(rtp + 4, source + 4, 4);
    put_u32(rtp + 8, spec_.ssrc);
    packet.body = datagram.slice(rtp_header_size, datagram.size());
    queued_bytes_ += datagram.size();
    worker_->mark(*this);
}

void RtpSink::sent(std::size_t count) {
    if (count == 0) return;
    std::size_t bytes = 0;
    for (std::size_t index = first_; index < first_ + count; ++index) {
        bytes += queue_[index].size();
        queue_[index].body = {};
    }
    last_timestamp_ = queue_[first_ + count - 1].timestamp();
    last_sent_at_ = progress_at_ = worker_->now();
    first_ += count;
    facts_.packets += count;
    facts_.bytes += bytes;
    octets_ += bytes - count * rtp_header_size;
    queued_bytes_ -= bytes;
    exempt_ -= std::min(exempt_, bytes);
    worker_->mark(*stream_);
}

void RtpSink::skip(std::size_t count) {
    for (std::size_t index = first_; index < first_ + count; ++index) {
        const std::size_t size = queue_[index].size();
        queued_bytes_ -= size;
        exempt_ -= std::min(exempt_, size);
        queue_[index].body = {};
    }
    first_ += count;
    facts_.dropped += count;
}

void RtpSink::begin_anew() noexcept {
    started_ = false;
    skipping_ = false;
    rebase_ = true;
}

void RtpSink::pause() noexcept {
    begin_anew();
    queue_.clear();
    first_ = queued_bytes_ = exempt_ = 0;
    pacing_ = false;
}

void RtpSink::report(double now) {
    report_at_ = now + worker_->shared().rtcp_report_s.load(std::memory_order_relaxed);
    SenderFacts facts;
    facts.ssrc = spec_.ssrc;
    facts.ntp_time = ntp_time(wall_s());
    facts.rtp_timestamp =
        last_timestamp_ + static_cast<std::uint32_t>(std::max(0.0, now - last_sent_at_) * 90'000);
    facts.packet_count = static_cast<std::uint32_t>(facts_.packets);
    facts.octet_count = static_cast<std::uint32_t>(octets_);
    outlet_->report(ByteView(build_sender_report(facts, cname)));
}

void RtpSink::publish() {
    board_->facts.store(facts_);
}

void RtpSink::note_remote() {
    facts_.remote = {};
    outlet_->remote().copy(facts_.remote.data(), facts_.remote.size() - 1);
}

void RtpSink::tell(EventKind kind, std::string peer, std::string detail) {
    Event event;
    event.target = Target::sink;
    event.id = id_;
    event.kind = kind;
    event.stream = stream_ ? stream_->key() : 0;
    event.peer = std::move(peer);
    event.detail = std::move(detail);
    worker_->tell(std::move(event));
}

}  // namespace gb28181
