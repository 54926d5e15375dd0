// The seam to Python: commands in, notices and counters out. Nothing per packet crosses it, and no thread but the
// caller's ever runs Python. `gb28181gw/media/native.py` is the only module that imports this; `_native.pyi` describes it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "gb28181/engine.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace gb28181 {
namespace {

// Limits of what Python may hand in, so that a slip there does not become memory here.
constexpr std::size_t max_pushed_bytes = std::size_t{16} * 1024 * 1024;

nb::str text(std::string_view value) { return nb::str(value.data(), value.size()); }

nb::bytes bytes_of(ByteView value) { return nb::bytes(value.data(), value.size()); }

ByteView view_of(const nb::bytes& value) {
    return {reinterpret_cast<const std::uint8_t*>(value.c_str()), value.size()};
}

// nanobind holds what is not const; a Track has nothing but read-only properties there.
std::shared_ptr<Track> python_track(const TrackPtr& track) { return std::const_pointer_cast<Track>(track); }

nb::tuple python_tracks(const std::vector<TrackPtr>& tracks) {
    nb::list made;
    for (const TrackPtr& track : tracks) made.append(nb::cast(python_track(track)));
    return nb::tuple(made);
}

std::optional<Codec> codec_of(std::string_view name) {
    for (unsigned index = 0; index <= static_cast<unsigned>(Codec::svaca); ++index) {
        const auto codec = static_cast<Codec>(index);
        if (codec_name(codec) == name) return codec;
    }
    return std::nullopt;
}

std::shared_ptr<Track> make_track(std::string_view codec, int width, int height, double fps, int sample_rate,
                                  int channels, const std::vector<nb::bytes>& parameter_sets) {
    const auto known = codec_of(codec);
    if (!known) throw nb::value_error("a codec that the engine does not know");
    auto track = std::make_shared<Track>();
    track->kind = is_video(*known) ? TrackKind::video : TrackKind::audio;
    track->codec = *known;
    track->width = width;
    track->height = height;
    track->fps = fps;
    track->sample_rate = sample_rate;
    track->channels = channels;
    for (const nb::bytes& set : parameter_sets) track->parameter_sets.push_back(view_of(set).copy());
    return track;
}

// What a sink has for its consumer in Python.
struct FrameBatch {
    SinkId sink = 0;
    nb::list frames;
};

template <class Enum>
Enum choice(int value, Enum last, const char* what) {
    if (value < 0 || value > static_cast<int>(last)) throw nb::value_error(what);
    return static_cast<Enum>(value);
}

class PyEngine {
public:
    PyEngine(unsigned workers, bool freeze_on_loss) : engine_(workers, freeze_on_loss) {}

    ReceiverId open_receiver(int transport, std::string host, std::uint16_t port, std::uint32_t ssrc,
                             const std::vector<std::pair<std::uint8_t, std::string>>& payloads,
                             std::vector<std::string> expected_hosts, bool strict, double silence_s, bool shared) {
        ReceiverSpec spec;
        spec.transport = choice(transport, Transport::tcp_active, "transport");
        spec.host = std::move(host);
        spec.port = port;
        spec.ssrc = ssrc;
        spec.payloads = Payloads(payloads.begin(), payloads.end());
        spec.expected_hosts = std::move(expected_hosts);
        spec.strict = strict;
        spec.silence_s = silence_s;
        spec.shared = shared;
        const Outcome<ReceiverId> opened = [&] {
            const nb::gil_scoped_release others_may_run;
            return engine_.open_receiver(std::move(spec));
        }();
        if (opened.error != 0) {
            errno = opened.error;
            PyErr_SetFromErrno(PyExc_OSError);
            throw nb::python_error();
        }
        return opened.value;
    }

    void open_shared_port(const std::string& host, std::uint16_t port) {
        if (const int error = engine_.open_shared_port(host, port); error != 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            throw nb::python_error();
        }
    }

    void update_receiver(ReceiverId id, std::optional<std::uint32_t> ssrc,
                         const std::optional<std::vector<std::pair<std::uint8_t, std::string>>>& payloads,
                         std::optional<std::vector<std::string>> expected_hosts,
                         const std::vector<nb::bytes>& parameter_sets,
                         std::optional<std::pair<std::string, std::uint16_t>> connect, bool listen,
                         bool acknowledged) {
        ReceiverUpdate update;
        update.ssrc = ssrc;
        if (payloads) update.payloads = Payloads(payloads->begin(), payloads->end());
        update.expected_hosts = std::move(expected_hosts);
        for (const nb::bytes& unit : parameter_sets) update.parameter_sets.push_back(view_of(unit).copy());
        update.connect = std::move(connect);
        update.listen = listen;
        update.acknowledged = acknowledged;
        const nb::gil_scoped_release others_may_run;
        engine_.update_receiver(id, std::move(update));
    }

