// From PES payloads of an audio stream to packets of samples.
//
// What the program stream map declares is checked against the bytes: a payload that is a chain of whole ADTS frames is
// AAC whatever was declared (MED-13). Without a declaration the codec stays unknown for a second, then G.711 A-law is
// assumed, the one codec that every device must have (MED-02). Audio never holds up video: what cannot be read is
// counted and dropped (MED-14).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/aac.hpp"
#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// Two MPEG-1 layer II headers at the distance that the first tells: what a program stream from a file has.
[[nodiscard]] bool is_mpeg_audio(ByteView data) noexcept;

/// One audio elementary stream.
class AudioAssembler {
public:
    /// Bytes of one audio PES; more is dropped.
    static constexpr std::size_t max_pes = 128 * 1024;

    AudioAssembler(int stream_id, DemuxHealth& health, ByteView aac_config = aac::default_config());

    [[nodiscard]] int stream_id() const noexcept { return stream_id_; }
    /// Known with the first unit.
    [[nodiscard]] const TrackPtr& track() const noexcept { return track_; }
    [[nodiscard]] std::uint64_t version() const noexcept { return version_; }

    /// `stream_type` of the program stream map.
    void declare(int stream_type);
    /// A PES packet begins; the one before is complete.
    void start(std::optional<std::int64_t> pts, std::optional<std::uint32_t> rtp_timestamp);
    void append(ByteView data, double arrival);
    /// The PES packet is complete.
    void finish();
    /// Bytes were lost: drop the packet in work.
    void gap();

    [[nodiscard]] bool has_output() const noexcept { return !out_.empty(); }
    /// Append the units finished since the last call.
    void take(std::vector<EsUnit>& out);
    void drop_output() noexcept { out_.clear(); }

private:
    using Time = std::optional<std::int64_t>;

    void drop() noexcept;
    void read(ByteView data);
    [[nodiscard]] bool is_adts(ByteView data, std::optional<Codec> declared);
    void read_adts(ByteView data);
    void read_aac_units(ByteView data);
    [[nodiscard]] TrackPtr aac_track(ByteView config, int sample_rate, int channels) const;
    [[nodiscard]] TrackPtr plain_track(Codec codec) const;
    void emit(TrackPtr track, Time pts, ByteView payload);
    void quirk(Quirk name) noexcept { health_.quirks.add(name); }

    int stream_id_;
    DemuxHealth& health_;
    Bytes aac_config_;
    TrackPtr track_;
    std::uint64_t version_ = 0;
    std::optional<int> declared_;
    Bytes packet_;
    Time pts_;
    bool started_ = false;
    bool damaged_ = false;
    std::optional<std::uint32_t> rtp_timestamp_;
    double arrival_ = 0.0;
    Bytes carry_;  // start of an ADTS frame that goes on in the next PES
    Time next_pts_;
    int adts_seen_ = 0;
    int undeclared_ = 0;
    int mpeg_audio_ = 0;
    int unread_ = 0;
    std::vector<ByteView> units_;  // scratch
    std::vector<EsUnit> out_;
};

}  // namespace gb28181
