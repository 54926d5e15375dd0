// From packets of any transport to units: what all receivers share.
//
// Order of a packet: RTCP is set aside (MED-29), the fixed header is read, the source rule decides (`source`), the
// packets are put in order, the payload is taken apart (`intake`), and the units go to the stream's feed. Whatever a
// packet holds, it is counted and ends nothing (invariant I8). Units that come before a stream is attached are kept from
// the last key frame on, within bounds: devices send before their answer arrives (INV-15, INV-19).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gb28181/bytes.hpp"
#include "gb28181/intake.hpp"
#include "gb28181/out_packet.hpp"
#include "gb28181/published.hpp"
#include "gb28181/reception.hpp"
#include "gb28181/reorder.hpp"
#include "gb28181/source.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/stream.hpp"

namespace gb28181 {

class TcpReceiver;
class UdpReceiver;
class Worker;

/// `ReceiverCounters` as a plain block of memory, for the board.
struct ReceiverFacts {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::int64_t lost = 0;
    std::uint64_t reordered = 0;
    std::uint64_t duplicated = 0;
    std::uint64_t late = 0;
    std::uint64_t foreign = 0;
    std::uint64_t malformed = 0;
    std::uint64_t rtcp = 0;
    double jitter_ms = 0;
    double bitrate_kbps = 0;
    std::uint64_t frames = 0;
    std::uint64_t key_frames = 0;
    std::uint64_t demux_errors = 0;
    std::uint32_t ssrc = 0;
    bool has_ssrc = false;
    std::array<char, 75> source{};  // ends with a zero
};

/// What the control thread reads of a receiver without asking its worker.
struct ReceiverBoard {
    Published<ReceiverFacts> facts;
};

/// Sockets that were bound for a receiver.
struct BoundSockets {
    std::shared_ptr<const UdpPair> udp;
    UniqueFd tcp;
    /// The worker of the shared port, whose `udp` is; null: sockets of its own.
    Worker* shared = nullptr;
};

class Receiver final : private FeedOwner {
public:
    Receiver(ReceiverId id, ReceiverSpec spec, BoundSockets sockets, std::shared_ptr<ReceiverBoard> board);
    ~Receiver() override;

    // Its worker

    /// Watch the sockets.
    void enter(Worker& worker);
    /// Watch nothing any more; ready to enter another worker.
    void leave();
    [[nodiscard]] Worker& worker() noexcept { return *worker_; }

    // Control

    [[nodiscard]] ReceiverId id() const noexcept { return id_; }
    [[nodiscard]] const ReceiverSpec& spec() const noexcept { return spec_; }
    /// Feed a stream: a new generation there now, and at each new epoch.
    void attach(const std::shared_ptr<Stream>& stream);
    void update(const ReceiverUpdate& update);
    // On the shared port

    /// A packet that may be meant for this receiver, with an SSRC that does not say so.
    void refused(std::uint32_t ssrc, const Source& source);
    /// A connection that named this receiver, and what came over it.
    void adopt(UniqueFd fd, const SocketAddress& peer, ByteView data);

    // RTP sinks that send on these sockets (talk)

    /// Tell the sink, which is on `worker` already, where the device is, now and when that changes, and what it reports.
    void add_talker(SinkId id, Worker& worker);
    void remove_talker(SinkId id);
    [[nodiscard]] bool has_talkers() const noexcept { return !talkers_.empty(); }
    /// Send packets on the device's connection, else to `remote`, else to the source that is believed.
    void talk(const std::vector<OutPacket>& packets, const std::optional<SocketAddress>& remote);
    /// The same for RTCP; over TCP none.
    void talk_control(ByteView data, const std::optional<SocketAddress>& remote);

    /// Close the sockets; nothing is told any more.
    void close();

    // For the transports

    [[nodiscard]] SourceRule& gate() noexcept { return gate_; }
    /// One packet of an RTP socket or connection.
    Verdict packet(ByteView data, const Source& source);
    /// One RTCP packet, from whichever socket. Only those of the latched host are looked at.
    void rtcp_packet(ByteView data, const Source& source);
    /// Bytes of the latched connection were passed over.
    void lost_framing(const Source& source);
    /// A media connection ended.
    void disconnected(const Source& source);
    /// A tolerance fired; told once a receiver. `name` lives as long as the program.
    void quirk(std::string_view name, std::string peer = {});
    void quirks(QuirkSet fired);
    void tell(EventKind kind, std::string peer = {}, std::optional<std::uint32_t> ssrc = {}, std::string detail = {});
    /// A batch of packets is done: the next deadline, and counters to publish.
    void settle();
    /// Where RTCP of the latched host came from.
    [[nodiscard]] const std::optional<Source>& rtcp_peer() const noexcept { return rtcp_peer_; }
    /// A receiver report, when one is due.
    [[nodiscard]] std::vector<std::uint8_t> due_report(double now);

