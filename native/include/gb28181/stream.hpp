// The hub: frames of one source in the middle, any number of consumers around it.
//
// Theory of operation. A *feed* brings the units of one receiver; attaching a receiver begins a new *generation*, older
// feeds are dead from then on (invariant I3). Units pass three gates: a generation begins at a key frame; video that
// something was lost before is held back until the next key frame if that is wished ("freeze rather than smear",
// MED-24); the stream's own clock makes their times monotonic over generations and jumps (MED-21). What passes is kept
// since the last key frame and goes to the *variants*, each of which makes its bytes once for all its sinks, and to frame sinks.
//
// A stream is *published* when its video is known: with a key frame, and with its audio if audio was declared and came
// within a second (MED-16); audio that comes later is added (MED-17). A stream that has only audio is published with it
// after the same wait. Consumers that were there before get everything from the key frame on.
//
// Beside units a feed brings the *packets* of a program stream, which go to RTP sinks as they are. While nobody needs frames
// a published stream *rests*: its receiver does not demultiplex, and only packets are kept. A consumer of frames wakes it;
// the receiver reads what it has kept, so that the consumer begins as if the stream had never rested.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gb28181/clock.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/outbox.hpp"
#include "gb28181/published.hpp"
#include "gb28181/raw_group.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/units.hpp"
#include "gb28181/variant.hpp"

namespace gb28181 {

class RtpSink;
class SocketSink;
class Stream;
class Worker;

/// What a stream asks of the receiver that feeds it.
class FeedOwner {
public:
    FeedOwner() = default;
    FeedOwner(const FeedOwner&) = delete;
    FeedOwner& operator=(const FeedOwner&) = delete;
    virtual ~FeedOwner() = default;
    /// Frames are wanted again: read what was kept.
    virtual void wake() = 0;
    /// The packets since the last key frame.
    [[nodiscard]] virtual const std::vector<RawGroup::Entry>& kept() const noexcept = 0;
    /// The parameter set with which that key frame begins.
    [[nodiscard]] virtual const Bytes& parameters() const noexcept = 0;
};

/// What the control thread reads of a stream without asking its worker.
class StreamBoard {
public:
    Published<StreamCounters> counters;

    void set_tracks(std::vector<TrackPtr> tracks) {
        const std::lock_guard guard(lock_);
        tracks_ = std::move(tracks);
    }
    [[nodiscard]] std::vector<TrackPtr> tracks() const {
        const std::lock_guard guard(lock_);
        return tracks_;
    }

private:
    mutable std::mutex lock_;  // taken when tracks change, not per frame
    std::vector<TrackPtr> tracks_;
};

/// The right of one receiver to feed a stream, until the next one is attached.
class Feed {
public:
    Feed() = default;
    Feed(std::shared_ptr<Stream> stream, std::uint64_t generation)
        : stream_(std::move(stream)), generation_(generation) {}

    [[nodiscard]] explicit operator bool() const noexcept { return stream_ != nullptr; }
    [[nodiscard]] StreamKey key() const noexcept;
    /// Nobody needs frames now.
    [[nodiscard]] bool rests() const noexcept;
    /// One packet went through a demuxer.
    void count_demuxed() const noexcept;
    /// What of the pictures is known.
    [[nodiscard]] PictureHint hint() const;
    /// A packet of a program stream in order.
    void packet(const Buffer& datagram, RawGroup::Place place) const;
    /// Packets of the source are kept already.
    void kept_already() const;
    /// The source is none of program streams, though it may have looked like one.
    void no_program() const;
    /// The source begins a new sequence of packets.
    void new_sequence() const noexcept;
    /// The owner feeds no more.
    void end() noexcept;
    /// Units in order. What is expected was declared by the source, whether or not it has come.
    void give(std::vector<EsUnit>& units, bool video_expected, bool audio_expected);
    /// The same stream, as a new source.
    [[nodiscard]] Feed renewed(FeedOwner& owner) const;

private:
    std::shared_ptr<Stream> stream_;
    std::uint64_t generation_ = 0;
};

/// What a new consumer gets at once (MED-34): everything since the last key frame, bounded. A group that outgrows the
/// bound is given up as a whole, because a part of it would smear; consumers that come then wait for the next key frame.
class KeptGop {
public:
    struct Entry {
        Role role;
        Frame frame;
    };

    /// A video key frame begins anew; before one nothing is kept. False when the group was given up with this frame.
    bool add(Role role, const Frame& frame);
    void clear() noexcept;
    [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }

private:
    static constexpr std::size_t max_bytes = std::size_t{16} * 1024 * 1024;
    static constexpr std::size_t max_frames = 4000;

    std::vector<Entry> entries_;
    std::size_t size_bytes_ = 0;
};

/// Owner of the tracks, the kept frames and the consumers of one stream. Used by the thread of its worker.
class Stream : public std::enable_shared_from_this<Stream> {
public:
    Stream(StreamKey key, std::shared_ptr<StreamBoard> board) : key_(key), board_(std::move(board)) {}
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    void open(Worker& worker) noexcept { worker_ = &worker; }
    [[nodiscard]] StreamKey key() const noexcept { return key_; }

    // Input