    bool attach(ReceiverId id, StreamKey stream) {
        const nb::gil_scoped_release others_may_run;
        return engine_.attach(id, stream);
    }

    void close_receiver(ReceiverId id) {
        const nb::gil_scoped_release others_may_run;
        engine_.close_receiver(id);
    }

    // In the order of `ReceiverCounters` in media/engine.py, without `bound`; None for one that is not open.
    nb::object receiver_counters(ReceiverId id) const {
        const auto facts = engine_.receiver_facts(id);
        if (!facts) return nb::none();
        nb::object ssrc = nb::none();
        if (facts->has_ssrc) ssrc = nb::int_(facts->ssrc);
        return nb::make_tuple(facts->packets, facts->bytes, facts->lost, facts->reordered, facts->duplicated,
                              facts->late, facts->foreign, facts->malformed, facts->rtcp, facts->jitter_ms,
                              facts->bitrate_kbps, facts->frames, facts->key_frames, facts->demux_errors, ssrc,
                              nb::str(facts->source.data()));
    }

    StreamKey create_stream() { return engine_.create_stream(); }

    void push(StreamKey stream, const std::shared_ptr<Track>& track, std::int64_t pts_90k, std::int64_t dts_90k,
              bool key, const nb::bytes& data) {
        if (data.size() > max_pushed_bytes) throw nb::value_error("a frame of more than 16 MiB");
        Frame frame;
        frame.track = track;
        frame.pts_90k = pts_90k;
        frame.dts_90k = dts_90k;
        frame.key = key;
        frame.payload = Buffer::copy_of(view_of(data));
        engine_.push(stream, std::move(frame));
    }

    void close_stream(StreamKey stream, std::string reason) { engine_.close_stream(stream, std::move(reason)); }

    nb::tuple tracks(StreamKey stream) const { return python_tracks(engine_.tracks(stream)); }

    // In the order of `StreamCounters` in media/engine.py; None for one that is not open.
    nb::object stream_counters(StreamKey stream) const {
        const auto counters = engine_.stream_counters(stream);
        if (!counters) return nb::none();
        return nb::make_tuple(counters->sinks, counters->frames_in, counters->frames_dropped,
                              counters->frames_frozen, counters->bytes_out, counters->pictures,
                              counters->picture_90k, counters->device_90k,
                              counters->demuxed);
    }

    SinkId add_socket_sink(StreamKey stream, int fd, int container, int wrapping, int hevc, int audio,
                           std::size_t queue_bytes, double stall_s, double merge_s, const nb::bytes& received) {
        SocketSinkSpec spec;
        spec.variant.container = choice(container, Container::ts, "container");
        spec.variant.wrapping = choice(wrapping, Wrapping::websocket, "wrapping");
        spec.variant.hevc = choice(hevc, FlvHevc::legacy, "hevc");
        spec.variant.audio = choice(audio, AudioChoice::none, "audio");
        spec.queue_bytes = queue_bytes;
        spec.stall_s = stall_s;
        spec.merge_s = merge_s;
        spec.received.assign(received.c_str(), received.size());
        return engine_.add_socket_sink(stream, fd, std::move(spec));
    }

    SinkId add_frame_sink(StreamKey stream, bool video, bool audio, bool made_audio) {
        return engine_.add_frame_sink(stream, {.video = video, .audio = audio, .made_audio = made_audio});
    }

