// From the bytes of a video elementary stream to access units.
//
// Theory of operation. `VideoAssembler` is handed the elementary stream in pieces cut anywhere, and told where a PES
// packet (or an RTP timestamp) with times began. It scans each piece once for start codes, names each NAL unit, and
// cuts where the standards say that an access unit begins (H.264 7.4.1.2.3, H.265 7.4.2.4.4): delimiter, parameter set,
// SEI, or the first slice of a picture, after a slice of the picture before. Packs and PES do not decide: some senders
// put one NAL unit into each pack, some let one PES hold the end of one picture and the start of another (MED-06).
// Times belong to the first access unit that begins in their PES (ISO 13818-1 2.4.3.7).
//
// The codec is what a readable SPS says (MED-01); until one was seen nothing is given out (MED-35). SVAC and MPEG-4,
// which the program stream map alone can tell, are cut where the times change (MED-38).
//
// Ends before the next start. The RTP marker ends a picture only after `trusted_markers` markers in a row fell on
// picture ends (MED-22), and `flush` is called after a pause; if the picture then goes on after all, the rest is
// dropped, counted, and what follows is marked damaged. Muxers that fill packets without regard to pictures (MED-06)
// send a picture's last bytes with the next picture, so the pause is long until pictures were seen to end with packets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/nal.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// One video elementary stream.
class VideoAssembler {
public:
    /// Bytes of one access unit; a larger one is dropped.
    static constexpr std::size_t default_max_unit = 4 * 1024 * 1024;
    /// Markers in a row that must have fallen on picture ends before one ends a picture.
    static constexpr int trusted_markers = 25;

    /// `aligned`: pictures are known to end where packets end (RTP of an elementary stream).
    VideoAssembler(int stream_id, DemuxHealth& health, std::size_t max_unit, bool aligned = false);

    [[nodiscard]] int stream_id() const noexcept { return stream_id_; }
    /// Known once the parameter sets are.
    [[nodiscard]] const TrackPtr& track() const noexcept { return track_; }
    /// Grows with each new track.
    [[nodiscard]] std::uint64_t version() const noexcept { return version_; }

    /// What the program stream map says; believed only for codecs without NAL units to probe.
    void declare(Codec codec);
    /// Parameter sets from the SDP (`sprop-...`), used until the stream has its own (MED-35).
    void preset(Codec codec, const std::vector<Bytes>& parameter_sets);
    /// A PES packet with these times begins here.
    void mark(std::optional<std::int64_t> pts, std::optional<std::int64_t> dts);
    /// The next bytes.
    void append(ByteView data, double arrival, std::optional<std::uint32_t> rtp_timestamp) {
        append({}, {}, data, arrival, rtp_timestamp);
    }
    /// The next bytes, which are in three places: as if they were given at once.
    void append(ByteView first, ByteView second, ByteView third, double arrival,
                std::optional<std::uint32_t> rtp_timestamp);
    /// An RTP packet with the marker bit ended here; `between`: no PES packet is open.
    void marker(double arrival, bool between);
    /// A pack header: ends a unit without NAL units where the PES carry no times.
    void pack();
    /// Bytes were lost: the unit in work is dropped, and what follows it up to the next start.
    void gap();
    /// Give out the picture in work, which is believed to be whole.
    void flush();
    /// When `flush` may be called if nothing comes: one frame interval after the last byte.
    [[nodiscard]] std::optional<double> deadline() const;

    [[nodiscard]] bool has_output() const noexcept { return !out_.empty(); }
    /// Append the units finished since the last call.
    void take(std::vector<EsUnit>& out);
    void drop_output() noexcept { out_.clear(); }

private:
    using Time = std::optional<std::int64_t>;
    /// Times that begin at a place of the elementary stream.
    struct Mark {
        std::int64_t offset;
        Time pts;
        Time dts;
    };
    /// What tells the second field of a frame from a new frame.
    struct FieldHeader {
        std::array<std::uint64_t, 3> frame_num{};
        bool is_field = false;
        bool bottom = false;
    };
    /// A parameter set under the id it has.
    struct ParameterSet {
        int kind;
        std::int64_t id;
        Bytes unit;
    };
    struct Opening {
        bool opens;     // may begin an access unit
        bool is_slice;  // is the first slice of a picture
    };