    /// A new source: its frames begin at a key frame, and nothing of an earlier one follows them.
    /// `owner` lives until it ends its feed, or until the next generation.
    [[nodiscard]] Feed begin_generation(FeedOwner& owner);
    [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
    void expect(bool video, bool audio) noexcept;
    /// Units of the current feed; moved from.
    void take(std::vector<EsUnit>& units);
    [[nodiscard]] bool rests() const noexcept { return rests_; }
    void count_demuxed() noexcept { ++demuxed_; }
    [[nodiscard]] PictureHint hint() const;
    void packet(const Buffer& datagram, RawGroup::Place place);
    void kept_already();
    /// The source turned out to be no program stream, or one that must be taken apart to find its key frames: RTP sinks
    /// get it muxed.
    void leave_raw();
    void new_sequence() noexcept;
    /// No receiver feeds it now.
    void orphaned(std::uint64_t generation) noexcept;
    /// A frame made in Python, with times of the stream's clock. AAC beside another audio codec is the made audio for
    /// consumers that need it; all else is the source.
    void push(const Frame& frame);
    /// Called several times a second: time-boxed waits, and consumers that stand still.
    void tick(double now);

    // Consumers

    void add_socket_sink(SocketSink& sink);
    void add_rtp_sink(RtpSink& sink);
    /// It can send now: it begins with what is kept, or waits for a key frame.
    void start(RtpSink& sink);
    void add_frame_sink(SinkId id, const FrameSinkSpec& spec, std::shared_ptr<FrameLink> link);
    void remove_frame_sink(SinkId id);
    /// It has closed.
    void forget_sink(SocketSink& sink);
    void forget_sink(RtpSink& sink);
    /// End all sinks.
    void close(std::string_view reason);

    /// Write the counters to the board.
    void publish();

    /// Has something to publish; the worker's mark.
    bool marked = false;

private:
    struct FrameSink {
        SinkId id;
        FrameSinkSpec spec;
        std::shared_ptr<FrameLink> link;
        bool skipping;
    };

    /// A consumer that does not get anything yet: the stream is not published, or sound is being made for it.
    struct Waiting {
        SocketSink* sink;
        double until;  // its wait for made audio ends then, whatever has come
    };

    void take_frame(Role role, const Frame& frame);
    [[nodiscard]] const TrackPtr& track(Role role) const noexcept { return tracks_[static_cast<std::size_t>(role)]; }
    [[nodiscard]] bool has_picture() const noexcept { return track(Role::video) != nullptr && !await_key_; }
    [[nodiscard]] bool note_track(Role role, const TrackPtr& track);
    [[nodiscard]] std::vector<TrackPtr> source_tracks() const;
    void publish_stream();
    /// Start the sinks that need not wait any longer.
    void start_waiting(double now);
    void start(SocketSink& sink);
    void leave(SocketSink& sink);
    [[nodiscard]] bool needs_frames() const noexcept;
    /// A consumer of frames has come.
    void wake();
    /// It takes frames now: no packets, and muxed ones once the tracks of the map are known.
    [[nodiscard]] bool may_write(const RtpSink& sink) const noexcept;
    /// An RTP sink can begin with the frame: with a picture that is a key, or with sound where no picture comes.
    [[nodiscard]] bool begins(Role role, const Frame& frame, const RtpSink& sink) const noexcept;
    void dispatch(Role role, const Frame& frame, bool kept);
    void write_to(FrameSink& sink, Role role, const Frame& frame);
    void tell(EventKind kind, std::string detail = {});
    [[nodiscard]] std::vector<SocketSink*> socket_sinks() const;

    const StreamKey key_;
    const std::shared_ptr<StreamBoard> board_;
    Worker* worker_ = nullptr;
    std::uint64_t generation_ = 0;
    StreamClock clock_;
    QuirkSet quirks_told_;  // names of the clock's tolerances that were told already
    RoleTracks tracks_;
    KeptGop gop_;
    std::vector<std::unique_ptr<Variant>> variants_;
    std::vector<Waiting> waiting_;
    std::vector<FrameSink> frame_sinks_;
    std::vector<RtpSink*> rtp_sinks_;
    FeedOwner* owner_ = nullptr;
    bool is_raw_ = false;     // the present source is a program stream
    int raw_misses_ = 0;      // key frames of it that were not found in its packets
    bool rests_ = false;
    bool was_watched_ = false;  // since it last rested
    Bytes rest_parameters_;   // of the pictures that are known
    bool waking_ = false;     // the key frame that comes is no news
    std::uint64_t demuxed_ = 0;
    bool video_expected_ = false;
    bool audio_expected_ = false;
    bool published_ = false;
    std::optional<double> publish_at_;
    std::int64_t last_dts_90k_ = 0;
    bool await_key_ = true;
    bool frozen_ = false;
    std::uint64_t frames_in_ = 0;
    std::uint64_t frames_frozen_ = 0;
    std::uint64_t pictures_ = 0;
    std::uint64_t frame_sinks_dropped_ = 0;
    std::uint64_t ended_dropped_ = 0;  // of the sinks that have ended
    std::uint64_t ended_bytes_ = 0;
};

}  // namespace gb28181