    // The id, or 0 where the stream is not open.
    SinkId add_rtp_sink(StreamKey stream, int transport, std::string host, std::uint16_t port, std::uint32_t ssrc,
                        std::uint8_t payload_type, const std::string& codec, bool video, bool audio,
                        std::optional<std::pair<std::string, std::uint16_t>> remote,
                        std::vector<std::string> expected_hosts, ReceiverId through, std::size_t queue_bytes,
                        double stall_s) {
        RtpSinkSpec spec;
        spec.transport = choice(transport, Transport::tcp_active, "transport");
        spec.host = std::move(host);
        spec.port = port;
        spec.ssrc = ssrc;
        spec.payload_type = payload_type & 0x7FU;
        if (!codec.empty()) {
            const auto known = codec_of(codec);
            if (!known || !is_packable(*known)) throw nb::value_error("a codec without a payload format");
            spec.packing = Packing::es;
            spec.codec = *known;
        }
        spec.video = video;
        spec.audio = audio;
        spec.remote = std::move(remote);
        spec.expected_hosts = std::move(expected_hosts);
        spec.through = through;
        spec.queue_bytes = queue_bytes;
        spec.stall_s = stall_s;
        const Outcome<SinkId> added = [&] {
            const nb::gil_scoped_release others_may_run;
            return engine_.add_rtp_sink(stream, std::move(spec));
        }();
        if (added.error != 0) {
            errno = added.error;
            PyErr_SetFromErrno(PyExc_OSError);
            throw nb::python_error();
        }
        return added.value;
    }

    void update_rtp_sink(SinkId id, std::optional<std::pair<std::string, std::uint16_t>> remote,
                         std::optional<bool> sending, std::optional<std::uint32_t> ssrc,
                         std::optional<std::uint8_t> payload_type) {
        RtpSinkUpdate update;
        update.remote = std::move(remote);
        update.sending = sending;
        update.ssrc = ssrc;
        if (payload_type) update.payload_type = *payload_type & 0x7FU;
        engine_.update_rtp_sink(id, std::move(update));
    }

    // In the order of `RtpSinkCounters` in media/engine.py; None for one that is not open.
    nb::object rtp_sink_counters(SinkId id) const {
        const auto facts = engine_.rtp_sink_facts(id);
        if (!facts) return nb::none();
        return nb::make_tuple(facts->packets, facts->bytes, facts->dropped, facts->reported_lost, facts->rtt_ms,
                              nb::str(facts->remote.data()), facts->passthrough);
    }

    void close_sink(SinkId id) { engine_.close_sink(id); }

    int event_fd() const noexcept { return engine_.event_fd(); }

    // Events, frames in batches and complaints (text), in order.
    nb::list take() {
        notices_.clear();
        engine_.take_notices(notices_);
        nb::list out;
        FrameBatch* batch = nullptr;
        for (Notice& notice : notices_) {
            if (auto* const frame = std::get_if<FrameNotice>(&notice)) {
                if (batch == nullptr || batch->sink != frame->sink) {
                    const nb::object made = nb::cast(FrameBatch{.sink = frame->sink, .frames = nb::list()});
                    batch = nb::inst_ptr<FrameBatch>(made);
                    out.append(made);
                }
                const Frame& item = frame->frame;
                batch->frames.append(nb::make_tuple(python_track(item.track), item.pts_90k, item.dts_90k, item.key,
                                                    bytes_of(item.payload), item.arrival));
                continue;
            }
            batch = nullptr;
            if (auto* const event = std::get_if<Event>(&notice)) {
                out.append(nb::cast(std::move(*event)));
            } else {
                out.append(text(std::get<Complaint>(notice).text));
            }
        }
        notices_.clear();
        return out;
    }

    void stop() {
        const nb::gil_scoped_release others_may_run;
        engine_.stop();
    }

