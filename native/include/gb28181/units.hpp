// What the demuxers and depacketisers give, and how they count.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// PTS and DTS are 33 bits of 1/90000 s (ISO 13818-1 2.4.3.7).
inline constexpr std::int64_t pts_modulus = std::int64_t{1} << 33;

/// One access unit (video) or packet of samples (audio), with the times that the device gave: 33 bits, wrapping,
/// jumping, or missing. `StreamClock` makes stream time of them.
struct EsUnit {
    TrackPtr track;
    /// PES stream id (0xE0, 0xC0 ...); for elementary streams the RTP payload type.
    int stream_id = 0;
    std::optional<std::int64_t> pts_90k;
    std::optional<std::int64_t> dts_90k;
    bool key = false;
    Buffer payload;
    /// Something before this unit was lost and no key frame came since: decoding it may smear (MED-24).
    bool damaged = false;
    /// Timestamp of the packet in which the unit began.
    std::optional<std::uint32_t> rtp_timestamp;
    /// Monotonic seconds of the unit's last packet.
    double arrival = 0.0;
};

/// Counters of one demuxer; they only grow.
struct DemuxCounters {
    std::uint64_t units = 0;
    std::uint64_t key_frames = 0;
    /// Losses that the receiver told.
    std::uint64_t gaps = 0;
    /// Access units that were broken, or came before the parameter sets.
    std::uint64_t dropped_units = 0;
    /// Times that the structure was lost and searched for again.
    std::uint64_t resyncs = 0;
    /// Bytes passed over while searching.
    std::uint64_t skipped_bytes = 0;
    /// Headers that could not be read.
    std::uint64_t malformed = 0;
    /// Units or maps dropped because they passed a bound.
    std::uint64_t oversized = 0;
    /// Pictures that a marker or a pause ended and that went on.
    std::uint64_t premature = 0;

    /// One figure for people.
    [[nodiscard]] std::uint64_t errors() const noexcept { return resyncs + malformed + oversized + premature; }
};

/// Tolerances, by the names that the API shows.
enum class Quirk : std::uint8_t {
    ps_pack_stuffing,
    ps_short_pack_header,
    ps_pes_header_length,
    ps_pes_marker_bits,
    ps_pes_length_zero,
    ps_second_video_stream,
    ps_second_audio_stream,
    ps_no_stream_map,
    ps_psm_lengths,
    ps_psm_codec_mismatch,
    ps_structure_lost,
    ps_video_encrypted,
    ps_no_parameter_sets,
    ps_audio_codec_mismatch,
    ps_audio_codec_assumed,
    ps_audio_unreadable,
    ps_aac_au_headers,
    ps_unsupported_stream_type,
    ps_pts_jump,
    ps_pts_missing,
    ps_pts_useless,
    ps_clocks_differ,
    ps_clock_from_rtp,
    ps_clock_from_arrival,
    es_unit_too_large,
    es_key_without_idr,
    rtp_marker_inside_picture,
    rtp_annexb_in_payload,
    rtp_timestamp_useless,
    rtp_framing_lost,
    rtp_ehome_header,
    rtp_interleaved_framing,
    rtp_payload_type,
    rtp_mpeg_ts,
    rtp_unsupported_encoding,
    rtp_ps_under_es,
    rtp_es_under_ps,
    rtp_ssrc_mismatch,
};

inline constexpr std::size_t quirk_count = static_cast<std::size_t>(Quirk::rtp_ssrc_mismatch) + 1;
static_assert(quirk_count <= 64, "QuirkSet holds 64");

/// "ps.pack_stuffing" ...
[[nodiscard]] std::string_view quirk_name(Quirk quirk) noexcept;

/// Which tolerances fired, as bits.
class QuirkSet {
public:
    void add(Quirk quirk) noexcept { bits_ |= bit(quirk); }
    void add(QuirkSet others) noexcept { bits_ |= others.bits_; }
    void remove(Quirk quirk) noexcept { bits_ &= ~bit(quirk); }
    [[nodiscard]] bool has(Quirk quirk) const noexcept { return (bits_ & bit(quirk)) != 0; }
    [[nodiscard]] bool empty() const noexcept { return bits_ == 0; }
    /// Those that are not in `told`.
    [[nodiscard]] QuirkSet without(QuirkSet told) const noexcept { return QuirkSet(bits_ & ~told.bits_); }
    /// Calls `on_quirk(Quirk)` for each.
    template <class OnQuirk>
    void each(OnQuirk&& on_quirk) const {
        for (std::size_t index = 0; index < quirk_count; ++index) {
            if ((bits_ >> index & 1) != 0) on_quirk(static_cast<Quirk>(index));
        }
    }

    QuirkSet() noexcept = default;

private:
    explicit QuirkSet(std::uint64_t bits) noexcept : bits_(bits) {}
    static std::uint64_t bit(Quirk quirk) noexcept { return std::uint64_t{1} << static_cast<unsigned>(quirk); }
    std::uint64_t bits_ = 0;
};

/// Tolerances that fired, and how often.
class QuirkCounts {
public:
    void add(Quirk quirk) noexcept {
        ++counts_[static_cast<std::size_t>(quirk)];
        set_.add(quirk);
    }
    void remove(Quirk quirk) noexcept {
        counts_[static_cast<std::size_t>(quirk)] = 0;
        set_.remove(quirk);
    }
    [[nodiscard]] std::uint32_t count(Quirk quirk) const noexcept {
        return counts_[static_cast<std::size_t>(quirk)];
    }
    [[nodiscard]] QuirkSet set() const noexcept { return set_; }

private:
    std::array<std::uint32_t, quirk_count> counts_{};
    QuirkSet set_;
};

/// What a demuxer and its assemblers count together.
struct DemuxHealth {
    DemuxCounters counters;
    QuirkCounts quirks;
};

/// `stream_type` of the program stream map (GB/T 28181-2022 C.1; MED-15); nothing for unknown ones.
[[nodiscard]] std::optional<Codec> codec_of_stream_type(int stream_type) noexcept;
/// The `stream_type` that says this codec.
[[nodiscard]] int stream_type_of(Codec codec) noexcept;
/// Sampling rate of the audio codecs that do not tell theirs; 8000 for all others.
[[nodiscard]] int default_audio_rate(Codec codec) noexcept;

}  // namespace gb28181
