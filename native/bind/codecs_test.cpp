// The codecs as a Python module, for the differential tests alone: the same bytes go through these and through
// gb28181gw.media.wire, and must come out the same. Not part of the package.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gb28181/clock.hpp"
#include "gb28181/demuxer.hpp"
#include "gb28181/es_depacketiser.hpp"
#include "gb28181/es_packetiser.hpp"
#include "gb28181/flv.hpp"
#include "gb28181/fmp4.hpp"
#include "gb28181/nal.hpp"
#include "gb28181/picture_order.hpp"
#include "gb28181/ps_demux.hpp"
#include "gb28181/ps_mux.hpp"
#include "gb28181/reorder.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/source.hpp"
#include "gb28181/ts_mux.hpp"

namespace nb = nanobind;
using namespace gb28181;  // NOLINT(google-build-using-namespace)

namespace {

ByteView view_of(const nb::bytes& data) { return {static_cast<const std::uint8_t*>(data.data()), data.size()}; }

nb::bytes bytes_of(ByteView view) { return nb::bytes(view.data(), view.size()); }

nb::str str_of(std::string_view text) { return nb::str(text.data(), text.size()); }

/// Exactly the bytes of a Python object in a heap block of their own, so that a sanitizer sees a read behind them.
class Exact {
public:
    explicit Exact(const nb::bytes& data) : size_(data.size()), bytes_(std::make_unique<std::uint8_t[]>(size_)) {
        if (size_ != 0) std::memcpy(bytes_.get(), data.data(), size_);
    }
    [[nodiscard]] ByteView view() const { return {bytes_.get(), size_}; }

private:
    std::size_t size_;
    std::unique_ptr<std::uint8_t[]> bytes_;
};

Codec codec_of(const std::string& name) {
    for (int index = 0; index <= static_cast<int>(Codec::svaca); ++index) {
        if (codec_name(static_cast<Codec>(index)) == name) return static_cast<Codec>(index);
    }
    throw std::invalid_argument("no codec is called " + name);
}

struct PyTrack {
    TrackPtr track;
};

nb::tuple facts_of(const Track& track) {
    nb::list sets;
    for (const Bytes& unit : track.parameter_sets) sets.append(bytes_of(unit));
    return nb::make_tuple(str_of(track_kind_name(track.kind)), str_of(codec_name(track.codec)), track.width,
                          track.height, track.fps, track.sample_rate, track.channels, nb::tuple(sets));
}

PyTrack make_track(const std::string& codec, int width, int height, double fps, int sample_rate, int channels,
                   const std::vector<nb::bytes>& parameter_sets) {
    Track track;
    track.codec = codec_of(codec);
    track.kind = is_video(track.codec) ? TrackKind::video : TrackKind::audio;
    track.width = width;
    track.height = height;
    track.fps = fps;
    track.sample_rate = sample_rate;
    track.channels = channels;
    for (const nb::bytes& unit : parameter_sets) track.parameter_sets.push_back(view_of(unit).copy());
    return {std::make_shared<const Track>(std::move(track))};
}

nb::list units_of(std::vector<EsUnit>& units) {
    nb::list out;
    for (const EsUnit& unit : units) {
        out.append(nb::make_tuple(PyTrack{unit.track}, unit.stream_id, unit.pts_90k, unit.dts_90k, unit.key,
                                  bytes_of(unit.payload), unit.damaged, unit.rtp_timestamp, unit.arrival));
    }
    units.clear();
    return out;
}

nb::dict quirks_of(const QuirkCounts& quirks) {
    nb::dict out;
    quirks.set().each([&](Quirk quirk) { out[str_of(quirk_name(quirk))] = quirks.count(quirk); });
    return out;
}

nb::set names_of(QuirkSet quirks) {
    nb::set out;
    quirks.each([&](Quirk quirk) { out.add(str_of(quirk_name(quirk))); });
    return out;
}

// ------------------------------------------------------------------ demux

class PyDemuxer {
public:
    explicit PyDemuxer(std::unique_ptr<Demuxer> demuxer) : demuxer_(std::move(demuxer)) {}

