#include "gb28181/rtp_sink.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "gb28181/nal.hpp"
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

/// The parameter sets that a peer needs to begin at this key frame, where they came apart from it.
Buffer missing_sets(const Frame& frame) {
    const Codec codec = frame.track->codec;
    if ((codec != Codec::h264 && codec != Codec::h265) || frame.track->parameter_sets.empty()) return {};
    bool found = false;
    nal::each_unit(frame.payload.view(), [&](ByteView unit) {
        const int kind = nal::nal_type(codec, unit[0]);
        found = nal::is_parameter_set(codec, kind);
        return !found && !nal::is_vcl(codec, kind);
    });
    if (found) return {};
    ByteBuilder sets;
    for (const Bytes& set : frame.track->parameter_sets) {
        sets.append_u32(1);
        sets.append(ByteView(set));
    }
    return sets.finish();
}

void put_u32(std::uint8_t* place, std::uint32_t value) noexcept {
    put_u16(place, value >> 16U);
    put_u16(place + 2, value);
}

}  // namespace

RtpSink::RtpSink(SinkId id, RtpSinkSpec spec, SinkSockets sockets, std::shared_ptr<RtpSinkBoard> board)
    : id_(id), spec_(std::move(spec)), board_(std::move(board)), next_sequence_(random_sequence()) {
    OutletOwner& self = *this;
    if (spec_.transport == Transport::udp) {
        outlet_ = std::make_unique<UdpOutlet>(self, std::move(sockets.udp), spec_.stall_s);
    } else {
        outlet_ = std::make_unique<TcpOutlet>(self, std::move(sockets.tcp), spec_.transport == Transport::tcp_active,
                                              spec_.host, HostSet(spec_.expected_hosts), spec_.stall_s);
    }
}

RtpSink::RtpSink(SinkId id, RtpSinkSpec spec, Worker& home, std::shared_ptr<RtpSinkBoard> board)
    : id_(id), spec_(std::move(spec)), board_(std::move(board)), next_sequence_(random_sequence()) {
    OutletOwner& self = *this;
    outlet_ = std::make_unique<ThroughOutlet>(self, id, spec_.through, home);
}

RtpSink::~RtpSink() = default;

void RtpSink::open(Worker& worker, std::shared_ptr<Stream> stream) {
    worker_ = &worker;
    stream_ = std::move(stream);
    outlet_->enter(worker);
    note_remote();
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
    stream_->start(*this);
    publish();
}

void RtpSink::close(std::string_view reason) {
    if (closed_) return;
    closed_ = true;
    drop_queue();
    publish();
    if (worker_ != nullptr) {
        if (facts_.packets > 0) outlet_->report(ByteView(build_goodbye(spec_.ssrc, cname)));
        outlet_->leave();
        worker_->forget(*this, reason);  // last: it gives this away
    }
}

// ---- from the stream

void RtpSink::begin(const std::vector<RawGroup::Entry>& group) {
    const std::size_t before = queued_bytes_;
    if (before > spec_.queue_bytes) return;
    started_ = true;
    skipping_ = false;
    for (const RawGroup::Entry& entry : group) forward(entry.datagram);
    if (before == 0) exempt_ = queued_bytes_;
    pacing_ = !outlet_->is_connection() && queued_bytes_ > pace_bytes;
}

void RtpSink::packet(const Buffer& datagram) {
    if (!sending_ || closed_) return;
    if (started_ && !skipping_ && is_full(datagram.size())) skipping_ = true;
    if (!started_ || skipping_) {
        dropped();
        return;
    }
    forward(datagram);
}

bool RtpSink::wants(Role role, Codec codec) const noexcept {
    if (spec_.packing == Packing::es) return codec == spec_.codec;
    if (role == Role::made_audio) return false;
    return role == Role::video ? spec_.video : spec_.audio;
}

