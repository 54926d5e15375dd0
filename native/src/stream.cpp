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
// How long a consumer waits for the sound that is made for it, where it cannot be announced later. The first of a
// gateway on a busy host takes its time: FFmpeg's libraries are loaded for it.
constexpr double made_audio_wait_s = 4.0;
// Frames on their way to a consumer in Python that does not take them.
constexpr std::size_t max_frame_sink_bytes = std::size_t{32} * 1024 * 1024;

// Key frames that were demultiplexed while none was found in the packets, until the packets are no longer passed on.
constexpr int max_raw_misses = 2;

}  // namespace

StreamKey Feed::key() const noexcept { return stream_ ? stream_->key() : 0; }

void Feed::give(std::vector<EsUnit>& units, bool video_expected, bool audio_expected) {
    if (!stream_ || generation_ != stream_->generation()) return;
    stream_->expect(video_expected, audio_expected);
    stream_->take(units);
}

bool Feed::rests() const noexcept {
    return stream_ && generation_ == stream_->generation() && stream_->rests();
}

void Feed::count_demuxed() const noexcept {
    if (stream_) stream_->count_demuxed();
}

PictureHint Feed::hint() const { return stream_ ? stream_->hint() : PictureHint(); }

void Feed::packet(const Buffer& datagram, RawGroup::Place place) const {
    if (stream_ && generation_ == stream_->generation()) stream_->packet(datagram, place);
}

void Feed::no_program() const {
    if (stream_ && generation_ == stream_->generation()) stream_->leave_raw();
}