    nb::list feed(const nb::bytes& payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now) {
        const Exact exact(payload);
        demuxer_->feed(exact.view(), rtp_timestamp, marker, now, units_);
        return units_of(units_);
    }
    nb::list flush_after(double now) {
        demuxer_->flush_after(now, units_);
        return units_of(units_);
    }
    nb::list flush() {
        demuxer_->flush(units_);
        return units_of(units_);
    }
    void gap() { demuxer_->gap(); }
    void preset(const std::string& codec, const std::vector<nb::bytes>& parameter_sets) {
        std::vector<Bytes> sets;
        for (const nb::bytes& unit : parameter_sets) sets.push_back(view_of(unit).copy());
        demuxer_->preset(codec_of(codec), sets);
    }
    [[nodiscard]] std::optional<double> deadline() const { return demuxer_->deadline(); }
    [[nodiscard]] nb::list tracks() const {
        nb::list out;
        for (const TrackPtr& track : demuxer_->tracks()) out.append(facts_of(*track));
        return out;
    }
    [[nodiscard]] std::uint64_t tracks_version() const { return demuxer_->tracks_version(); }
    [[nodiscard]] std::string kind() const {
        if (demuxer_->is_program()) return "PsDemuxer";
        if (dynamic_cast<H264Depacketiser*>(demuxer_.get()) != nullptr) return "H264Depacketiser";
        if (dynamic_cast<H265Depacketiser*>(demuxer_.get()) != nullptr) return "H265Depacketiser";
        if (dynamic_cast<AacDepacketiser*>(demuxer_.get()) != nullptr) return "AacDepacketiser";
        return "AudioDepacketiser";
    }
    [[nodiscard]] nb::dict counters() const {
        const DemuxCounters& counters = demuxer_->counters();
        nb::dict out;
        out["units"] = counters.units;
        out["key_frames"] = counters.key_frames;
        out["gaps"] = counters.gaps;
        out["dropped_units"] = counters.dropped_units;
        out["resyncs"] = counters.resyncs;
        out["skipped_bytes"] = counters.skipped_bytes;
        out["malformed"] = counters.malformed;
        out["oversized"] = counters.oversized;
        out["premature"] = counters.premature;
        return out;
    }
    [[nodiscard]] nb::dict quirks() const { return quirks_of(demuxer_->quirks()); }
    [[nodiscard]] nb::dict stream_types() const {
        nb::dict out;
        if (const auto* const program = dynamic_cast<const PsDemuxer*>(demuxer_.get())) {
            for (const auto& [id, type] : program->stream_types()) out[nb::int_(id)] = type;
        }
        return out;
    }

private:
    std::unique_ptr<Demuxer> demuxer_;
    std::vector<EsUnit> units_;
};

// ---------------------------------------------------------------- reorder

class PyReorder {
public:
    PyReorder(double window_s, double max_window_s, std::size_t max_packets)
        : buffer_(window_s, max_window_s, max_packets) {}

    nb::list push(const nb::bytes& datagram, double now) {
        const Exact exact(datagram);
        const auto packet = RtpPacket::parse(exact.view());
        if (!packet) throw std::invalid_argument("not an RTP packet");
        if (buffer_.pass(*packet)) {
            nb::list out;
            out.append(bytes_of(packet->payload));
            return out;
        }
        buffer_.push(*packet, now, ordered_);
        return take();
    }
    nb::list poll(double now) {
        buffer_.poll(now, ordered_);
        return take();
    }
    nb::list flush() {
        buffer_.flush(ordered_);
        return take();
    }
    [[nodiscard]] nb::tuple state() const {
        return nb::make_tuple(buffer_.held(), buffer_.window_s(), buffer_.deadline(), buffer_.lost(),
                              buffer_.reordered(), buffer_.duplicated(), buffer_.late(), buffer_.restarts());
    }

private:
    nb::list take() {
        nb::list out;
        for (const Ordered& next : ordered_) {
            if (next.is_gap) {
                out.append(nb::make_tuple(next.lost, next.restart));
            } else {
                out.append(bytes_of(next.packet.payload));
            }
        }
        ordered_.clear();
        return out;
    }

