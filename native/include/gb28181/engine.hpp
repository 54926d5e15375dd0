// The native media plane as the control plane sees it (media/engine.py): workers, and who is where.
//
// Theory of operation. All calls are made by one thread, the control thread. It owns the tables of what is open and on
// which worker; the workers own the things themselves. A receiver lives on the worker of the stream that it feeds: it is
// moved there when it is attached elsewhere than it was opened. Ports are bound here, so a port that is taken is known
// at once; `close_receiver` returns when its sockets are closed, so the port can be used again.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "gb28181/outbox.hpp"
#include "gb28181/receiver.hpp"
#include "gb28181/rtp_sink.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/stream.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

class Engine {
public:
    /// `workers`: threads; 0 as many as the process has cores. `freeze_on_loss`: video behind a loss is held back until
    /// the next key frame. Throws std::system_error.
    explicit Engine(unsigned workers, bool freeze_on_loss = false);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Binds one port, UDP with RTCP above it and TCP, for all receivers whose spec says `shared`; an errno. Once.
    [[nodiscard]] int open_shared_port(const std::string& host, std::uint16_t port);

    // Receivers. Unknown ids are ignored: the receiver was closed meanwhile.

    /// Binds, all or nothing; `error` is an errno. On the shared port: ENOTCONN where there is none, EEXIST for an SSRC
    /// that another receiver on it agreed.
    [[nodiscard]] Outcome<ReceiverId> open_receiver(ReceiverSpec spec);
    void update_receiver(ReceiverId id, ReceiverUpdate update);
    /// A new generation of the stream. False: one of the two is not open.
    bool attach(ReceiverId id, StreamKey stream);
    void close_receiver(ReceiverId id);
    [[nodiscard]] std::optional<ReceiverFacts> receiver_facts(ReceiverId id) const;

    // Streams

    [[nodiscard]] StreamKey create_stream();
    void push(StreamKey stream, Frame frame);
    /// Ends all its sinks, each with an event.
    void close_stream(StreamKey stream, std::string reason);
    [[nodiscard]] std::vector<TrackPtr> tracks(StreamKey stream) const;
    [[nodiscard]] std::optional<StreamCounters> stream_counters(StreamKey stream) const;

    // Sinks; 0 where the stream is not open.

    /// Takes the connected socket over; where it returns 0 the socket still belongs to the caller.
    [[nodiscard]] SinkId add_socket_sink(StreamKey stream, int fd, SocketSinkSpec spec);
    [[nodiscard]] SinkId add_frame_sink(StreamKey stream, const FrameSinkSpec& spec);
    /// Binds, all or nothing; `error` is an errno, ENOENT for a receiver to send through that is not open. It sends nothing
    /// before it is told to.
    [[nodiscard]] Outcome<SinkId> add_rtp_sink(StreamKey stream, RtpSinkSpec spec);
    void update_rtp_sink(SinkId id, RtpSinkUpdate update);
    [[nodiscard]] std::optional<RtpSinkFacts> rtp_sink_facts(SinkId id) const;
    /// A socket or RTP sink still tells its end, with `reason` "closed".
    void close_sink(SinkId id);

    // What the workers have to say

    /// Readable while there are notices.
    [[nodiscard]] int event_fd() const noexcept { return shared_.outbox.fd(); }
    /// Appends them, and settles the accounts of frames that were taken.
    void take_notices(std::vector<Notice>& out);
    [[nodiscard]] std::uint64_t failures() const noexcept { return shared_.failures.load(); }

    /// Ends everything and returns when the sockets are closed; notices can still be taken. Idempotent.
    void stop();
    [[nodiscard]] std::size_t worker_count() const noexcept { return workers_.size(); }
    [[nodiscard]] bool has_gro() const noexcept { return shared_.has_gro; }
    [[nodiscard]] bool has_gso() const noexcept { return shared_.has_gso; }
    /// As on a kernel without. Before anything is opened.
    void forgo_offloads() noexcept { shared_.has_gro = shared_.has_gso = false; }
    /// How often RTP sinks report, and after how long without a report a peer is given up.
    void set_rtcp_times(double report_s, double silence_s) noexcept {
        shared_.rtcp_report_s.store(report_s);
        shared_.rtcp_silence_s.store(silence_s);
    }
    /// Pause between the tries of a dialling; 1 s by Annex D, shorter in tests.
    void set_dial_pause(double seconds) noexcept { shared_.dial_pause_s.store(seconds); }

private:
    struct ReceiverPlace {
        std::size_t worker;
        std::shared_ptr<ReceiverBoard> board;
        std::vector<std::uint32_t> shared_ssrcs;  // agreed on the shared port
    };
    struct StreamPlace {
        std::size_t worker;
        std::shared_ptr<StreamBoard> board;
    };
    enum class SinkKind : std::uint8_t { socket, frames, rtp };
    struct SinkPlace {
        std::size_t worker;
        StreamKey stream;
        SinkKind kind;
        std::shared_ptr<RtpSinkBoard> board;
        ReceiverId through = 0;
    };

    /// An order about a receiver. On the shared port this waits until the port knows what follows from it: a packet that
    /// is sent when it returns must not be dropped as nobody's.
    template <class Order>
    void give(std::size_t place, Order order, bool is_shared);
    [[nodiscard]] std::size_t least_loaded() const noexcept;
    [[nodiscard]] Worker& worker(std::size_t index) noexcept { return *workers_[index]; }

    Shared shared_;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::vector<std::size_t> loads_;  // streams and receivers of each
    std::unordered_map<ReceiverId, ReceiverPlace> receivers_;
    std::unordered_map<StreamKey, StreamPlace> streams_;
    std::unordered_map<SinkId, SinkPlace> sinks_;
    std::shared_ptr<const UdpPair> shared_udp_;
    std::uint64_t last_id_ = 0;
    bool stopped_ = false;
};

}  // namespace gb28181