    std::uint64_t failures() const noexcept { return engine_.failures(); }
    std::size_t workers() const noexcept { return engine_.worker_count(); }
    bool has_gro() const noexcept { return engine_.has_gro(); }
    void set_dial_pause(double seconds) noexcept { engine_.set_dial_pause(seconds); }
    void set_rtcp_times(double report_s, double silence_s) noexcept { engine_.set_rtcp_times(report_s, silence_s); }

private:
    Engine engine_;
    std::vector<Notice> notices_;
};

void bind(nb::module_& module) {
    // Whoever ends the process with a plane that still runs is not helped by a list of its objects.
    nb::set_leak_warnings(false);
    module.doc() = "The native media plane; gb28181gw.media.native is its face.";
    nb::class_<Track>(module, "Track")
        .def_prop_ro("codec", [](const Track& track) { return text(codec_name(track.codec)); })
        .def_ro("width", &Track::width)
        .def_ro("height", &Track::height)
        .def_ro("fps", &Track::fps)
        .def_ro("sample_rate", &Track::sample_rate)
        .def_ro("channels", &Track::channels)
        .def_prop_ro("parameter_sets", [](const Track& track) {
            nb::list sets;
            for (const Bytes& set : track.parameter_sets) sets.append(bytes_of(set));
            return nb::tuple(sets);
        });
    module.def("make_track", &make_track, "codec"_a, "width"_a, "height"_a, "fps"_a, "sample_rate"_a, "channels"_a,
               "parameter_sets"_a);
    module.def("probe_udp_gro", &probe_udp_gro);

    nb::class_<Event>(module, "Event")
        .def_prop_ro("target", [](const Event& event) { return static_cast<int>(event.target); })
        .def_ro("id", &Event::id)
        .def_prop_ro("kind", [](const Event& event) { return static_cast<int>(event.kind); })
        .def_ro("stream", &Event::stream)
        .def_ro("peer", &Event::peer)
        .def_ro("ssrc", &Event::ssrc)
        .def_prop_ro("tracks", [](const Event& event) { return python_tracks(event.tracks); })
        .def_ro("detail", &Event::detail)
        .def_ro("bytes_out", &Event::bytes_out);
    nb::class_<FrameBatch>(module, "FrameBatch")
        .def_ro("sink", &FrameBatch::sink)
        .def_ro("frames", &FrameBatch::frames);

    nb::class_<PyEngine>(module, "Engine")
        .def(nb::init<unsigned, bool>(), "workers"_a, "freeze_on_loss"_a)
        .def("open_receiver", &PyEngine::open_receiver, "transport"_a, "host"_a, "port"_a, "ssrc"_a, "payloads"_a,
             "expected_hosts"_a, "strict"_a, "silence_s"_a, "shared"_a)
        .def("open_shared_port", &PyEngine::open_shared_port, "host"_a, "port"_a)
        .def("update_receiver", &PyEngine::update_receiver, "receiver"_a, "ssrc"_a.none(), "payloads"_a.none(),
             "expected_hosts"_a.none(), "parameter_sets"_a, "connect"_a.none(), "listen"_a, "acknowledged"_a)
        .def("attach", &PyEngine::attach, "receiver"_a, "stream"_a)
        .def("close_receiver", &PyEngine::close_receiver, "receiver"_a)
        .def("receiver_counters", &PyEngine::receiver_counters, "receiver"_a)
        .def("create_stream", &PyEngine::create_stream)
        .def("push", &PyEngine::push, "stream"_a, "track"_a, "pts_90k"_a, "dts_90k"_a, "key"_a, "data"_a)
        .def("close_stream", &PyEngine::close_stream, "stream"_a, "reason"_a)
        .def("tracks", &PyEngine::tracks, "stream"_a)
        .def("stream_counters", &PyEngine::stream_counters, "stream"_a)
        .def("add_socket_sink", &PyEngine::add_socket_sink, "stream"_a, "fd"_a, "container"_a, "wrapping"_a, "hevc"_a,
             "audio"_a, "queue_bytes"_a, "stall_s"_a, "merge_s"_a, "received"_a)
        .def("add_frame_sink", &PyEngine::add_frame_sink, "stream"_a, "video"_a, "audio"_a, "made_audio"_a)
        .def("add_rtp_sink", &PyEngine::add_rtp_sink, "stream"_a, "transport"_a, "host"_a, "port"_a, "ssrc"_a,
             "payload_type"_a, "codec"_a, "video"_a, "audio"_a, "remote"_a.none(), "expected_hosts"_a, "through"_a,
             "queue_bytes"_a, "stall_s"_a)
        .def("update_rtp_sink", &PyEngine::update_rtp_sink, "sink"_a, "remote"_a.none(), "sending"_a.none(),
             "ssrc"_a.none(), "payload_type"_a.none())
        .def("rtp_sink_counters", &PyEngine::rtp_sink_counters, "sink"_a)
        .def("close_sink", &PyEngine::close_sink, "sink"_a)
        .def("event_fd", &PyEngine::event_fd)
        .def("take", &PyEngine::take)
        .def("stop", &PyEngine::stop)
        .def_prop_ro("failures", &PyEngine::failures)
        .def_prop_ro("workers", &PyEngine::workers)
        .def_prop_ro("has_gro", &PyEngine::has_gro)
        .def("set_dial_pause", &PyEngine::set_dial_pause, "seconds"_a)
        .def("set_rtcp_times", &PyEngine::set_rtcp_times, "report_s"_a, "silence_s"_a);
}

}  // namespace
}  // namespace gb28181

NB_MODULE(_native, module) { gb28181::bind(module); }