    ReorderBuffer buffer_;
    std::vector<Ordered> ordered_;
};

// ----------------------------------------------------------------- framer

class PyFramer {
public:
    explicit PyFramer(std::optional<std::uint32_t> ssrc) : framer_(ssrc) {}

    /// What was cut, and whether the connection is still good.
    nb::tuple feed(const nb::bytes& data, bool settle) {
        const Exact exact(data);
        const bool good = framer_.feed(exact.view(), framed_);
        nb::list out;
        for (const Framed& next : framed_) {
            if (next.is_lost()) {
                out.append(nb::none());
            } else {
                out.append(bytes_of(next.packet));
            }
        }
        framed_.clear();
        if (settle) framer_.settle();
        return nb::make_tuple(out, good);
    }
    [[nodiscard]] nb::tuple state() const {
        return nb::make_tuple(static_cast<int>(framer_.framing()), framer_.resyncs(), framer_.skipped_bytes(),
                              names_of(framer_.quirks()), framer_.buffered());
    }

private:
    Framer framer_;
    std::vector<Framed> framed_;
};

// ------------------------------------------------------------------ clock

class PyClock {
public:
    explicit PyClock(int rtp_clock) : clock_(rtp_clock) {}

    nb::tuple stamp(const PyTrack& track, std::optional<std::int64_t> pts, std::optional<std::int64_t> dts, bool key,
                    const nb::bytes& payload, std::optional<std::uint32_t> rtp_timestamp, double arrival) {
        EsUnit unit;
        unit.track = track.track;
        unit.pts_90k = pts;
        unit.dts_90k = dts;
        unit.key = key;
        unit.payload = Buffer::copy_of(view_of(payload));
        unit.rtp_timestamp = rtp_timestamp;
        unit.arrival = arrival;
        const Frame frame = clock_.frame(std::move(unit));
        return nb::make_tuple(frame.pts_90k, frame.dts_90k);
    }
    void restart() { clock_.restart(); }
    [[nodiscard]] nb::tuple state() const {
        return nb::make_tuple(clock_.rebased(), clock_.interpolated(), names_of(clock_.quirks()));
    }

private:
    StreamClock clock_;
};

// -------------------------------------------------------------------- flv

class PyFlv {
public:
    PyFlv(const std::string& hevc, std::optional<std::int64_t> base_90k)
        : muxer_(hevc == "legacy" ? FlvHevc::legacy : FlvHevc::enhanced, base_90k) {}

    nb::bytes header(const std::vector<PyTrack>& tracks, std::optional<std::int64_t> pts_90k) {
        std::vector<TrackPtr> list;
        for (const PyTrack& track : tracks) list.push_back(track.track);
        muxer_.header(list, pts_90k, out_);
        return take();
    }
    nb::bytes sequence_header(const PyTrack& track, std::uint32_t timestamp_ms) {
        muxer_.sequence_header(track.track, timestamp_ms, out_);
        return take();
    }
    nb::bytes mux(const PyTrack& track, std::int64_t pts, std::int64_t dts, bool key, const nb::bytes& payload) {
        Frame frame;
        frame.track = track.track;
        frame.pts_90k = pts;
        frame.dts_90k = dts;
        frame.key = key;
        frame.payload = Buffer::copy_of(view_of(payload));
        const std::size_t bound = muxer_.bound(frame);
        muxer_.mux(frame, out_);
        if (out_.size() > bound + frame.payload.size() / 3) throw std::logic_error("the bound of a tag is too small");
        return take();
    }

private:
    nb::bytes take() {
        const Buffer whole = out_.finish();
        return bytes_of(whole);
    }

