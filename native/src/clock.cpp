#include "gb28181/clock.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "gb28181/picture_order.hpp"

namespace gb28181 {
namespace {

constexpr std::int64_t jump_90k = 27000;  // 300 ms
constexpr std::int64_t clock_90k = 90000;
constexpr std::int64_t rtp_modulus = std::int64_t{1} << 32;
constexpr int stuck_after = 4;
constexpr int missing_limit = 25;
constexpr int window = 64;
constexpr std::int64_t max_reorder = 4;
/// Frames between the decoding and the presentation of a picture (H.264 A.3.1).
constexpr std::int64_t max_delay = 16;
constexpr int forget_reorder = 32;  // pictures in order after which a learnt reordering was a mistake
constexpr std::int64_t far_90k = 10 * clock_90k;
constexpr std::size_t order_size = static_cast<std::size_t>(max_reorder) + 1;

std::int64_t nearest(double value) noexcept { return static_cast<std::int64_t>(std::nearbyint(value)); }

/// Of an audio packet, from its codec; of a picture, from the rate that its parameter sets tell; 0 unknown.
std::int64_t duration_of(const EsUnit& unit) noexcept {
    const Track& track = *unit.track;
    if (track.kind == TrackKind::video) return track.fps > 0 ? nearest(static_cast<double>(clock_90k) / track.fps) : 0;
    if (track.codec == Codec::aac) return track.sample_rate > 0 ? 1024 * clock_90k / track.sample_rate : 0;
    if (track.codec == Codec::pcma || track.codec == Codec::pcmu) {
        return static_cast<std::int64_t>(unit.payload.size()) * clock_90k / 8000;
    }
    return 0;
}

/// One kind of device time, unwrapped.
struct TimeSource {
    std::int64_t modulus;
    std::optional<std::int64_t> last;

    /// The value nearest to the last one, without the wrap.
    std::int64_t unwrap(std::int64_t value) noexcept {
        if (!last) {
            last = value;
            return value;
        }
        const std::int64_t half = modulus / 2;
        *last += floor_mod(value - *last + half, modulus) - half;
        return *last;
    }
};

/// The last device times of a track, oldest first.
class Recent {
public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    void clear() noexcept { size_ = 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] const std::int64_t* begin() const noexcept { return times_.data(); }
    [[nodiscard]] const std::int64_t* end() const noexcept { return times_.data() + size_; }
    void push(std::int64_t time) noexcept {
        if (size_ == order_size) {
            std::move(times_.begin() + 1, times_.end(), times_.begin());
            --size_;
        }
        times_[size_++] = time;
    }

    /// The time that has `rank` smaller ones.
    [[nodiscard]] std::int64_t smallest(std::int64_t rank) const noexcept {
        for (const std::int64_t time : *this) {
            const auto below = std::count_if(begin(), end(), [&](std::int64_t other) { return other < time; });
            const auto equal = std::count(begin(), end(), time);
            if (below <= rank && rank < below + equal) return time;
        }
        return 0;
    }

private:
    std::array<std::int64_t, order_size> times_{};
    std::size_t size_ = 0;
};

}  // namespace

struct StreamClock::TrackTime {
    explicit TrackTime(std::int64_t first_interval) : interval(first_interval) {}

    TimeSource pts{pts_modulus, {}};
    TimeSource rtp{rtp_modulus, {}};
    int source = 0;  // 0 PTS, 1 RTP timestamp, 2 arrival
    std::int64_t interval;
    std::optional<std::int64_t> offset;
    std::int64_t device = 0;     // last device time, unwrapped
    std::int64_t last_dts = -1;  // last output
    double arrival = 0.0;
    int missing = 0;  // units in a row without PTS
    int still = 0;
    int span_count = 0;
    std::int64_t span_device = 0;
    double span_arrival = 0.0;
    std::int64_t reorder = 0;  // pictures of delay where DTS must be made
    Recent order;
    std::int64_t top = 0;  // highest device time seen
    int ahead = 0;         // units in a row above it
    int back = 0;          // units in a row below `top`
    bool has_dts = false;  // units have DTS where it is not PTS
    std::int64_t key_delay = 0;  // PTS minus DTS of the last key picture
    struct Anchor {
        Buffer payload;
        std::int64_t pts;
    };
    std::optional<Anchor> anchor;  // the last picture whose PTS is known
    TrackPtr described;            // what `pictures` is about
    std::optional<PictureOrder> pictures;

    /// What the parameter sets tell about the order of pictures.
    const PictureOrder& learn(const TrackPtr& description) {
        if (!pictures || description != described) {
            described = description;
            pictures.emplace(*description);
        }
        return *pictures;
    }