    // Time

    /// Called several times a second.
    void tick(double now);
    /// What was to be given up or given out at this time.
    void alarm(double now);
    [[nodiscard]] double alarm_at() const noexcept { return alarm_at_; }

    /// Write the counters to the board.
    void publish();

    /// Has something to publish; the worker's mark.
    bool marked = false;

private:
    [[nodiscard]] Looks looks(ByteView data) const;
    void failed(std::string_view error);
    void decided(Verdict verdict, const Source& source, double now);
    void note_mismatch(const Source& source, double now, bool refused);
    void accept(ByteView data, double now);
    void pass(const RtpPacket& packet, double now);
    void read(const RtpPacket& packet, double now);
    /// Where talk goes without a remote; empty: nowhere.
    [[nodiscard]] std::string talk_peer() const;
    /// The latched source over UDP, if its address was expected: what is learnt from RTP alone gets nothing (threat S-06).
    [[nodiscard]] std::optional<Source> believed() const;
    void look_for_talk_peer();
    struct Talker;
    void tell_talk_peer(const Talker& talker);
    /// Tell the shared port what is known now.
    void tell_shared();
    [[nodiscard]] RawGroup::Place keep_packet(const RtpPacket& packet, double now);
    void wake() override;
    [[nodiscard]] const std::vector<RawGroup::Entry>& kept() const noexcept override { return raw_.entries(); }
    [[nodiscard]] const Bytes& parameters() const noexcept override { return raw_.parameters(); }
    void take(std::vector<Ordered>& ordered, double now);
    /// Hand `units_` on.
    void give();
    void keep();
    void restart(const Source& source);
    void add_sums(ReceiverFacts& facts) const;
    [[nodiscard]] std::string source_text() const;

    const ReceiverId id_;
    const ReceiverSpec spec_;
    std::shared_ptr<const Payloads> payloads_;
    ParameterSets sets_;  // of the SDP
    const std::shared_ptr<ReceiverBoard> board_;
    Worker* worker_ = nullptr;
    Worker* const shared_ = nullptr;
    std::unique_ptr<UdpReceiver> udp_;
    std::unique_ptr<TcpReceiver> tcp_;
    SourceRule gate_;
    Feed feed_;
    ReorderBuffer reorder_;
    Intake intake_;
    RawGroup raw_;  // of a program stream
    std::int64_t rest_timestamp_ = -1;  // of the last picture that was not demultiplexed
    std::uint64_t wakes_ = 0;
    bool counts_ = true;    // units are pictures that were not counted yet
    ReceptionStatistics statistics_;
    bool began_ = false;  // packets were accepted since the chain was made
    bool closed_ = false;
    bool silence_told_ = false;
    bool first_told_ = false;
    std::vector<EsUnit> units_;
    std::vector<Ordered> ordered_;
    std::vector<EsUnit> pending_;
    std::size_t pending_bytes_ = 0;
    QuirkSet quirks_told_;
    std::vector<std::string_view> other_quirks_told_;
    std::uint64_t packets_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t malformed_ = 0;
    std::uint64_t rtcp_ = 0;
    std::uint64_t frames_ = 0;
    std::uint64_t key_frames_ = 0;
    ReceiverFacts earlier_;  // sums of the chains before the present one
    std::optional<Source> published_source_;  // what `earlier_.source` says
    double bitrate_kbps_ = 0;
    double bitrate_at_ = 0;
    std::uint64_t bitrate_bytes_ = 0;
    std::optional<double> mismatch_since_;
    std::uint32_t report_ssrc_;
    double report_at_ = 0;
    double alarm_at_ = std::numeric_limits<double>::infinity();
    struct Talker {
        SinkId id;
        Worker* worker;
    };
    std::vector<Talker> talkers_;
    std::string talk_peer_;  // as the talkers know it
    unsigned failures_ = 0;
    std::optional<Source> rtcp_peer_;
};

}  // namespace gb28181
