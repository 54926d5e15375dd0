#include "gb28181/stream.hpp"

#include <algorithm>
#include <utility>

#include "gb28181/rtp_sink.hpp"
#include "gb28181/socket_sink.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {
namespace {

// How long publication waits for declared audio (MED-16), or an audio-only stream for video.
constexpr double audio_wait_s = 0.8;
// Frames on their way to a consumer in Python that does not take them.
constexpr std::size_t max_frame_sink_bytes = std::size_t{32} * 1024 * 1024;

}  // namespace

StreamKey Feed::key() const noexcept { return stream_ ? stream_->key() : 0; }

void Feed::give(std::vector<EsUnit>& units, bool video_expected, bool audio_expected) {
    if (!stream_ || generation_ != stream_->generation()) return;
    stream_->expect(video_expected, audio_expected);
    stream_->take(units);
}

bool Feed::wants_packets() const noexcept {
    return stream_ && generation_ == stream_->generation() && stream_->wants_packets();
}

bool Feed::wants_frames() const noexcept { return !stream_ || stream_->wants_frames(); }

void Feed::count_demuxed() const noexcept {
    if (stream_) stream_->count_demuxed();
}

void Feed::packet(const RtpPacket& packet, double now) const { stream_->packet(packet, now); }

void Feed::new_sequence() const noexcept {
    if (stream_ && generation_ == stream_->generation()) stream_->new_sequence();
}

void Feed::end() noexcept {
    if (stream_) stream_->orphaned(generation_);
    stream_.reset();
}

Feed Feed::renewed(FeedOwner& owner) const { return stream_ ? stream_->begin_generation(owner) : Feed(); }

bool KeptGop::add(Role role, const Frame& frame) {
    if (role == Role::video && frame.key) {
        clear();
    } else if (entries_.empty()) {
        return true;
    }
    entries_.push_back({.role = role, .frame = frame});
    size_bytes_ += frame.payload.size();
    if (size_bytes_ > max_bytes || entries_.size() > max_frames) {
        clear();
        return false;
    }
    return true;
}

void KeptGop::clear() noexcept {
    entries_.clear();
    size_bytes_ = 0;
}

Feed Stream::begin_generation(FeedOwner& owner) {
    ++generation_;
    owner_ = &owner;
    raw_.clear();
    for (RtpSink* sink : rtp_sinks_) sink->new_source();
    demuxes_ = true;
    resuming_ = false;
    await_key_ = true;
    frozen_ = false;
    clock_.restart();
    gop_.clear();
    for (const auto& variant : variants_) variant->clear();
    return {shared_from_this(), generation_};
}

void Stream::expect(bool video, bool audio) noexcept {
    video_expected_ = video;
    audio_expected_ = audio;
}

void Stream::take(std::vector<EsUnit>& units) {
    for (EsUnit& unit : units) {
        const bool is_picture = unit.track->kind == TrackKind::video;
        if (is_picture) {
            if (unit.damaged) {
                frozen_ = true;
            } else if (unit.key) {
                frozen_ = false;
            }
            if (frozen_ || (await_key_ && !unit.key)) {
                frames_frozen_ += frozen_ ? 1 : 0;
                worker_->mark(*this);
                continue;
            }
        }
        take_frame(is_picture ? Role::video : Role::audio, clock_.frame(std::move(unit)));
    }
}

void Stream::packet(const RtpPacket& packet, double now) {
    PictureHint hint;
    if (const TrackPtr& video = track(Role::video)) {
        hint.codec = video->codec;
    } else {
        hint.sound_only = published_;
    }
    const RawGroup::Place place = raw_.add(packet, now, hint);
    const bool beginning = place == RawGroup::Place::beginning;
    for (RtpSink* sink : rtp_sinks_) {
        if (sink->takes_raw()) sink->packet(raw_.last(), beginning);
    }
    if (place != RawGroup::Place::inside) reconsider();
}

void Stream::new_sequence() noexcept {
    raw_.clear();
    for (RtpSink* sink : rtp_sinks_) sink->new_sequence();
}

void Stream::orphaned(std::uint64_t generation) noexcept {
    if (generation == generation_) owner_ = nullptr;
}

bool Stream::needs_frames() const noexcept {
    return raw_sinks_ == 0 || !published_ || !waiting_.empty() || !variants_.empty() || !frame_sinks_.empty() ||
           raw_.entries().empty();
}

bool Stream::reconsider() {
    const bool needed = needs_frames();
    if (needed == demuxes_) return false;
    demuxes_ = needed;
    if (needed) {
        resume();
    } else {
        gop_.clear();  // the packets are kept instead
    }
    return needed;
}

void Stream::resume() {
    // The frames that come are those of the source, later: their clock goes on, the old group is over.
    await_key_ = true;
    frozen_ = false;
    resuming_ = true;
    clock_.restart();
    gop_.clear();
    for (const auto& variant : variants_) variant->clear();
    if (owner_ != nullptr) owner_->resume(raw_.entries());
}

