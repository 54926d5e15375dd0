// What the control plane says to the engine and what it hears: value types of the seam (media/engine.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gb28181/flv.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

using ReceiverId = std::uint64_t;
using StreamKey = std::uint64_t;
using SinkId = std::uint64_t;

/// As seen from the gateway's offer (`a=setup`).
enum class Transport : std::uint8_t { udp, tcp_passive, tcp_active };

using Payloads = std::map<std::uint8_t, std::string>;

struct ReceiverSpec {
    Transport transport = Transport::udp;
    std::string host;
    std::uint16_t port = 0;  // 0: none; TCP active then only dials
    std::uint32_t ssrc = 0;
    Payloads payloads;
    std::vector<std::string> expected_hosts;
    bool strict = false;
    double silence_s = 10.0;  // 0: never
    bool shared = false;      // on the shared port
};

/// Applied in place (INV-02); nullopt leaves a field alone.
struct ReceiverUpdate {
    std::optional<std::uint32_t> ssrc;
    std::optional<Payloads> payloads;
    std::optional<std::vector<std::string>> expected_hosts;
    /// NAL units of the SDP, used until the stream has its own (MED-35). Empty leaves them alone.
    std::vector<Bytes> parameter_sets;
    std::optional<std::pair<std::string, std::uint16_t>> connect;
    /// Accept connections on the same port: TCP in answer to a UDP offer (INV-24).
    bool listen = false;
    bool acknowledged = false;
};

enum class Container : std::uint8_t { flv, fmp4, ts };
enum class Wrapping : std::uint8_t { chunked, plain, websocket };
enum class AudioChoice : std::uint8_t { copy, aac, none };

/// Consumers with equal keys get the same bytes, as long as they may share a muxer (`Variant::fits`).
struct VariantKey {
    Container container = Container::flv;
    Wrapping wrapping = Wrapping::chunked;
    FlvHevc hevc = FlvHevc::enhanced;  // of FLV; elsewhere it stays as it is here
    AudioChoice audio = AudioChoice::copy;

    friend auto operator<=>(const VariantKey&, const VariantKey&) = default;
};

struct SocketSinkSpec {
    VariantKey variant;
    std::size_t queue_bytes = std::size_t{2} * 1024 * 1024;
    double stall_s = 10.0;
    /// Frames of so long are written together; 0: each at once.
    double merge_s = 0;
    std::string received;  // what the listener read behind the request
};

struct FrameSinkSpec {
    bool video = true;
    bool audio = true;
    /// AAC made from the source's audio.
    bool made_audio = false;
};

enum class Packing : std::uint8_t { ps, es };

/// Names and meanings as in media/engine.py.
struct RtpSinkSpec {
    Transport transport = Transport::udp;
    std::string host;
    std::uint16_t port = 0;
    std::uint32_t ssrc = 0;
    std::uint8_t payload_type = 96;
    Packing packing = Packing::ps;
    Codec codec = Codec::h264;  // of an elementary stream
    bool video = true;
    bool audio = true;
    std::optional<std::pair<std::string, std::uint16_t>> remote;
    std::vector<std::string> expected_hosts;
    ReceiverId through = 0;  // 0: sockets of its own
    std::size_t queue_bytes = std::size_t{2} * 1024 * 1024;
    double stall_s = 10.0;
};

/// nullopt leaves a field alone.
struct RtpSinkUpdate {
    std::optional<std::pair<std::string, std::uint16_t>> remote;
    std::optional<bool> sending;
    std::optional<std::uint32_t> ssrc;
    std::optional<std::uint8_t> payload_type;
};

/// Names and meanings of EventKind in media/engine.py, in its order.
enum class EventKind : std::uint8_t {
    first_packet,
    connected,
    connect_failed,
    disconnected,
    tracks,
    key_frame,
    source_switched,
    source_conflict,
    ssrc_mismatch,
    quirk,
    silence,
    sink_closed,
};

enum class Target : std::uint8_t { receiver, stream, sink };

struct Event {
    Target target = Target::receiver;
    std::uint64_t id = 0;  // of the receiver, stream or sink
    EventKind kind = EventKind::quirk;
    StreamKey stream = 0;  // 0: none
    std::string peer;
    std::optional<std::uint32_t> ssrc;
    std::vector<TrackPtr> tracks;
    std::string detail;
    std::uint64_t bytes_out = 0;
};

/// RFC 3550 terms; everything counts from the opening of the receiver.
struct ReceiverCounters {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::int64_t lost = 0;
    std::uint64_t reordered = 0;
    std::uint64_t duplicated = 0;
    std::uint64_t late = 0;
    std::int64_t foreign = 0;
    std::uint64_t malformed = 0;
    std::uint64_t rtcp = 0;
    double jitter_ms = 0;
    double bitrate_kbps = 0;
    std::uint64_t frames = 0;
    std::uint64_t key_frames = 0;
    std::uint64_t demux_errors = 0;
    std::optional<std::uint32_t> ssrc;
    std::string source;
};

struct StreamCounters {
    std::uint64_t sinks = 0;
    std::uint64_t frames_in = 0;
    std::uint64_t frames_dropped = 0;
    std::uint64_t frames_frozen = 0;
    std::uint64_t bytes_out = 0;
    std::uint64_t demuxed = 0;
    std::uint64_t pictures = 0;
    std::int64_t picture_90k = 0;  // decoding time of the newest picture: output, and on the device's clock
    std::int64_t device_90k = 0;
};

}  // namespace gb28181