    /// The pictures that follow have nothing to do with those before.
    void begin_order(const TrackPtr& description) {
        order.clear();
        reorder = std::min(learn(description).delay(), max_reorder);
        back = 0;
    }
};

StreamClock::StreamClock(int rtp_clock) : rtp_clock_(rtp_clock > 0 ? rtp_clock : static_cast<int>(clock_90k)) {}
StreamClock::StreamClock(StreamClock&&) noexcept = default;
StreamClock& StreamClock::operator=(StreamClock&&) noexcept = default;
StreamClock::~StreamClock() = default;

StreamClock::PictureTimes StreamClock::picture_times() const noexcept {
    const auto& track = tracks_[static_cast<std::size_t>(TrackKind::video)];
    if (!track || track->last_dts < 0) return {};
    return {track->last_dts, track->device};
}

Frame StreamClock::frame(const EsUnit& unit) { return frame(EsUnit(unit)); }

Frame StreamClock::frame(EsUnit&& unit) {
    const Stamp times = stamp(unit);
    Frame frame;
    frame.track = std::move(unit.track);
    frame.pts_90k = times.pts_90k;
    frame.dts_90k = times.dts_90k;
    frame.key = unit.key;
    frame.damaged = unit.damaged;
    frame.arrival = unit.arrival;
    frame.payload = std::move(unit.payload);
    return frame;
}

void StreamClock::restart() {
    for (const auto& track : tracks_) {
        if (track == nullptr) continue;
        track->offset.reset();
        track->pts.last.reset();
        track->rtp.last.reset();
        track->source = 0;
        track->still = track->span_count = track->back = track->missing = 0;
        track->order.clear();
        track->has_dts = false;
        track->anchor.reset();
    }
    offset_.reset();
}

StreamClock::TrackTime& StreamClock::track_of(const EsUnit& unit) {
    auto& track = tracks_[static_cast<std::size_t>(unit.track->kind)];
    if (track == nullptr) {
        const std::int64_t duration = duration_of(unit);
        track = std::make_unique<TrackTime>(duration != 0 ? duration : 3600);
    }
    return *track;
}

StreamClock::Stamp StreamClock::stamp(const EsUnit& unit) {
    TrackTime& track = track_of(unit);
    const DeviceTime time = device_time(track, unit);
    if (!time.dts) {
        ++interpolated_;
        const std::int64_t out = expected(track, unit.arrival);
        track.device += track.last_dts >= 0 ? out - track.last_dts : 0;
        return finish(track, unit, out, time.delay);
    }
    const std::int64_t device = *time.dts;
    const bool is_video_unit = unit.track->kind == TrackKind::video;
    if (!track.offset) {
        anchor_first(track, unit, device);
    } else if (is_jump(track, unit, device)) {
        rebase(track, unit, device);
    } else {
        const std::int64_t step = device - track.device;
        if (step > 0 && step <= 2 * clock_90k && (is_video_unit || duration_of(unit) == 0)) {
            track.interval += floor_div(step - track.interval, 8);
        }
    }
    track.device = device;
    std::int64_t out = device + track.offset.value_or(0);
    if (track.source != 0 && !is_video_unit && track.last_dts >= 0) {
        // Times of packets, not of samples: sound is gapless as long as they do not contradict it.
        const std::int64_t smooth = track.last_dts + track.interval;
        if (std::abs(out - smooth) < jump_90k) out = smooth;
    }
    return finish(track, unit, out, time.delay);
}

// ---------------------------------------------------------------- sources

/// Decoding time on the device's clock and PTS minus it; no time: the unit has none of its own.
StreamClock::DeviceTime StreamClock::device_time(TrackTime& track, const EsUnit& unit) {
    if (track.source == 0) {
        if (unit.pts_90k) {
            track.missing = 0;
            return from_pts(track, unit);
        }
        ++track.missing;
        if (track.pts.last && track.missing < missing_limit) {
            return {std::nullopt, missing_delay(track, unit)};  // PTS come, only not with every unit
        }
        leave_source(track, unit);
    }
    if (track.source <= 1 && unit.rtp_timestamp) {
        const std::int64_t value = floor_div(track.rtp.unwrap(*unit.rtp_timestamp) * clock_90k, rtp_clock_);
        watch(track, unit, value);
        if (track.source <= 1) {
            quirks_.add(Quirk::ps_clock_from_rtp);
            return {value, 0};
        }
    }
    quirks_.add(Quirk::ps_clock_from_arrival);
    return {nearest(unit.arrival * static_cast<double>(clock_90k)), 0};
}

StreamClock::DeviceTime StreamClock::from_pts(TrackTime& track, const EsUnit& unit) {
    const bool is_video_unit = unit.track->kind == TrackKind::video;
    const std::int64_t pts_raw = unit.pts_90k.value_or(0);
    std::int64_t dts = 0;
    std::int64_t delay = 0;
    if (unit.dts_90k && *unit.dts_90k != pts_raw) {
        track.has_dts = true;
        dts = track.pts.unwrap(*unit.dts_90k);
        delay = floor_mod(pts_raw - *unit.dts_90k, pts_modulus);
        track.order.clear();
        track.reorder = 0;
        // A presentation more than some seconds after decoding is no reordering but a fault.
        if (delay >= far_90k) delay = 0;
    } else {
        const std::int64_t pts = track.pts.unwrap(pts_raw);
        dts = is_video_unit ? without_dts(track, unit, pts) : pts;
        delay = pts - dts;
    }
    watch(track, unit, track.pts.last.value_or(0));
    if (track.source != 0) return device_time(track, unit);
    if (is_video_unit) {
        track.anchor.emplace(TrackTime::Anchor{unit.payload, dts + delay});
        if (unit.key) track.key_delay = delay;
    }
    return {dts, delay};
}

/// How long after its decoding a unit without PTS is presented.
std::int64_t StreamClock::missing_delay(TrackTime& track, const EsUnit& unit) {
    if (unit.track->kind != TrackKind::video || !track.anchor) return 0;
    const PictureOrder& pictures = track.learn(unit.track);
    if (!pictures.is_coded()) return 0;
    const std::int64_t dts = track.device + track.interval;
    const std::optional<double> frames = pictures.frames_between(track.anchor->payload, unit.payload);
    std::int64_t delay = unit.key ? track.key_delay : 0;
    if (frames) delay = track.anchor->pts + nearest(*frames * static_cast<double>(track.interval)) - dts;
    if (delay < 0 || delay > max_delay * track.interval) return 0;
    track.anchor.emplace(TrackTime::Anchor{unit.payload, dts + delay});
    if (!track.has_dts) static_cast<void>(make_dts(track, unit.track, dts + delay));  // keeps the order of pictures
    return delay;
}

/// DTS of a picture that carries PTS alone: the same (ISO 13818-1 2.4.3.7), if all have DTS that need it.
std::int64_t StreamClock::without_dts(TrackTime& track, const EsUnit& unit, std::int64_t pts) {
    if (track.has_dts) {
        if (pts >= track.device && !is_jump(track, unit, pts)) return pts;
        track.has_dts = false;
        track.order.clear();
    }
    if (track.order.empty()) track.begin_order(unit.track);
    return make_dts(track, unit.track, pts);
}

/// DTS of pictures that carry PTS alone. PTS that go back by less than 300 ms and soon pass the old top are B
/// pictures; the delay that they need is learnt. Otherwise DTS is PTS, and a step back is a jump.
std::int64_t StreamClock::make_dts(TrackTime& track, const TrackPtr& description, std::int64_t pts) {
    Recent& order = track.order;
    if (!order.empty() && pts > track.top + 2 * clock_90k) order.clear();  // a jump; what came before is no measure
    if (order.empty() || pts > track.top) {
        track.top = pts;
        track.back = 0;
        ++track.ahead;
        if (track.ahead > forget_reorder) track.reorder = 0;
    } else {
        ++track.back;
        track.ahead = 0;
        if (track.top - pts > jump_90k || track.back > max_reorder) {
            track.begin_order(description);
            track.top = pts;
        } else if (pts != track.top && track.reorder < max_reorder) {
            const auto depth = std::count_if(order.begin(), order.end(), [&](std::int64_t earlier) { return earlier > pts; });
            track.reorder = std::max(track.reorder, std::min<std::int64_t>(depth, max_reorder));
        }
    }
    order.push(pts);
    if (track.reorder == 0) return pts;
    // Of the pictures seen, as many are still to be shown as the delay is long; the next one due is the smallest of
    // them, which is what a decoder is fed at this moment.
    const auto present = static_cast<std::int64_t>(order.size());
    const std::int64_t recent = std::min(present, track.reorder + 1);
    // At the start those that would have been shown before are wanting.
    return order.smallest(present - recent) - (track.reorder + 1 - recent) * track.interval;
}

/// Leave a source that stands still or creeps while units arrive.
void StreamClock::watch(TrackTime& track, const EsUnit& unit, std::int64_t value) {
    if (unit.track->kind != TrackKind::video) return;
    if (value < track.device - jump_90k) track.span_count = 0;  // a jump back inside the span would look like a creep
    if (track.span_count == 0) {
        track.span_device = value;
        track.span_arrival = unit.arrival;
        track.still = 0;
    }
    ++track.span_count;
    track.still = value == track.device && track.span_count > 1 ? track.still + 1 : 0;
    const double elapsed = (unit.arrival - track.span_arrival) * static_cast<double>(clock_90k);
    bool creeps = false;
    if (track.span_count >= window) {
        const std::int64_t moved = value - track.span_device;
        creeps = elapsed > static_cast<double>(clock_90k) && moved >= 0 && static_cast<double>(moved) < elapsed / 10;
        track.span_count = 0;
    }
    if (creeps || track.still >= stuck_after) leave_source(track, unit);
}

void StreamClock::leave_source(TrackTime& track, const EsUnit& unit) {
    Quirk name = Quirk::rtp_timestamp_useless;
    if (track.source == 0) name = unit.pts_90k ? Quirk::ps_pts_useless : Quirk::ps_pts_missing;
    quirks_.add(name);
    ++track.source;
    track.offset.reset();
    track.span_count = track.still = 0;
}

// ---------------------------------------------------------------- mapping

/// Where the output of the tracks stands at `arrival`; 0 with none.
std::int64_t StreamClock::now(double arrival) const {
    std::int64_t place = 0;
    for (const auto& track : tracks_) {
        if (track == nullptr || track->last_dts < 0) continue;
        place = std::max(place, track->last_dts + nearest((arrival - track->arrival) * static_cast<double>(clock_90k)));
    }
    return place;
}

/// Output of the track's next unit, if all goes on as it did.
std::int64_t StreamClock::expected(const TrackTime& track, double arrival) const {
    if (track.last_dts < 0) return now(arrival);
    return track.last_dts + std::max<std::int64_t>(track.interval, 1);
}

/// First unit of a track or of a source: join the others' offset if that is near, else go on by arrival.
void StreamClock::anchor_first(TrackTime& track, const EsUnit& unit, std::int64_t device) {
    std::int64_t wanted = expected(track, unit.arrival);
    if (track.last_dts >= 0) wanted = std::max(wanted, now(unit.arrival));
    if (offset_ && track.source == 0) {
        if (std::abs(device + *offset_ - now(unit.arrival)) <= far_90k) {
            track.offset = offset_;
            return;
        }
        quirks_.add(Quirk::ps_clocks_differ);
    }
    if (unit.track->kind == TrackKind::audio && track.source == 0 && wanted == 0) {
        wanted = jump_90k;  // room for the first picture, which may be decoded before the sound that came first
    }
    track.offset = wanted - device;
    if (track.source == 0) offset_ = track.offset;
}

bool StreamClock::is_jump(const TrackTime& track, const EsUnit& unit, std::int64_t device) {
    const std::int64_t step = device - track.device;
    const std::int64_t elapsed = nearest((unit.arrival - track.arrival) * static_cast<double>(clock_90k));
    return (step < 0 && (track.reorder == 0 || step < -jump_90k)) ||
           step > std::max(track.interval, elapsed) + jump_90k;
}

void StreamClock::rebase(TrackTime& track, const EsUnit& unit, std::int64_t device) {
    ++rebased_;
    quirks_.add(Quirk::ps_pts_jump);
    const std::int64_t wanted = expected(track, unit.arrival);
    const std::int64_t elapsed =
        std::max<std::int64_t>(0, nearest((unit.arrival - track.arrival) * static_cast<double>(clock_90k)));
    const auto fits = [&](const std::optional<std::int64_t>& offset) {
        if (!offset || offset == track.offset) return false;
        const std::int64_t place = device + *offset;
        return wanted - jump_90k <= place && place <= wanted + elapsed + jump_90k;
    };
    if (fits(offset_)) {
        track.offset = offset_;
        return;
    }
    for (const auto& other : tracks_) {
        if (other != nullptr && fits(other->offset)) {
            track.offset = other->offset;
            return;
        }
    }
    track.offset = wanted - device;
    if (track.source == 0) offset_ = track.offset;
}

StreamClock::Stamp StreamClock::finish(TrackTime& track, const EsUnit& unit, std::int64_t out, std::int64_t delay) {
    const std::int64_t dts = std::max({out, track.last_dts + 1, std::int64_t{0}});
    const std::int64_t pts = std::max(out + delay, dts);
    track.last_dts = dts;
    track.arrival = unit.arrival;
    const std::int64_t duration = duration_of(unit);
    if (duration != 0) track.interval = duration;
    return {pts, dts};
}

}  // namespace gb28181
