#include "gb28181/receiver.hpp"

#include <algorithm>
#include <exception>
#include <random>
#include <utility>

#include "gb28181/receiver_tcp.hpp"
#include "gb28181/receiver_udp.hpp"
#include "gb28181/rtp_sink.hpp"
#include "gb28181/shared_port.hpp"
#include "gb28181/rtcp.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {
namespace {

constexpr double report_s = 5.0;                   // receiver reports come so often (MED-31)
constexpr std::uint64_t report_after_packets = 50;  // and only to a source that proved itself (threat S-06)
constexpr std::string_view cname = "g";             // short: two reports stay within 100 bytes (threat S-06)
constexpr double mismatch_wait_s = 1.0;
constexpr unsigned max_logged_failures = 3;
constexpr std::size_t max_pending_units = 1500;
constexpr std::size_t max_pending_bytes = std::size_t{8} * 1024 * 1024;
constexpr std::size_t max_kept_units = 64;  // of scratch space

std::vector<int> payload_types(const Payloads& payloads) {
    std::vector<int> types;
    for (const auto& entry : payloads) types.push_back(entry.first);
    return types;
}

std::uint32_t random_ssrc() {
    std::random_device device;
    return std::uniform_int_distribution<std::uint32_t>()(device);
}

bool is_agreed(const SourceRule& gate, std::uint32_t ssrc) {
    return std::find(gate.agreed().begin(), gate.agreed().end(), ssrc) != gate.agreed().end();
}

}  // namespace

Receiver::Receiver(ReceiverId id, ReceiverSpec spec, BoundSockets sockets, std::shared_ptr<ReceiverBoard> board)
    : id_(id),
      spec_(std::move(spec)),
      payloads_(std::make_shared<const Payloads>(spec_.payloads)),
      board_(std::move(board)),
      shared_(sockets.shared),
      gate_(spec_.ssrc, payload_types(*payloads_), HostSet(spec_.expected_hosts), spec_.strict),
      intake_(payloads_),
      report_ssrc_(random_ssrc()) {
    if (sockets.udp) udp_ = std::make_unique<UdpReceiver>(*this, std::move(sockets.udp), shared_ != nullptr);
    tcp_ = std::make_unique<TcpReceiver>(*this, std::move(sockets.tcp));
}

Receiver::~Receiver() = default;

void Receiver::enter(Worker& worker) {
    worker_ = &worker;
    if (bitrate_at_ == 0) bitrate_at_ = worker.now();
    if (udp_) udp_->enter(worker);
    tcp_->enter(worker);
    alarm_at_ = never;
    tell_shared();
    settle();
}

void Receiver::leave() {
    if (shared_ != nullptr) {
        shared_->post([id = id_](Worker& owner) {
            if (SharedPort* const port = owner.shared_port()) port->left(id);
        });
    }
    if (udp_) udp_->leave(*worker_);
    tcp_->leave(*worker_);
    feed_.end();
    worker_ = nullptr;
}

// ---- control

void Receiver::attach(const std::shared_ptr<Stream>& stream) {
    feed_.end();
    feed_ = stream->begin_generation(*this);
    if (!raw_.entries().empty()) feed_.kept_already();
    std::vector<EsUnit> pending = std::exchange(pending_, {});
    pending_bytes_ = 0;
    if (!pending.empty()) feed_.give(pending, intake_.video_expected(), intake_.audio_expected());
}

void Receiver::update(const ReceiverUpdate& update) {
    if (update.ssrc) gate_.agree(*update.ssrc);
    if (update.payloads) {
        payloads_ = std::make_shared<const Payloads>(*update.payloads);
        gate_.accept_payloads(payload_types(*payloads_));
        intake_.agree(payloads_);
    }
    if (!update.parameter_sets.empty()) {
        sets_ = std::make_shared<const std::vector<Bytes>>(update.parameter_sets);
        intake_.preset(sets_);
    }
    if (update.expected_hosts) gate_.expect(HostSet(*update.expected_hosts));
    if (update.acknowledged) gate_.acknowledged(worker_->refresh_now());
    if (update.listen && shared_ == nullptr && spec_.port != 0 && !tcp_->listens()) {
        if (Outcome<UniqueFd> late = listen_tcp(spec_.host, spec_.port); late.error == 0) {
            tcp_->listen(std::move(late.value));
        }
    }
    if (update.connect) tcp_->dial(update.connect->first, update.connect->second);
    tell_shared();
}

