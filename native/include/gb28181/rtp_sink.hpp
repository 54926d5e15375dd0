// A stream sent as RTP: to an upper platform, a device that talks, a recorder.
//
// Theory of operation. Where the source is a program stream in RTP its own packets are forwarded: each gets a header of
// its own (SSRC, payload type, and a sequence number a constant away from the source's, so that a gap stays a gap of
// the same width) before the bytes that all consumers share. What a turn of the worker queued is sent at its end, in one
// call and in runs of equal size that the kernel cuts. The kept group, with which a sink begins, is the one thing that is
// paced (4.3.6: a sender limits its peak rate); all else leaves as it came. Frames of other sources are muxed or packed here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/es_packetiser.hpp"
#include "gb28181/out_packet.hpp"
#include "gb28181/ps_mux.hpp"
#include "gb28181/published.hpp"
#include "gb28181/raw_group.hpp"
#include "gb28181/rtp_outlet.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/variant.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

class Stream;

/// `RtpSinkCounters` of media/engine.py as a plain block of memory, for the board.
struct RtpSinkFacts {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t dropped = 0;
    std::int64_t reported_lost = 0;
    double rtt_ms = 0;
    std::array<char, 75> remote{};  // ends with a zero
    bool passthrough = false;
};

/// What the control thread reads of a sink without asking its worker.
struct RtpSinkBoard {
    Published<RtpSinkFacts> facts;
};

/// The sockets of a sink, bound by the control thread: one of the two.
struct SinkSockets {
    UdpPair udp;
    UniqueFd tcp;
};

class RtpSink final : public Mortal, private OutletOwner {
public:
    RtpSink(SinkId id, RtpSinkSpec spec, SinkSockets sockets, std::shared_ptr<RtpSinkBoard> board);
    /// One that sends through a receiver on the worker `home`.
    RtpSink(SinkId id, RtpSinkSpec spec, Worker& home, std::shared_ptr<RtpSinkBoard> board);
    ~RtpSink() override;

    /// The worker that owns it begins to watch the sockets.
    void open(Worker& worker, std::shared_ptr<Stream> stream);
    void update(const RtpSinkUpdate& update);
    /// End it. Idempotent.
    void close(std::string_view reason);

    // From the stream

    /// It wants the packets of a program stream as they are.
    [[nodiscard]] bool takes_raw() const noexcept {
        return spec_.packing == Packing::ps && spec_.video && spec_.audio;
    }
    /// It can begin with a frame, whatever other tracks may come.
    [[nodiscard]] bool needs_one_track() const noexcept {
        return spec_.packing == Packing::es || !spec_.video || !spec_.audio;
    }
    /// It could send now, and has not begun.
    [[nodiscard]] bool can_start() const noexcept { return sending_ && !started_ && !closed_ && outlet_->ready(); }
    /// It waits for a key frame.
    [[nodiscard]] bool waits() const noexcept { return can_start() || skipping_; }
    /// The source's packets since a key frame: nothing was sent, or packets were skipped before it.
    void begin(const std::vector<RawGroup::Entry>& group);
    /// The source's next packet.
    void packet(const Buffer& datagram);
    /// It takes frames of this track.
    [[nodiscard]] bool wants(Role role, Codec codec) const noexcept;
    /// A frame that it wants. `key`: a peer can begin here. `tracks`: of the stream. `kept`: of the kept group.
    void write(const Frame& frame, const RoleTracks& tracks, bool key, bool kept);
    /// What follows is another sequence of the source's.
    void new_sequence() noexcept { rebase_ = true; }
    /// What follows is another source: it begins at a key frame.
    void new_source() noexcept;

    // From the worker

    /// Offer the kernel what waits; the worker calls it at the end of a turn.
    void flush();
    [[nodiscard]] RtpOutlet& outlet() noexcept { return *outlet_; }
    /// RTCP that came to the receiver it sends through.
    void heard(ByteView data) { outlet_rtcp(data); }
    /// The moment it asked to be reminded of.
    void alarm();
    /// Called several times a second.
    void check(double now);

    [[nodiscard]] SinkId id() const noexcept { return id_; }
    [[nodiscard]] const std::shared_ptr<Stream>& stream() const noexcept { return stream_; }
    [[nodiscard]] std::uint64_t bytes_out() const noexcept { return facts_.bytes; }
    [[nodiscard]] std::size_t queued_bytes() const noexcept { return queued_bytes_; }

    /// Waits to be flushed; the worker's mark.
    bool marked = false;

private:
    void outlet_connected(const std::string& peer) override;
    void outlet_failed(const std::string& peer, const std::string& reason) override;
    void outlet_writable() override;
    void outlet_gone() override;
    void outlet_ready() override;
    void outlet_rtcp(ByteView data) override;

    [[nodiscard]] bool is_full(std::size_t size) const noexcept;
    void forward(const Buffer& datagram);
    void mux(const Frame& frame, const Buffer& head, const RoleTracks& tracks);
    void enqueue(RtpPiece piece);
    void enqueued(const OutPacket& packet);
    void drop_queue() noexcept;
    void sent(std::size_t count);
    void skip(std::size_t count);
    void dropped();
    void begin_anew() noexcept;
    void pause() noexcept;
    void report(double now);
    void publish();
    void note_remote();
    void tell(EventKind kind, std::string peer, std::string detail = {});
    [[nodiscard]] std::size_t waiting() const noexcept { return queue_.size() - first_; }

    const SinkId id_;
    RtpSinkSpec spec_;
    const std::shared_ptr<RtpSinkBoard> board_;
    std::unique_ptr<RtpOutlet> outlet_;
    Worker* worker_ = nullptr;
    std::shared_ptr<Stream> stream_;
    std::vector<OutPacket> queue_;
    std::size_t first_ = 0;  // of the queue, not sent yet
    std::size_t queued_bytes_ = 0;
    std::size_t exempt_ = 0;  // of the kept group, still queued: shared, and useless when cut
    bool sending_ = false;
    bool started_ = false;
    bool skipping_ = false;  // to the next key frame
    bool pacing_ = false;
    bool full_ = false;      // waits for the kernel
    bool closed_ = false;
    bool rebase_ = true;     // the next packet goes on from `next_sequence_`, whatever its number
    std::uint16_t next_sequence_ = 0;
    std::uint16_t offset_ = 0;  // ours less the source's
    double sending_since_ = 0;
    double progress_at_ = 0;
    double pace_at_ = 0;  // the next portion of the kept group
    std::optional<PsMuxer> ps_;
    EsPacketiser es_;
    std::uint32_t clock_rate_ = 90'000;
    struct SentReport {
        std::uint32_t middle_ntp = 0;
        double at = 0;
    };
    std::array<SentReport, 8> reports_{};  // those whose time is remembered, for the round trip
    std::size_t next_report_ = 0;
    std::uint64_t octets_ = 0;  // payload bytes sent, as a report counts them
    std::uint32_t last_timestamp_ = 0;
    double last_sent_at_ = 0;
    double report_at_ = 0;
    std::optional<double> heard_at_;  // the last RTCP of the peer
    RtpSinkFacts facts_;
};

}  // namespace gb28181
