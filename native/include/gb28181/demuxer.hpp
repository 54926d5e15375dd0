// The face that all readers of RTP payloads have.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "gb28181/aac.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// Payloads of one source in order in, access units out. One instance per SSRC; not thread safe, never throws on
/// what a device sends.
class Demuxer {
public:
    Demuxer() = default;
    Demuxer(const Demuxer&) = delete;
    Demuxer& operator=(const Demuxer&) = delete;
    virtual ~Demuxer() = default;

    /// Take the next payload; `now` is its arrival in monotonic seconds. Appends the units that it completed.
    virtual void feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
                      std::vector<EsUnit>& out) = 0;
    /// Packets were lost between the last `feed` and the next.
    virtual void gap() = 0;
    /// When `flush_after` will give something out if nothing comes.
    [[nodiscard]] virtual std::optional<double> deadline() const { return std::nullopt; }
    /// Give out a picture that is whole by all that is known and has waited one frame interval.
    virtual void flush_after(double now, std::vector<EsUnit>& out) {
        static_cast<void>(now);
        static_cast<void>(out);
    }
    /// The stream has ended: give out what is whole.
    virtual void flush(std::vector<EsUnit>& out) = 0;
    /// Tracks known so far, video first; audio may come later or never (MED-16, MED-17).
    [[nodiscard]] virtual std::vector<TrackPtr> tracks() const = 0;
    /// Grows whenever `tracks` changes.
    [[nodiscard]] virtual std::uint64_t tracks_version() const = 0;
    /// Video parameter sets that the SDP gave, used until the stream has its own (MED-35).
    virtual void preset(Codec codec, const std::vector<Bytes>& parameter_sets) {
        static_cast<void>(codec);
        static_cast<void>(parameter_sets);
    }
    /// It reads program streams (`PsDemuxer`).
    [[nodiscard]] virtual bool is_program() const noexcept { return false; }

    [[nodiscard]] const DemuxCounters& counters() const noexcept { return health_.counters; }
    [[nodiscard]] const QuirkCounts& quirks() const noexcept { return health_.quirks; }

protected:
    DemuxHealth health_;
};

/// What `make_demuxer` found.
struct DemuxerChoice {
    /// Empty: the payload is recognised and not carried.
    std::unique_ptr<Demuxer> demuxer;
    /// Why there is none: `rtp.mpeg_ts` or `rtp.unsupported_encoding`.
    Quirk refused = Quirk::rtp_unsupported_encoding;
};

/// The reader for a payload, by its bytes first (MED-18, MED-19) and by the name of its rtpmap second.
///
/// `first_payload` should be the first that begins a packet or a picture; a start code of a program stream decides
/// against any name. A vendor's name (Annex G) or an unknown one means PS.
[[nodiscard]] DemuxerChoice make_demuxer(std::string_view encoding, int payload_type, ByteView first_payload,
                                         ByteView aac_config = aac::default_config());

}  // namespace gb28181