void RtpSink::write(const Frame& frame, const RoleTracks& tracks, bool key, bool kept) {
    if (!sending_ || closed_ || !outlet_->ready()) return;
    if (!kept && started_ && !skipping_ && is_full(frame.payload.size())) skipping_ = true;
    if (!started_ || skipping_) {
        if (!key || queued_bytes_ > spec_.queue_bytes) {
            dropped();
            return;
        }
        started_ = true;
        skipping_ = false;
    }
    facts_.passthrough = false;
    rebase_ = true;
    const bool begins = frame.key && is_video(frame.track->codec);
    const Buffer head = begins ? missing_sets(frame) : Buffer();
    if (spec_.packing == Packing::ps) {
        mux(frame, head, tracks);
    } else {
        clock_rate_ = payload_clock(*frame.track);
        es_.packetise(frame, head, [this](RtpPiece piece) { enqueue(std::move(piece)); });
    }
    if (kept) exempt_ = queued_bytes_;
    if (kept) pacing_ = !outlet_->is_connection() && queued_bytes_ > pace_bytes;
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
        if (taken.any) progress_at_ = worker_->now();
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
        close(outlet_->is_connection() ? "slow" : "viewer_gone");
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
    stream_->start(*this);
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

void RtpSink::outlet_ready() {
    if (closed_) return;
    note_remote();
    stream_->start(*this);
    publish();
}

void RtpSink::outlet_gone() { close("viewer_gone"); }

void RtpSink::outlet_rtcp(ByteView data) {
    if (closed_) return;
    const ReportOf found = parse_report_of(data.span(), spec_.ssrc);
    if (!found.readable) return;
    heard_at_ = worker_->refresh_now();
    if (!found.block) return;
    facts_.reported_lost = std::max(0, found.block->cumulative_lost);
    for (const SentReport& report : reports_) {
        if (report.middle_ntp == 0 || report.middle_ntp != found.block->last_sender_report) continue;
        // 6.4.1, by our own clock, which does not step.
        const double trip = *heard_at_ - report.at - found.block->delay_since_last_sender_report / 65536.0;
        facts_.rtt_ms = std::max(0.0, trip * 1000);
    }
    publish();
}

// ---- within

bool RtpSink::is_full(std::size_t size) const noexcept {
    if (!full_ && !pacing_) return false;  // what this turn queued is no sign of a slow peer
    const std::size_t late = queued_bytes_ - exempt_;
    return late > 0 && late + size > spec_.queue_bytes;
}

void RtpSink::forward(const Buffer& datagram) {
    const std::uint8_t* const source = datagram.data();
    const auto number = static_cast<std::uint16_t>(source[2] << 8U | source[3]);
    if (rebase_) {
        rebase_ = false;
        facts_.passthrough = true;
        clock_rate_ = 90'000;
        // One number is left out where another sequence goes on: the peer shall not join what does not fit.
        const int left_out = facts_.packets > 0 || !queue_.empty() ? 1 : 0;
        offset_ = static_cast<std::uint16_t>(next_sequence_ + left_out - number);
    }
    const auto ours = static_cast<std::uint16_t>(number + offset_);
    next_sequence_ = static_cast<std::uint16_t>(ours + 1);
    OutPacket& packet = queue_.emplace_back();
    std::uint8_t* const rtp = packet.head.data() + OutPacket::frame_size;
    rtp[0] = source[0];
    rtp[1] = static_cast<std::uint8_t>((source[1] & 0x80U) | spec_.payload_type);
    put_u16(rtp + 2, ours);
    std::memcpy(rtp + 4, source + 4, 4);
    put_u32(rtp + 8, spec_.ssrc);
    packet.body = datagram.slice(rtp_header_size, datagram.size());
    put_u16(packet.head.data(), static_cast<std::uint32_t>(packet.size()));
    enqueued(packet);
}

void RtpSink::mux(const Frame& frame, const Buffer& head, const RoleTracks& tracks) {
    const TrackPtr& video = tracks[static_cast<std::size_t>(Role::video)];
    const TrackPtr& audio = tracks[static_cast<std::size_t>(Role::audio)];
    const auto codec_of = [](bool wanted, const TrackPtr& track) {
        return wanted && track ? std::optional<Codec>(track->codec) : std::nullopt;
    };
    const auto video_codec = codec_of(spec_.video, video);
    const auto audio_codec = codec_of(spec_.audio, audio);
    bool with_map = false;
    if (!ps_ || ps_->video() != video_codec || ps_->audio() != audio_codec) {
        with_map = ps_.has_value();  // a track came: the map must not wait for the next key frame
        ps_.emplace(video_codec, audio_codec);
    }
    clock_rate_ = 90'000;
    cut(ps_->mux(frame, head, with_map), static_cast<std::uint32_t>(frame.dts_90k),
        [this](RtpPiece piece) { enqueue(std::move(piece)); });
}

void RtpSink::enqueue(RtpPiece piece) {
    OutPacket& packet = queue_.emplace_back();
    std::uint8_t* const rtp = packet.head.data() + OutPacket::frame_size;
    rtp[0] = 0x80;
    rtp[1] = static_cast<std::uint8_t>((piece.marker ? 0x80U : 0U) | spec_.payload_type);
    put_u16(rtp + 2, next_sequence_++);
    put_u32(rtp + 4, piece.timestamp);
    put_u32(rtp + 8, spec_.ssrc);
    std::memcpy(rtp + rtp_header_size, piece.prefix.data(), piece.prefix.size());
    packet.head_size = static_cast<std::uint8_t>(packet.head_size + piece.prefix_size);
    packet.body = std::move(piece.body);
    put_u16(packet.head.data(), static_cast<std::uint32_t>(packet.size()));
    enqueued(packet);
}

void RtpSink::enqueued(const OutPacket& packet) {
    if (waiting() == 1) progress_at_ = worker_->now();
    queued_bytes_ += packet.size();
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
    last_sent_at_ = worker_->now();
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

void RtpSink::dropped() {
    if (facts_.packets == 0) return;  // nothing has begun
    ++facts_.dropped;
    worker_->mark(*this);
}

void RtpSink::begin_anew() noexcept {
    started_ = false;
    skipping_ = false;
    rebase_ = true;
}

void RtpSink::pause() noexcept {
    begin_anew();
    drop_queue();
}

void RtpSink::drop_queue() noexcept {
    // What the kernel has a part of must go on, or the framing is lost.
    const std::size_t kept = outlet_->is_inside() && waiting() > 0 ? 1 : 0;
    facts_.dropped += waiting() - kept;
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(first_));
    queue_.resize(kept);
    first_ = exempt_ = 0;
    queued_bytes_ = kept != 0 ? queue_.front().size() : 0;
    pacing_ = false;
}

void RtpSink::report(double now) {
    report_at_ = now + worker_->shared().rtcp_report_s.load(std::memory_order_relaxed);
    SenderFacts facts;
    facts.ssrc = spec_.ssrc;
    facts.ntp_time = ntp_time(wall_s());
    facts.rtp_timestamp =
        last_timestamp_ + static_cast<std::uint32_t>(std::max(0.0, now - last_sent_at_) * clock_rate_);
    facts.packet_count = static_cast<std::uint32_t>(facts_.packets);
    facts.octet_count = static_cast<std::uint32_t>(octets_);
    reports_[next_report_++ % reports_.size()] = {.middle_ntp = static_cast<std::uint32_t>(facts.ntp_time >> 16U),
                                                  .at = now};
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