    FlvMuxer muxer_;
    ByteBuilder out_;
};

// ------------------------------------------------------- packing for RTP

Frame frame_of(const PyTrack& track, std::int64_t pts, std::int64_t dts, bool key, const nb::bytes& payload) {
    Frame frame;
    frame.track = track.track;
    frame.pts_90k = pts;
    frame.dts_90k = dts;
    frame.key = key;
    frame.payload = Buffer::copy_of(view_of(payload));
    return frame;
}

nb::list pieces_of(const std::function<void(const EsPacketiser::OnPiece&)>& make) {
    nb::list out;
    make([&out](const RtpPiece& piece) {
        Bytes payload(piece.prefix.begin(), piece.prefix.begin() + piece.prefix_size);
        payload.insert(payload.end(), piece.body.data(), piece.body.data() + piece.body.size());
        out.append(nb::make_tuple(piece.timestamp, piece.marker, bytes_of(ByteView(payload))));
    });
    return out;
}

class PyPsMuxer {
public:
    PyPsMuxer(const std::optional<std::string>& video, const std::optional<std::string>& audio)
        : muxer_(video ? std::optional(codec_of(*video)) : std::nullopt,
                 audio ? std::optional(codec_of(*audio)) : std::nullopt) {}

    nb::bytes mux(const PyTrack& track, std::int64_t pts, std::int64_t dts, bool key, const nb::bytes& payload,
                  const nb::bytes& head, bool with_map) const {
        return bytes_of(muxer_.mux(frame_of(track, pts, dts, key, payload), view_of(head), with_map));
    }

private:
    PsMuxer muxer_;
};

class PyEsPacketiser {
public:
    nb::list packetise(const PyTrack& track, std::int64_t pts, const nb::bytes& payload, const nb::bytes& head) {
        const Frame frame = frame_of(track, pts, pts, true, payload);
        const Buffer sets = Buffer::copy_of(view_of(head));
        return pieces_of([&](const EsPacketiser::OnPiece& on_piece) { packetiser_.packetise(frame, sets, on_piece); });
    }

private:
    EsPacketiser packetiser_;
};

// ---------------------------------------------------- fragmented mp4 and ts

std::vector<TrackPtr> tracks_of(const std::vector<PyTrack>& tracks) {
    std::vector<TrackPtr> list;
    for (const PyTrack& track : tracks) list.push_back(track.track);
    return list;
}

template <class Muxer>
class PyMuxer {
public:
    PyMuxer(const std::vector<PyTrack>& tracks, std::optional<std::int64_t> base_90k)
        : muxer_(tracks_of(tracks), base_90k) {}

    nb::bytes header() {
        muxer_.header({}, std::nullopt, out_);
        return take();
    }
    nb::bytes configuration() {
        muxer_.configuration({}, 0, out_);
        return take();
    }
    nb::bytes mux(const PyTrack& track, std::int64_t pts, std::int64_t dts, bool key, const nb::bytes& payload) {
        Frame frame;
        frame.track = track.track;
        frame.pts_90k = pts;
        frame.dts_90k = dts;
        frame.key = key;
        frame.payload = Buffer::copy_of(view_of(payload));
        const std::size_t bound = muxer_.bound(frame);
        muxer_.mux(frame, out_);
        if (out_.size() > bound + frame.payload.size() / 3 + 1024) throw std::logic_error("the bound is too small");
        return take();
    }
    bool stale() const { return muxer_.stale(); }
    bool fits(const std::vector<PyTrack>& tracks) const { return muxer_.fits(tracks_of(tracks)); }

private:
    nb::bytes take() {
        const Buffer whole = out_.finish();
        return bytes_of(whole);
    }