void Receiver::close() {
    closed_ = true;
    if (worker_ != nullptr) leave();
    udp_.reset();
    tcp_.reset();
    feed_.end();
    pending_.clear();
}

// ---- the shared port

void Receiver::tell_shared() {
    if (shared_ == nullptr || worker_ == nullptr || closed_) return;
    SharedMember member;
    member.id = id_;
    member.home = worker_;
    member.agreed = gate_.agreed();
    member.expected = gate_.expected();
    member.strict = gate_.strict();
    member.talks = !talkers_.empty();
    member.source = gate_.source();
    member.ssrc = gate_.ssrc();
    shared_->post([member = std::move(member)](Worker& owner) mutable {
        if (SharedPort* const port = owner.shared_port()) port->joined(std::move(member));
    });
}

void Receiver::refused(std::uint32_t ssrc, const Source& source) {
    gate_.refuse(worker_->now(), ssrc);
    if (gate_.has_mismatch()) note_mismatch(source, worker_->now(), true);
}

void Receiver::adopt(UniqueFd fd, const SocketAddress& peer, ByteView data) {
    tcp_->adopt(std::move(fd), peer, data);
}

// ---- talk

void Receiver::add_talker(SinkId id, Worker& worker) {
    if (talkers_.empty()) talk_peer_ = talk_peer();
    talkers_.push_back({.id = id, .worker = &worker});
    tell_shared();
    if (!talk_peer_.empty()) tell_talk_peer(talkers_.back());
}

void Receiver::remove_talker(SinkId id) {
    std::erase_if(talkers_, [id](const Talker& talker) { return talker.id == id; });
    tell_shared();
}

void Receiver::talk(const std::vector<OutPacket>& packets, const std::optional<SocketAddress>& remote) {
    const auto source = believed();
    std::vector<std::uint8_t> data;
    for (const OutPacket& packet : packets) {
        data.assign(packet.head.begin(), packet.head.begin() + packet.head_size);
        data.insert(data.end(), packet.body.data(), packet.body.data() + packet.body.size());
        if (tcp_->talk(ByteView(data))) continue;
        const ByteView datagram = ByteView(data).from(OutPacket::frame_size);
        if (udp_ && remote) {
            udp_->send(datagram, *remote);
        } else if (udp_ && source) {
            udp_->send(datagram, *source);
        }
    }
}

void Receiver::talk_control(ByteView data, const std::optional<SocketAddress>& remote) {
    if (!udp_ || tcp_->has_talk()) return;
    if (remote) {
        Source target = source_of(remote->get());
        if (target.port < 65535) ++target.port;
        udp_->send_control(data, target);
    } else if (auto target = believed()) {
        if (target->port < 65535) ++target->port;
        udp_->send_control(data, *target);
    }
}

std::string Receiver::talk_peer() const {
    std::string peer = tcp_->talk_peer();
    if (!peer.empty() || !udp_) return peer;
    const auto source = believed();
    return source ? source->text() : std::string();
}

std::optional<Source> Receiver::believed() const {
    const auto& source = gate_.source();
    if (!source || source->connection != 0 || gate_.by_grace() || !gate_.expects(*source)) return std::nullopt;
    return source;
}

void Receiver::look_for_talk_peer() {
    if (talkers_.empty()) return;
    std::string peer = talk_peer();
    if (peer == talk_peer_) return;
    talk_peer_ = std::move(peer);
    for (const Talker& talker : talkers_) tell_talk_peer(talker);
}

void Receiver::tell_talk_peer(const Talker& talker) {
    talker.worker->post([id = talker.id, peer = talk_peer_](Worker& owner) {
        if (RtpSink* const sink = owner.rtp_sink(id)) sink->outlet().peer_is(peer);
    });
}

// ---- packets

Verdict Receiver::packet(ByteView data, const Source& source) {
    if (data.size() < 8 || data[0] >> 6U != 2) {
        ++malformed_;
        return Verdict::drop;
    }
    if (is_rtcp(data)) {
        rtcp_packet(data, source);
        return Verdict::hold;
    }
    if (data.size() < rtp_header_size) {
        ++malformed_;
        return Verdict::drop;
    }
    const std::uint32_t ssrc = data.u32(8);
    try {
        const double now = worker_->now();
        const bool known = gate_.source() == source && gate_.ssrc() == ssrc;
        const Looks opinion = known ? Looks::plausible : looks(data);
        const Verdict verdict = gate_.receive(now, source, ssrc, data[1] & 0x7F, data.u16(2), opinion, data);
        if (verdict == Verdict::accept) {
            accept(data, now);
        } else if (verdict != Verdict::drop && verdict != Verdict::hold) {
            decided(verdict, source, now);
        }
        if (gate_.has_conflict() && gate_.take_conflict()) tell(EventKind::source_conflict, source.text());
        if (gate_.has_mismatch() && verdict != Verdict::accept) {
            note_mismatch(source, now, verdict == Verdict::drop);
        }
        return verdict;
    } catch (const std::exception& error) {
        failed(error.what());
        return Verdict::drop;
    }
}