    [[nodiscard]] bool is_opaque() const noexcept {
        return codec_ == Codec::svac || codec_ == Codec::mpeg4;
    }
    [[nodiscard]] std::size_t lookahead() const noexcept;
    [[nodiscard]] std::int64_t open(std::size_t index);
    [[nodiscard]] Opening opens(std::size_t index, std::uint8_t header) const noexcept;
    void enter(std::size_t index);
    [[nodiscard]] std::optional<FieldHeader> read_field(std::size_t index) const;
    [[nodiscard]] bool is_second_field(std::size_t index);
    [[nodiscard]] bool is_marked(std::int64_t place) const noexcept;
    void probe(std::size_t index);
    void adopt(const nal::SequenceInfo& info);
    void probe_change(std::size_t index);
    void judge(std::uint8_t header, std::optional<Codec> codec);
    void count_unready();
    [[nodiscard]] bool is_whole() const noexcept;
    void end_early(double arrival);
    void cut(std::size_t end, double arrival);
    void emit(std::size_t end, double arrival);
    [[nodiscard]] std::optional<Buffer> close_payload(std::size_t end, bool& key);
    [[nodiscard]] bool is_intra(ByteView payload);
    void learn_sets(const std::vector<ByteView>& sets);
    [[nodiscard]] bool are_last_sets(const std::vector<ByteView>& sets) const noexcept;
    void remember_sets(const std::vector<ByteView>& sets);
    void set_track(Track track);
    [[nodiscard]] std::optional<Mark> take_mark(std::size_t end);
    void measure(Time dts);
    [[nodiscard]] std::size_t start_fresh(std::size_t index);
    void reset_unit();
    void trim();
    void overflow();
    void mark_opaque(Time pts, Time dts);
    void forget_nals() noexcept;
    void quirk(Quirk name) noexcept { health_.quirks.add(name); }

    int stream_id_;
    DemuxHealth& health_;
    std::size_t max_unit_;
    TrackPtr track_;
    std::uint64_t version_ = 0;
    int markers_ = 0;  // in a row on picture ends
    std::optional<Codec> codec_;
    std::optional<nal::SequenceInfo> info_;
    std::optional<Codec> declared_;
    std::vector<ParameterSet> sets_;
    Bytes last_sets_;  // as they came, each behind its length
    // The access unit in work
    ByteBuilder es_;
    std::int64_t base_ = 0;  // place of es_[0] in the elementary stream
    std::size_t scan_ = 0;   // start codes before this index are known
    std::vector<std::uint32_t> nals_;  // indices of 00 00 01
    std::int64_t vcl_ = -1;            // index of the first slice
    bool key_ = false;
    std::optional<FieldHeader> field_;
    std::vector<Mark> marks_;
    std::array<std::int64_t, 4> packets_{-1, -1, -1, -1};  // places where the last PES packets began
    std::size_t packet_ = 0;                               // the next of them to be written over
    std::optional<std::int64_t> split_at_;  // place behind a start code whose first zero ended the PES before
    int ragged_;                            // pictures yet to end with a PES packet
    std::optional<std::uint32_t> rtp_timestamp_;
    double arrival_ = 0.0;
    bool ended_early_ = false;
    bool skipping_ = false;
    bool fresh_ = false;    // the start code just read begins a unit and what is before it belongs to none
    bool damaged_ = true;   // until the first key frame
    bool timed_ = false;
    std::optional<std::int64_t> marker_at_;
    double patience_ = 1.0;
    // Health
    int unready_ = 0;
    int good_nals_ = 0;
    int bad_nals_ = 0;
    double interval_ = 3600.0;
    Time last_dts_;
    std::vector<std::int64_t> steps_;
    std::vector<ByteView> found_sets_;  // scratch of close_payload
    std::vector<EsUnit> out_;
};

}  // namespace gb28181