    Muxer muxer_;
    ByteBuilder out_;
};

template <class Muxer>
void define_muxer(nb::module_& module, const char* name) {
    using Py = PyMuxer<Muxer>;
    nb::class_<Py>(module, name)
        .def(nb::init<const std::vector<PyTrack>&, std::optional<std::int64_t>>(), nb::arg(), nb::arg().none())
        .def("header", &Py::header)
        .def("configuration", &Py::configuration)
        .def("mux", &Py::mux)
        .def("fits", &Py::fits)
        .def_prop_ro("stale", &Py::stale);
}
// ----------------------------------------------------------------- source

class PySourceRule {
public:
    PySourceRule(std::uint32_t ssrc, std::vector<int> payload_types, const std::vector<std::string>& expected,
                 bool strict)
        : rule_(ssrc, std::move(payload_types), HostSet(expected), strict) {}

    std::string receive(double now, const std::string& host, std::uint16_t port, std::uint64_t connection,
                        std::uint32_t ssrc, int payload_type, std::uint16_t sequence, int looks,
                        const nb::bytes& data) {
        switch (rule_.receive(now, source_of(host, port, connection), ssrc, payload_type, sequence,
                              static_cast<Looks>(looks), view_of(data))) {
            case Verdict::drop: return "drop";
            case Verdict::hold: return "hold";
            case Verdict::accept: return "accept";
            case Verdict::latched: return "latched";
            case Verdict::switched: return "switched";
            case Verdict::epoch: return "epoch";
            case Verdict::taken_over: return "taken_over";
        }
        return "";
    }
    nb::list take_held() {
        nb::list out;
        for (const Buffer& held : rule_.take_held()) out.append(bytes_of(held));
        return out;
    }
    void agree(std::uint32_t ssrc) { rule_.agree(ssrc); }
    void expect(const std::vector<std::string>& expected) { rule_.expect(HostSet(expected)); }
    void accept_payloads(std::vector<int> payload_types) { rule_.accept_payloads(std::move(payload_types)); }
    void acknowledged(double now) { rule_.acknowledged(now); }
    void unlatch() { rule_.unlatch(); }
    void forget(const std::string& host, std::uint16_t port, std::uint64_t connection) {
        rule_.forget(source_of(host, port, connection));
    }
    [[nodiscard]] bool take_conflict() { return rule_.take_conflict(); }
    [[nodiscard]] std::optional<std::uint32_t> take_mismatch() { return rule_.take_mismatch(); }
    [[nodiscard]] nb::tuple state() const {
        std::optional<std::string> source;
        if (rule_.source()) source = rule_.source()->text();
        return nb::make_tuple(source, rule_.ssrc(), rule_.sequence(), rule_.last_accepted(), rule_.by_grace(),
                              rule_.foreign());
    }

private:
    static Source source_of(const std::string& host, std::uint16_t port, std::uint64_t connection) {
        const auto address = IpAddress::parse(host);
        if (!address) throw std::invalid_argument("not an address: " + host);
        return {*address, port, connection};
    }

    SourceRule rule_;
};

// -------------------------------------------------------------------- nal

nb::object sps_facts(const std::string& codec, const nb::bytes& unit) {
    const Exact exact(unit);
    const auto info = nal::parse_sps(codec_of(codec), exact.view());
    if (!info) return nb::none();
    return nb::make_tuple(str_of(codec_name(info->codec)), info->sps_id, info->width, info->height, info->fps,
                          info->profile_idc, info->level_idc, info->chroma_format_idc, info->bit_depth_luma,
                          info->bit_depth_chroma, info->frame_mbs_only, info->frame_num_bits,
                          info->separate_colour_planes, info->max_sub_layers, info->temporal_id_nesting,
                          info->reorder_pictures, info->order_bits);
}

nb::bytes configuration(const std::string& codec, const std::vector<nb::bytes>& parameter_sets) {
    std::vector<Bytes> sets;
    for (const nb::bytes& unit : parameter_sets) sets.push_back(view_of(unit).copy());
    return bytes_of(codec_of(codec) == Codec::h264 ? nal::avcc(sets) : nal::hvcc(sets));
}

}  // namespace