void Receiver::rtcp_packet(ByteView data, const Source& source) {
    ++rtcp_;
    for (const Talker& talker : talkers_) {
        talker.worker->post([id = talker.id, report = data.copy()](Worker& owner) {
            if (RtpSink* const sink = owner.rtp_sink(id)) sink->heard(ByteView(report));
        });
    }
    const auto& latched = gate_.source();
    if (!latched || latched->host != source.host) return;
    const auto reports = parse_sender_reports(data.span());
    if (!reports) {
        ++malformed_;
        return;
    }
    for (const SenderReport& report : *reports) {
        if (gate_.ssrc() == report.ssrc) {
            statistics_.sender_report(report.middle_ntp(), worker_->now());
            rtcp_peer_ = source;
        }
    }
}

void Receiver::lost_framing(const Source& source) {
    if (gate_.source() == source) intake_.gap();
}

void Receiver::disconnected(const Source& source) {
    if (gate_.source() != source) {
        gate_.forget(source);
        return;
    }
    const double now = worker_->now();
    ordered_.clear();
    reorder_.flush(ordered_);
    take(ordered_, now);
    intake_.flush(units_);
    give();
    gate_.unlatch();
    tell_shared();
}

void Receiver::quirk(std::string_view name, std::string peer) {
    if (std::find(other_quirks_told_.begin(), other_quirks_told_.end(), name) != other_quirks_told_.end()) return;
    other_quirks_told_.push_back(name);
    tell(EventKind::quirk, std::move(peer), {}, std::string(name));
}

void Receiver::quirks(QuirkSet fired) {
    const QuirkSet fresh = fired.without(quirks_told_);
    if (fresh.empty()) return;
    quirks_told_.add(fresh);
    fresh.each([this](Quirk name) { tell(EventKind::quirk, {}, {}, std::string(quirk_name(name))); });
}

// ---- time

void Receiver::settle() {
    if (closed_ || worker_ == nullptr) return;
    double at = intake_.deadline();
    if (const auto waiting = reorder_.deadline()) at = std::min(at, *waiting);
    if (at < alarm_at_) {
        alarm_at_ = at;
        worker_->set_alarm(id_, at);
    }
    worker_->mark(*this);
    look_for_talk_peer();
}

void Receiver::alarm(double now) {
    alarm_at_ = never;
    if (const auto at = reorder_.deadline(); at && now >= *at) {
        ordered_.clear();
        reorder_.poll(now, ordered_);
        take(ordered_, now);
    }
    if (now >= intake_.deadline()) {
        intake_.flush_after(now, units_);
        give();
    }
    settle();
}

void Receiver::tick(double now) {
    quirks(intake_.quirks());
    const auto last = gate_.last_accepted();
    if (last && spec_.silence_s > 0) {
        const bool silent = now - *last >= spec_.silence_s;
        if (silent && !silence_told_) tell(EventKind::silence, source_text());
        silence_told_ = silent;
    }
    const double passed = now - bitrate_at_;
    if (passed >= 1.0) {
        const double kbps = static_cast<double>(bytes_ - bitrate_bytes_) * 8 / 1000 / passed;
        if (kbps != bitrate_kbps_) {
            bitrate_kbps_ = kbps;
            worker_->mark(*this);
        }
        bitrate_at_ = now;
        bitrate_bytes_ = bytes_;
    }
    if (udp_) udp_->tick(now);
    tcp_->tick(now);
}

std::vector<std::uint8_t> Receiver::due_report(double now) {
    const auto ssrc = gate_.ssrc();
    if (!ssrc || packets_ < report_after_packets || now < report_at_) return {};
    if (now - gate_.last_accepted().value_or(0.0) > report_s) return {};
    report_at_ = now + report_s;
    return build_receiver_report(report_ssrc_, statistics_.report_block(*ssrc, now), cname);
}