void Feed::kept_already() const {
    if (stream_) stream_->kept_already();
}

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
    for (RtpSink* sink : rtp_sinks_) sink->new_source();
    is_raw_ = rests_ = waking_ = false;
    raw_misses_ = 0;
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
            // Between a picture that was lost and the next key frame decoders may smear, or stand still: as is wished.
            if (unit.damaged && (worker_->shared().freeze_on_loss || await_key_)) {
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

PictureHint Stream::hint() const {
    PictureHint hint;
    hint.key_seen = !await_key_;
    if (const TrackPtr& video = track(Role::video)) {
        hint.codec = video->codec;
    } else {
        hint.sound_only = published_;
    }
    return hint;
}

void Stream::packet(const Buffer& datagram, RawGroup::Place place) {
    if (raw_misses_ >= max_raw_misses) return;
    is_raw_ = true;
    const bool beginning = place == RawGroup::Place::beginning;
    for (RtpSink* sink : rtp_sinks_) {
        if (!sink->takes_raw()) continue;
        if (beginning && sink->waits()) {
            sink->begin(owner_->kept());
        } else {
            sink->packet(datagram);
        }
    }
    if (rests_ && place == RawGroup::Place::given_up) {
        wake();  // nothing is kept that could be read later
        return;
    }
    if (rests_ && beginning && owner_->parameters() != rest_parameters_) {
        rest_parameters_ = owner_->parameters();
        wake();  // what is known of the pictures may be known no more (MED-36)
        return;
    }
    // Not both kept longer than it takes to know the tracks: two forms of a group are twice its memory. After a consumer
    // of frames has gone they are kept to the end of the group, for the next one who comes soon.
    if (!rests_ && (beginning || !was_watched_) && published_ && place != RawGroup::Place::given_up && !owner_->kept().empty() &&
        (has_picture() || !video_expected_) && !needs_frames()) {
        rests_ = true;
        was_watched_ = false;
        gop_.clear();      // the packets are kept instead
        clock_.restart();  // it holds on to the last picture; what wakes the stream begins anew
        rest_parameters_ = owner_->parameters();
    }
}

void Stream::kept_already() {
    is_raw_ = true;
    for (RtpSink* sink : rtp_sinks_) start(*sink);
}

void Stream::leave_raw() {
    if (!std::exchange(is_raw_, false)) return;
    wake();
    for (RtpSink* sink : rtp_sinks_) {
        if (!sink->takes_raw()) continue;
        sink->new_source();
        start(*sink);
    }
}

void Stream::new_sequence() noexcept {
    for (RtpSink* sink : rtp_sinks_) sink->new_sequence();
}

void Stream::orphaned(std::uint64_t generation) noexcept {
    if (generation == generation_) owner_ = nullptr;
}

bool Stream::needs_frames() const noexcept {
    return !waiting_.empty() || !variants_.empty() || !frame_sinks_.empty() ||
           std::any_of(rtp_sinks_.begin(), rtp_sinks_.end(), [](const RtpSink* sink) { return !sink->takes_raw(); });
}

void Stream::wake() {
    if (!std::exchange(rests_, false)) return;
    // The frames that come are those of the source, later: their clock goes on, the old group is over.
    await_key_ = true;
    frozen_ = false;
    waking_ = true;
    clock_.restart();
    gop_.clear();
    if (owner_ != nullptr) owner_->wake();
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
    std::vector<SocketSink*> stale;
    for (const auto& variant : variants_) {
        if (variant->stale()) stale.insert(stale.end(), variant->sinks.begin(), variant->sinks.end());
    }
    for (SocketSink* sink : stale) sink->close("tracks_changed");
    for (SocketSink* sink : socket_sinks()) sink->check(now);
    const std::vector<RtpSink*> checked = rtp_sinks_;  // one may close
    for (RtpSink* sink : checked) sink->check(now);
    start_waiting(now);
    if (!checked.empty()) worker_->mark(*this);  // packets that were demultiplexed are not frames yet
}

void Stream::add_rtp_sink(RtpSink& sink) {
    worker_->mark(*this);
    if (!sink.takes_raw()) wake();
    rtp_sinks_.push_back(&sink);
}

void Stream::start(RtpSink& sink) {
    if (!sink.can_start()) return;
    if (is_raw_ && sink.takes_raw()) {
        if (owner_ != nullptr && !owner_->kept().empty()) sink.begin(owner_->kept());
        return;
    }
    if (!may_write(sink)) return;
    bool begun = false;
    for (const auto& [role, frame] : gop_.entries()) {
        if (!sink.wants(role, frame.track->codec)) continue;
        begun = begun || begins(role, frame, sink);
        if (begun) sink.write(frame, tracks_, true, true);
    }
}

bool Stream::may_write(const RtpSink& sink) const noexcept {
    return !(is_raw_ && sink.takes_raw()) && (published_ || sink.needs_one_track());
}

bool Stream::begins(Role role, const Frame& frame, const RtpSink& sink) const noexcept {
    if (role == Role::video) return frame.key;
    const TrackPtr& video = track(Role::video);
    return !video || !sink.wants(Role::video, video->codec);
}

void Stream::add_socket_sink(SocketSink& sink) {
    worker_->mark(*this);
    was_watched_ = true;
    wake();
    const double now = worker_->now();
    waiting_.push_back({.sink = &sink, .until = now + made_audio_wait_s});
    start_waiting(now);
}

void Stream::add_frame_sink(SinkId id, const FrameSinkSpec& spec, std::shared_ptr<FrameLink> link) {
    wake();
    FrameSink& sink =
        frame_sinks_.emplace_back(FrameSink{.id = id, .spec = spec, .link = std::move(link), .skipping = false});
    for (const auto& [role, frame] : gop_.entries()) write_to(sink, role, frame);
    worker_->mark(*this);
}

void Stream::remove_frame_sink(SinkId id) {
    std::erase_if(frame_sinks_, [id](const FrameSink& sink) { return sink.id == id; });
    worker_->mark(*this);
}

void Stream::forget_sink(SocketSink& sink) {
    ended_dropped_ += sink.frames_dropped();
    ended_bytes_ += sink.bytes_out();
    worker_->mark(*this);
    leave(sink);
}

void Stream::forget_sink(RtpSink& sink) {
    ended_bytes_ += sink.bytes_out();
    worker_->mark(*this);
    std::erase(rtp_sinks_, &sink);
}

void Stream::leave(SocketSink& sink) {
    if (std::erase_if(waiting_, [&sink](const Waiting& waiting) { return waiting.sink == &sink; }) != 0) return;
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
    for (const Waiting& waiting : waiting_) add(*waiting.sink);
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
    if (is_raw_ && role == Role::video && frame.key && owner_ != nullptr) {
        raw_misses_ = owner_->kept().empty() ? raw_misses_ + 1 : 0;
        if (raw_misses_ >= max_raw_misses) leave_raw();
    }
    bool first_key = false;
    if (role == Role::video && await_key_) {
        await_key_ = false;
        first_key = true;
    }
    if (await_key_ && track(Role::video)) return;  // audio of a new generation waits for its picture
    const bool kept = gop_.add(role, frame);
    dispatch(role, frame, kept);
    if (published_) {
        if (first_key && !std::exchange(waking_, false)) tell(EventKind::key_frame);
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
    if (role == Role::made_audio) {
        start_waiting(worker_->now());
    } else {
        board_->set_tracks(source_tracks());
    }
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
    const double now = worker_->now();
    for (Waiting& waiting : waiting_) waiting.until = now + made_audio_wait_s;
    start_waiting(now);
    for (RtpSink* sink : rtp_sinks_) start(*sink);
}

void Stream::start_waiting(double now) {
    if (!published_) return;
    for (std::size_t index = 0; index < waiting_.size();) {
        const Waiting waiting = waiting_[index];
        if (now < waiting.until && waits_for_audio(waiting.sink->variant(), tracks_)) {
            ++index;
            continue;
        }
        waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
        start(*waiting.sink);
    }
}

void Stream::start(SocketSink& sink) {
    const auto found = std::find_if(variants_.begin(), variants_.end(),
                                    [&](const auto& variant) { return variant->fits(sink.variant(), tracks_); });
    Variant* variant = nullptr;
    if (found != variants_.end()) {
        variant = found->get();
    } else {
        const auto& entries = gop_.entries();
        const std::int64_t base_90k = entries.empty() ? last_dts_90k_ : entries.front().frame.dts_90k;
        variants_.push_back(std::make_unique<Variant>(sink.variant(), tracks_, base_90k));
        variant = variants_.back().get();
        for (const auto& [role, frame] : entries) (void)variant->add(role, frame, true);
    }
    variant->sinks.push_back(&sink);
    sink.start(variant->head(tracks_), variant->group());
}

void Stream::dispatch(Role role, const Frame& frame, bool kept) {
    for (FrameSink& sink : frame_sinks_) write_to(sink, role, frame);
    for (RtpSink* sink : rtp_sinks_) {
        if (may_write(*sink) && sink->wants(role, frame.track->codec)) {
            sink->write(frame, tracks_, begins(role, frame, *sink), false);
        }
    }
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
    const FrameSinkSpec& spec = sink.spec;
    if (!(role == Role::video ? spec.video : role == Role::audio ? spec.audio : spec.made_audio)) return;
    const bool can_begin = role == Role::video ? frame.key : track(Role::video) == nullptr || !spec.video;
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
    std::vector<SocketSink*> sinks;
    for (const Waiting& waiting : waiting_) sinks.push_back(waiting.sink);
    for (const auto& variant : variants_) sinks.insert(sinks.end(), variant->sinks.begin(), variant->sinks.end());
    return sinks;
}

}  // namespace gb28181