void Stream::push(const Frame& frame) {
    if (frame.track->kind == TrackKind::video) {
        if (!await_key_ || frame.key) take_frame(Role::video, frame);
        return;
    }
    const TrackPtr& source = track(Role::audio);
    const bool made = frame.track->codec == Codec::aac && source && source->codec != Codec::aac;
    take_frame(made ? Role::made_audio : Role::audio, frame);
}

void Stream::tick(double now) {
    if (publish_at_ && now >= *publish_at_) {
        publish_at_.reset();
        if (has_picture() || !video_expected_) publish_stream();
    }
    const QuirkSet fresh = clock_.quirks().without(quirks_told_);  // MED-20, MED-21
    quirks_told_.add(fresh);
    fresh.each([this](Quirk name) { tell(EventKind::quirk, std::string(quirk_name(name))); });
    for (SocketSink* sink : socket_sinks()) sink->check(now);
    const std::vector<RtpSink*> checked = rtp_sinks_;  // one may close
    for (RtpSink* sink : checked) sink->check(now);
    if (!checked.empty()) worker_->mark(*this);  // packets that were demultiplexed are not frames yet
}

void Stream::add_rtp_sink(RtpSink& sink) {
    worker_->mark(*this);
    rtp_sinks_.push_back(&sink);
    raw_sinks_ += sink.takes_raw() ? 1 : 0;
}

void Stream::start(RtpSink& sink) {
    if (sink.takes_raw() && !raw_.entries().empty()) sink.start(raw_.entries());
}

void Stream::add_socket_sink(SocketSink& sink) {
    worker_->mark(*this);
    waiting_.push_back(&sink);
    reconsider();
    if (published_) {
        waiting_.pop_back();
        start(sink);
    }
}

void Stream::add_frame_sink(SinkId id, const FrameSinkSpec& spec, std::shared_ptr<FrameLink> link) {
    FrameSink& sink =
        frame_sinks_.emplace_back(FrameSink{.id = id, .spec = spec, .link = std::move(link), .skipping = false});
    worker_->mark(*this);
    if (reconsider()) return;  // it got the kept group as it was read
    for (const auto& [role, frame] : gop_.entries()) write_to(sink, role, frame);
}

void Stream::remove_frame_sink(SinkId id) {
    std::erase_if(frame_sinks_, [id](const FrameSink& sink) { return sink.id == id; });
    worker_->mark(*this);
    reconsider();
}

void Stream::forget_sink(SocketSink& sink) {
    ended_dropped_ += sink.frames_dropped();
    ended_bytes_ += sink.bytes_out();
    worker_->mark(*this);
    leave(sink);
    reconsider();
}

void Stream::forget_sink(RtpSink& sink) {
    ended_bytes_ += sink.bytes_out();
    worker_->mark(*this);
    if (std::erase(rtp_sinks_, &sink) == 0 || !sink.takes_raw()) return;
    if (--raw_sinks_ != 0) return;
    reconsider();
    raw_.clear();
}

void Stream::leave(SocketSink& sink) {
    if (std::erase(waiting_, &sink) != 0) return;
    for (auto at = variants_.begin(); at != variants_.end(); ++at) {
        if (std::erase((*at)->sinks, &sink) != 0) {
            if ((*at)->sinks.empty()) variants_.erase(at);
            return;
        }
    }
}

void Stream::close(std::string_view reason) {
    ++generation_;
    owner_ = nullptr;
    for (SocketSink* sink : socket_sinks()) sink->close(reason);
    const std::vector<RtpSink*> ended = rtp_sinks_;
    for (RtpSink* sink : ended) sink->close(reason);
    frame_sinks_.clear();
    gop_.clear();
    raw_.clear();
    publish_at_.reset();
}

void Stream::publish() {
    StreamCounters counters;
    counters.sinks = frame_sinks_.size();
    counters.frames_in = frames_in_;
    counters.frames_frozen = frames_frozen_;
    counters.frames_dropped = ended_dropped_ + frame_sinks_dropped_;
    counters.bytes_out = ended_bytes_;
    counters.pictures = pictures_;
    const StreamClock::PictureTimes times = clock_.picture_times();
    counters.picture_90k = times.output_90k;
    counters.device_90k = times.device_90k;
    const auto add = [&counters](const SocketSink& sink) {
        ++counters.sinks;
        counters.frames_dropped += sink.frames_dropped();
        counters.bytes_out += sink.bytes_out();
    };
    for (const SocketSink* sink : waiting_) add(*sink);
    for (const RtpSink* sink : rtp_sinks_) {
        ++counters.sinks;
        counters.bytes_out += sink->bytes_out();
    }
    counters.demuxed = demuxed_;
    for (const auto& variant : variants_) {
        for (const SocketSink* sink : variant->sinks) add(*sink);
    }
    board_->counters.store(counters);
}