// ---- facts

void Receiver::add_sums(ReceiverFacts& facts) const {
    facts.lost += std::max<std::int64_t>(
        0, static_cast<std::int64_t>(reorder_.lost()) - static_cast<std::int64_t>(reorder_.late()));
    facts.reordered += reorder_.reordered();
    facts.duplicated += reorder_.duplicated();
    facts.late += reorder_.late();
    facts.demux_errors += intake_.errors();
}

void Receiver::publish() {
    if (gate_.source() != published_source_) {
        published_source_ = gate_.source();
        earlier_.source = {};
        source_text().copy(earlier_.source.data(), earlier_.source.size() - 1);
    }
    ReceiverFacts facts = earlier_;
    add_sums(facts);
    facts.packets = packets_;
    facts.bytes = bytes_;
    facts.foreign = gate_.foreign();
    facts.malformed = malformed_;
    facts.rtcp = rtcp_;
    facts.jitter_ms = statistics_.jitter_ms();
    facts.bitrate_kbps = bitrate_kbps_;
    facts.frames = frames_;
    facts.key_frames = key_frames_;
    facts.ssrc = gate_.ssrc().value_or(0);
    facts.has_ssrc = gate_.ssrc().has_value();
    board_->facts.store(facts);
}

void Receiver::tell(EventKind kind, std::string peer, std::optional<std::uint32_t> ssrc, std::string detail) {
    if (closed_ || worker_ == nullptr) return;
    Event event;
    event.target = Target::receiver;
    event.id = id_;
    event.kind = kind;
    event.stream = feed_.key();
    event.peer = std::move(peer);
    event.ssrc = ssrc;
    event.detail = std::move(detail);
    worker_->tell(std::move(event));
}

// ---- within

void Receiver::failed(std::string_view error) {
    // A reader failed on a packet: our mistake. It is told, and a fresh reader goes on (invariant I8).
    worker_->shared().failures.fetch_add(1, std::memory_order_relaxed);
    if (++failures_ <= max_logged_failures) {
        worker_->tell(Complaint{"a packet of receiver " + std::to_string(id_) +
                                " could not be handled: " + std::string(error)});
    }
    units_.clear();
    intake_ = Intake(payloads_, sets_);
}

std::string Receiver::source_text() const { return gate_.source() ? gate_.source()->text() : std::string(); }

Looks Receiver::looks(ByteView data) const {
    // Is it RTP of media? Asked only of packets whose source is not accepted yet.
    const auto packet = RtpPacket::parse(data);
    return packet ? intake_.looks(*packet) : Looks::nothing;
}

void Receiver::decided(Verdict verdict, const Source& source, double now) {
    // The gate accepted a source or an epoch; its held packets follow.
    const std::vector<Buffer> held = gate_.take_held();
    const auto ssrc = gate_.ssrc();
    tell_shared();
    if (verdict != Verdict::switched) restart(source);
    if (verdict == Verdict::latched) {
        if (!first_told_) {
            first_told_ = true;
            tell(EventKind::first_packet, source.text(), ssrc);
        }
    } else if (verdict != Verdict::epoch) {
        tell(EventKind::source_switched, source.text(), ssrc,
             verdict == Verdict::switched ? "same_stream" : "expected_address");
        rtcp_peer_.reset();
    }
    if (ssrc && !is_agreed(gate_, *ssrc)) {
        tell(EventKind::ssrc_mismatch, source.text(), ssrc,
             "accepted: " + std::string(ssrc_variant(*ssrc, gate_.agreed())));
        (void)gate_.take_mismatch();
        mismatch_since_.reset();
        QuirkSet fired;
        fired.add(Quirk::rtp_ssrc_mismatch);
        quirks(fired);
    }
    for (const Buffer& data : held) accept(data, now);
}

void Receiver::note_mismatch(const Source& source, double now, bool refused) {
    // An SSRC fits nothing agreed. It may still be accepted; after a second of waiting it was not.
    if (!mismatch_since_) mismatch_since_ = now;
    if (!refused && now - *mismatch_since_ < mismatch_wait_s) return;
    mismatch_since_.reset();
    const auto mismatch = gate_.take_mismatch();
    tell(EventKind::ssrc_mismatch, source.text(), mismatch,
         "not accepted: " + std::string(ssrc_variant(mismatch.value_or(0), gate_.agreed())));
}

