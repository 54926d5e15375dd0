// From the times of a device to the time of a stream.
//
// Theory of operation. Each track maps its device's clock to the output by one addition: output = device + offset. All
// tracks of a stream have the same offset, so audio and video keep their distance. When a track's times jump, forward
// by more than 300 ms beyond what was to be expected or backward (MED-21), it takes the offset that the other tracks
// have already moved to, if that fits, else a new one, such that its output goes on one frame after the last. What was
// to be expected is the larger of the track's interval and the time that really passed, so neither a pause of the
// device nor a burst after a stall is a jump.
//
// Sources, in order (MED-20): PTS and DTS of the PES; the RTP timestamp; the arrival. A source that stands still while
// pictures arrive, or creeps (milliseconds sold as 90 kHz), is left for the next one. A unit without its own time
// follows its predecessor by the duration of its predecessor.
//
// DTS never goes back and never stands still within a track; PTS is never before DTS. A device that orders pictures (B
// pictures) but sends no DTS gets one: the smallest of the last PTS (MED-37). How far back these go is what the
// parameter sets say, else it is learnt.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "gb28181/frame.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// Stamps the units of one stream.
class StreamClock {
public:
    /// `rtp_clock`: rate of the RTP timestamp.
    explicit StreamClock(int rtp_clock = 90000);
    StreamClock(StreamClock&&) noexcept;
    StreamClock& operator=(StreamClock&&) noexcept;
    ~StreamClock();

    struct Stamp {
        std::int64_t pts_90k;
        std::int64_t dts_90k;
    };

    /// The unit as a `Frame` on the stream's clock. The payload is shared, or moved where the unit is given away.
    [[nodiscard]] Frame frame(const EsUnit& unit);
    [[nodiscard]] Frame frame(EsUnit&& unit);
    /// (pts, dts) of the output, in 1/90000 s from the first unit.
    [[nodiscard]] Stamp stamp(const EsUnit& unit);
    /// A new receiver feeds the stream (a new generation): its times are another device clock.
    void restart();

    struct PictureTimes {
        std::int64_t output_90k = 0;
        std::int64_t device_90k = 0;
    };
    /// Decoding times of the newest picture, on the output's and on the device's clock; zeros before the first.
    [[nodiscard]] PictureTimes picture_times() const noexcept;

    /// Jumps that were taken out.
    [[nodiscard]] std::uint64_t rebased() const noexcept { return rebased_; }
    /// Units without a time of their own.
    [[nodiscard]] std::uint64_t interpolated() const noexcept { return interpolated_; }
    [[nodiscard]] QuirkSet quirks() const noexcept { return quirks_; }

private:
    struct TrackTime;
    struct DeviceTime {
        std::optional<std::int64_t> dts;
        std::int64_t delay = 0;
    };

    [[nodiscard]] TrackTime& track_of(const EsUnit& unit);
    [[nodiscard]] DeviceTime device_time(TrackTime& track, const EsUnit& unit);
    [[nodiscard]] DeviceTime from_pts(TrackTime& track, const EsUnit& unit);
    [[nodiscard]] std::int64_t missing_delay(TrackTime& track, const EsUnit& unit);
    [[nodiscard]] std::int64_t without_dts(TrackTime& track, const EsUnit& unit, std::int64_t pts);
    [[nodiscard]] std::int64_t make_dts(TrackTime& track, const TrackPtr& description, std::int64_t pts);
    void watch(TrackTime& track, const EsUnit& unit, std::int64_t value);
    void leave_source(TrackTime& track, const EsUnit& unit);
    [[nodiscard]] std::int64_t now(double arrival) const;
    [[nodiscard]] std::int64_t expected(const TrackTime& track, double arrival) const;
    void anchor_first(TrackTime& track, const EsUnit& unit, std::int64_t device);
    [[nodiscard]] static bool is_jump(const TrackTime& track, const EsUnit& unit, std::int64_t device);
    void rebase(TrackTime& track, const EsUnit& unit, std::int64_t device);
    [[nodiscard]] static Stamp finish(TrackTime& track, const EsUnit& unit, std::int64_t out, std::int64_t delay);

    int rtp_clock_;
    std::array<std::unique_ptr<TrackTime>, 2> tracks_;  // by TrackKind
    std::optional<std::int64_t> offset_;                // of the track that moved last
    std::uint64_t rebased_ = 0;
    std::uint64_t interpolated_ = 0;
    QuirkSet quirks_;
};

}  // namespace gb28181