void Stream::take_frame(Role role, const Frame& frame) {
    ++frames_in_;
    if (role == Role::video) ++pictures_;
    worker_->mark(*this);
    last_dts_90k_ = frame.dts_90k;
    const bool changed = note_track(role, frame.track);
    bool first_key = false;
    if (role == Role::video && await_key_) {
        await_key_ = false;
        first_key = true;
    }
    if (await_key_ && track(Role::video)) return;  // audio of a new generation waits for its picture
    const bool kept = gop_.add(role, frame);
    dispatch(role, frame, kept);
    if (published_) {
        if (first_key && !std::exchange(resuming_, false)) tell(EventKind::key_frame);
        if (first_key) reconsider();
        if (changed) tell(EventKind::tracks);
        return;
    }
    if (has_picture()) {
        if (track(Role::audio) || !audio_expected_) {
            publish_stream();
            return;
        }
    } else if (video_expected_) {
        return;
    }
    if (!publish_at_) publish_at_ = frame.arrival + audio_wait_s;
}

bool Stream::note_track(Role role, const TrackPtr& track) {
    TrackPtr& known = tracks_[static_cast<std::size_t>(role)];
    if (known == track) return false;
    const bool changed = role != Role::made_audio && (!known || *known != *track);
    known = track;
    if (role != Role::made_audio) board_->set_tracks(source_tracks());
    return changed;
}

std::vector<TrackPtr> Stream::source_tracks() const {
    std::vector<TrackPtr> tracks;
    for (const Role role : {Role::video, Role::audio}) {
        if (const TrackPtr& known = track(role)) tracks.push_back(known);
    }
    return tracks;
}

void Stream::publish_stream() {
    publish_at_.reset();
    published_ = true;
    tell(EventKind::tracks);
    if (has_picture()) tell(EventKind::key_frame);
    for (SocketSink* sink : std::exchange(waiting_, {})) start(*sink);
    reconsider();
}

void Stream::start(SocketSink& sink) {
    const auto found = std::find_if(variants_.begin(), variants_.end(),
                                    [&sink](const auto& variant) { return variant->key() == sink.variant(); });
    Variant* variant = nullptr;
    if (found != variants_.end()) {
        variant = found->get();
    } else {
        const auto& entries = gop_.entries();
        const std::int64_t base_90k = entries.empty() ? last_dts_90k_ : entries.front().frame.dts_90k;
        variants_.push_back(std::make_unique<Variant>(sink.variant(), base_90k));
        variant = variants_.back().get();
        for (const auto& [role, frame] : entries) (void)variant->add(role, frame, true);
    }
    variant->sinks.push_back(&sink);
    sink.start(variant->head(tracks_), variant->group());
}

void Stream::dispatch(Role role, const Frame& frame, bool kept) {
    for (FrameSink& sink : frame_sinks_) write_to(sink, role, frame);
    const bool can_begin = role == Role::video ? frame.key : track(Role::video) == nullptr;
    for (const auto& variant : variants_) {
        const Buffer data = variant->add(role, frame, kept && !gop_.entries().empty());
        if (data.empty()) continue;
        Buffer configuration;
        const auto skips = [](const SocketSink* sink) { return sink->skipping(); };
        if (can_begin && std::any_of(variant->sinks.begin(), variant->sinks.end(), skips)) {
            configuration = variant->configuration(tracks_, frame.dts_90k);
        }
        // Nothing closes in here: a sink that broke is closed when the worker flushes it.
        for (SocketSink* sink : variant->sinks) sink->write(data, can_begin, configuration);
    }
}

void Stream::write_to(FrameSink& sink, Role role, const Frame& frame) {
    if (role == Role::made_audio || !(role == Role::video ? sink.spec.video : sink.spec.audio)) return;
    const bool can_begin = role == Role::video ? frame.key : track(Role::video) == nullptr || !sink.spec.video;
    if (sink.skipping && !can_begin) {
        ++frame_sinks_dropped_;
        return;
    }
    if (sink.link->pending_bytes.load(std::memory_order_relaxed) > max_frame_sink_bytes) {
        sink.skipping = true;
        ++frame_sinks_dropped_;
        return;
    }
    sink.skipping = false;
    sink.link->pending_bytes.fetch_add(frame.payload.size(), std::memory_order_relaxed);
    worker_->tell(FrameNotice{.sink = sink.id, .frame = frame, .link = sink.link});
}

void Stream::tell(EventKind kind, std::string detail) {
    Event event;
    event.target = Target::stream;
    event.id = event.stream = key_;
    event.kind = kind;
    event.tracks = source_tracks();
    event.detail = std::move(detail);
    worker_->tell(std::move(event));
}

std::vector<SocketSink*> Stream::socket_sinks() const {
    std::vector<SocketSink*> sinks = waiting_;
    for (const auto& variant : variants_) sinks.insert(sinks.end(), variant->sinks.begin(), variant->sinks.end());
    return sinks;
}

}  // namespace gb28181