NB_MODULE(_native_codecs, module) {
    nb::class_<PyTrack>(module, "Track")
        .def_prop_ro("facts", [](const PyTrack& self) { return facts_of(*self.track); })
        .def("is_same", [](const PyTrack& self, const PyTrack& other) { return self.track == other.track; });
    module.def("make_track", &make_track);

    nb::class_<PyDemuxer>(module, "Demuxer")
        .def("feed", &PyDemuxer::feed, nb::arg("payload"), nb::arg("rtp_timestamp").none() = nb::none(),
             nb::arg("marker") = false, nb::arg("now") = 0.0)
        .def("flush_after", &PyDemuxer::flush_after)
        .def("flush", &PyDemuxer::flush)
        .def("gap", &PyDemuxer::gap)
        .def("preset", &PyDemuxer::preset)
        .def_prop_ro("deadline", &PyDemuxer::deadline)
        .def_prop_ro("tracks", &PyDemuxer::tracks)
        .def_prop_ro("tracks_version", &PyDemuxer::tracks_version)
        .def_prop_ro("kind", &PyDemuxer::kind)
        .def_prop_ro("counters", &PyDemuxer::counters)
        .def_prop_ro("quirks", &PyDemuxer::quirks)
        .def_prop_ro("stream_types", &PyDemuxer::stream_types);
    module.def("ps_demuxer", [](std::size_t max_unit, const nb::bytes& aac_config) {
        return std::make_unique<PyDemuxer>(std::make_unique<PsDemuxer>(max_unit, view_of(aac_config)));
    });
    module.def("h264_depacketiser", [](int payload_type, std::size_t max_unit) {
        return std::make_unique<PyDemuxer>(std::make_unique<H264Depacketiser>(payload_type, max_unit));
    });
    module.def("h265_depacketiser", [](int payload_type, std::size_t max_unit) {
        return std::make_unique<PyDemuxer>(std::make_unique<H265Depacketiser>(payload_type, max_unit));
    });
    module.def("audio_depacketiser", [](int payload_type, const std::string& codec, int clock_rate) {
        return std::make_unique<PyDemuxer>(
            std::make_unique<AudioDepacketiser>(payload_type, codec_of(codec), clock_rate));
    });
    module.def("aac_depacketiser", [](int payload_type, const nb::bytes& config, int clock_rate) {
        return std::make_unique<PyDemuxer>(
            std::make_unique<AacDepacketiser>(payload_type, view_of(config), clock_rate));
    });
    module.def("make_demuxer",
               [](const std::string& encoding, int payload_type, const nb::bytes& first) -> std::unique_ptr<PyDemuxer> {
                   const Exact exact(first);
                   DemuxerChoice choice = make_demuxer(encoding, payload_type, exact.view());
                   if (choice.demuxer == nullptr) return nullptr;
                   return std::make_unique<PyDemuxer>(std::move(choice.demuxer));
               });

    nb::class_<PyReorder>(module, "ReorderBuffer")
        .def(nb::init<double, double, std::size_t>())
        .def("push", &PyReorder::push)
        .def("poll", &PyReorder::poll)
        .def("flush", &PyReorder::flush)
        .def_prop_ro("state", &PyReorder::state);

    nb::class_<PyFramer>(module, "Framer")
        .def(nb::init<std::optional<std::uint32_t>>(), nb::arg("ssrc").none() = nb::none())
        .def("feed", &PyFramer::feed)
        .def_prop_ro("state", &PyFramer::state);

    nb::class_<PyClock>(module, "StreamClock")
        .def(nb::init<int>())
        .def("stamp", &PyClock::stamp, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
             nb::arg().none(), nb::arg())
        .def("restart", &PyClock::restart)
        .def_prop_ro("state", &PyClock::state);

    nb::class_<PyFlv>(module, "FlvMuxer")
        .def(nb::init<const std::string&, std::optional<std::int64_t>>(), nb::arg(), nb::arg().none())
        .def("header", &PyFlv::header, nb::arg(), nb::arg().none())
        .def("sequence_header", &PyFlv::sequence_header)
        .def("mux", &PyFlv::mux);

    define_muxer<Fmp4Muxer>(module, "Fmp4Muxer");
    define_muxer<TsMuxer>(module, "TsMuxer");

    nb::class_<PyPsMuxer>(module, "PsMuxer")
        .def(nb::init<const std::optional<std::string>&, const std::optional<std::string>&>(), nb::arg().none(),
             nb::arg().none())
        .def("mux", &PyPsMuxer::mux);
    nb::class_<PyEsPacketiser>(module, "EsPacketiser").def(nb::init<>()).def("packetise", &PyEsPacketiser::packetise);
    module.def("cut", [](const nb::bytes& data, std::uint32_t timestamp) {
        const Buffer whole = Buffer::copy_of(view_of(data));
        return pieces_of([&](const EsPacketiser::OnPiece& on_piece) { cut(whole, timestamp, on_piece); });
    });

    nb::class_<PySourceRule>(module, "SourceRule")
        .def(nb::init<std::uint32_t, std::vector<int>, const std::vector<std::string>&, bool>())
        .def("receive", &PySourceRule::receive)
        .def("take_held", &PySourceRule::take_held)
        .def("agree", &PySourceRule::agree)
        .def("expect", &PySourceRule::expect)
        .def("accept_payloads", &PySourceRule::accept_payloads)
        .def("acknowledged", &PySourceRule::acknowledged)
        .def("unlatch", &PySourceRule::unlatch)
        .def("forget", &PySourceRule::forget)
        .def("take_conflict", &PySourceRule::take_conflict)
        .def("take_mismatch", &PySourceRule::take_mismatch)
        .def_prop_ro("state", &PySourceRule::state);
    module.def("ssrc_variant", [](std::uint32_t seen, const std::vector<std::uint32_t>& agreed) {
        return str_of(ssrc_variant(seen, agreed));
    });
    module.def("host_set_contains", [](const std::vector<std::string>& texts, const std::string& host) {
        const auto address = IpAddress::parse(host);
        if (!address) throw std::invalid_argument("not an address");
        return HostSet(texts).contains(*address);
    });

    module.def("parse_rtp", [](const nb::bytes& data) -> nb::object {
        const Exact exact(data);
        const auto packet = RtpPacket::parse(exact.view());
        if (!packet) return nb::none();
        return nb::make_tuple(packet->payload_type, packet->sequence_number, packet->timestamp, packet->ssrc,
                              bytes_of(packet->payload), packet->marker);
    });
    module.def("is_rtcp", [](const nb::bytes& data) { return is_rtcp(view_of(data)); });
    module.def("find_start_code", [](const nb::bytes& data, std::size_t from) -> std::int64_t {
        const Exact exact(data);
        const std::size_t found = find_start_code(exact.view(), from);
        return found == npos ? -1 : static_cast<std::int64_t>(found);
    });
    module.def("parse_sps", &sps_facts);
    module.def("configuration", &configuration);
    module.def("unescape", [](const nb::bytes& unit) { return bytes_of(nal::unescape(view_of(unit))); });
    module.def("sniff_payload", [](const nb::bytes& data) {
        const Exact exact(data);
        switch (nal::sniff_payload(exact.view())) {
            case nal::PayloadKind::program_stream: return "PS";
            case nal::PayloadKind::transport_stream: return "TS";
            case nal::PayloadKind::elementary: return "ES";
        }
        return "";
    });
    module.def("frames_between", [](const PyTrack& track, const nb::bytes& earlier, const nb::bytes& later) {
        const Exact first(earlier);
        const Exact second(later);
        return PictureOrder(*track.track).frames_between(first.view(), second.view());
    });
}