void Receiver::accept(ByteView data, double now) {
    ++packets_;
    bytes_ += data.size();
    const auto packet = RtpPacket::parse(data);
    if (!packet) {
        ++malformed_;
        return;
    }
    if (!began_) {
        began_ = true;
        const auto entry = payloads_->find(packet->payload_type);
        statistics_ = ReceptionStatistics(rtp_clock_rate(entry != payloads_->end() ? entry->second : ""));
    }
    statistics_.update(packet->sequence_number, packet->timestamp, now);
    if (reorder_.pass(*packet)) {
        pass(*packet, now);
        return;
    }
    ordered_.clear();
    reorder_.push(*packet, now, ordered_);
    take(ordered_, now);
}

void Receiver::take(std::vector<Ordered>& ordered, double now) {
    for (const Ordered& item : ordered) {
        if (item.is_gap) {
            intake_.gap();
            raw_.gap();
            if (item.restart) feed_.new_sequence();
            continue;
        }
        pass(item.packet, now);
    }
    ordered.clear();
}

void Receiver::pass(const RtpPacket& packet, double now) {
    if (!intake_.carries_program(packet.payload_type)) {
        // Which reader takes a payload is known when the first packet was read.
        read(packet, now);
        if (intake_.carries_program(packet.payload_type)) {
            (void)keep_packet(packet, now);
        } else if (!intake_.has_program()) {
            feed_.no_program();
        }
        return;
    }
    const std::uint64_t wakes = wakes_;
    const RawGroup::Place place = keep_packet(packet, now);
    if (wakes != wakes_ && !raw_.entries().empty()) return;  // read with what is kept
    if (!feed_.rests()) {
        read(packet, now);
        return;
    }
    // Pictures as far as they are told from outside.
    frames_ += rest_timestamp_ != packet.timestamp ? 1 : 0;
    rest_timestamp_ = packet.timestamp;
    key_frames_ += place == RawGroup::Place::beginning ? 1 : 0;
}

RawGroup::Place Receiver::keep_packet(const RtpPacket& packet, double now) {
    const RawGroup::Place place = raw_.add(packet, now, feed_.hint());
    feed_.packet(raw_.last(), place);
    return place;
}

void Receiver::read(const RtpPacket& packet, double now) {
    feed_.count_demuxed();
    intake_.push(packet, now, units_);
    if (!units_.empty()) give();
}

void Receiver::wake() {
    ++wakes_;
    intake_.gap();
    counts_ = false;
    std::optional<std::uint16_t> last;
    for (const RawGroup::Entry& entry : raw_.entries()) {
        const auto packet = RtpPacket::parse(entry.datagram);
        if (!packet) continue;
        if (last && packet->sequence_number != static_cast<std::uint16_t>(*last + 1)) intake_.gap();
        last = packet->sequence_number;
        read(*packet, entry.arrival);
    }
    counts_ = true;
    settle();
}

void Receiver::give() {
    for (const EsUnit& unit : units_) {
        if (!counts_) break;
        ++frames_;
        key_frames_ += unit.key && unit.track->kind == TrackKind::video ? 1 : 0;
    }
    quirks(intake_.quirks());
    if (!feed_) {
        keep();
    } else if (!units_.empty()) {
        feed_.give(units_, intake_.video_expected(), intake_.audio_expected());
    }
    units_.clear();
    if (units_.capacity() > max_kept_units) units_.shrink_to_fit();
}

void Receiver::keep() {
    for (EsUnit& unit : units_) {
        if (unit.key && unit.track->kind == TrackKind::video) {
            pending_.clear();
            pending_bytes_ = 0;
        }
        pending_bytes_ += unit.payload.size();
        pending_.push_back(std::move(unit));
    }
    if (pending_bytes_ > max_pending_bytes || pending_.size() > max_pending_units) {
        pending_.clear();
        pending_bytes_ = 0;
    }
}

void Receiver::restart(const Source& source) {
    // A new epoch: nothing of the old chain reaches the new one.
    ReceiverFacts sums = earlier_;  // the source goes with it, and `publish` corrects it
    add_sums(sums);
    // What comes over one connection is in order; there a missing number is a loss at once.
    reorder_ = source.connection == 0 ? ReorderBuffer() : ReorderBuffer(0, 0);
    if (!began_) return;
    earlier_ = sums;
    intake_ = Intake(payloads_, sets_);
    began_ = false;
    pending_.clear();
    pending_bytes_ = 0;
    raw_.clear();
    feed_ = feed_.renewed(*this);
}

}  // namespace gb28181
