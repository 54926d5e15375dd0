// NAL units of H.264 (ISO 14496-10) and H.265 (ISO 23008-2): cut, name, read what a container must know.
// Nothing here decodes pictures. Names of syntax elements are those of the standards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"

namespace gb28181::nal {

inline constexpr int h264_slice = 1;
inline constexpr int h264_idr = 5;
inline constexpr int h264_sps = 7;
inline constexpr int h264_pps = 8;
inline constexpr int h264_aud = 9;
inline constexpr int h265_bla_w_lp = 16;
inline constexpr int h265_vps = 32;
inline constexpr int h265_sps = 33;
inline constexpr int h265_pps = 34;

/// Bytes of one parameter set; a longer one is not believed.
inline constexpr std::size_t max_parameter_set = 4096;
inline constexpr int max_dimension = 16384;

/// Calls `on_unit(ByteView)` for the NAL units of an Annex B byte stream, without start codes and trailing zeros;
/// empty ones are left out. `on_unit` answers false to stop.
template <class OnUnit>
void each_unit(ByteView data, OnUnit&& on_unit) {
    std::size_t start = find_start_code(data, 0);
    while (start != npos) {
        start += 3;
        const std::size_t following = find_start_code(data, start);
        const ByteView unit = data.slice(start, following).without_trailing_zeros();
        if (!unit.empty() && !on_unit(unit)) return;
        start = following;
    }
}

[[nodiscard]] constexpr int nal_type(Codec codec, std::uint8_t header) noexcept {
    return codec == Codec::h264 ? header & 0x1F : header >> 1 & 0x3F;
}

[[nodiscard]] constexpr bool is_parameter_set(Codec codec, int kind) noexcept {
    return codec == Codec::h264 ? kind == h264_sps || kind == h264_pps : kind >= h265_vps && kind <= h265_pps;
}

/// Coded slice (data) of a picture.
[[nodiscard]] constexpr bool is_vcl(Codec codec, int kind) noexcept {
    return codec == Codec::h264 ? kind >= 1 && kind <= 5 : kind < 32;
}

/// Slice of a picture at which decoding can begin: IDR; for H.265 any IRAP (BLA, IDR, CRA).
[[nodiscard]] constexpr bool is_key_nal(Codec codec, int kind) noexcept {
    return codec == Codec::h264 ? kind == h264_idr : kind >= h265_bla_w_lp && kind <= 23;
}

/// RBSP of a NAL unit: emulation prevention bytes taken out (7.3.1).
[[nodiscard]] Bytes unescape(ByteView unit);

/// Reads an RBSP bit by bit. Past the end, and after a code that cannot be, every read gives 0 and `ok` is false.
class BitReader {
public:
    explicit BitReader(ByteView rbsp) noexcept : data_(rbsp), left_(rbsp.size() * 8) {}

    /// Unsigned, at most 64 bits.
    std::uint64_t u(std::uint64_t count) noexcept;
    bool flag() noexcept { return u(1) == 1; }
    void skip(std::uint64_t count) noexcept;
    /// Exp-Golomb, unsigned (9.1).
    std::int64_t ue() noexcept;
    /// Exp-Golomb, signed.
    std::int64_t se() noexcept;
    [[nodiscard]] bool ok() const noexcept { return ok_; }

private:
    ByteView data_;
    std::uint64_t left_;
    bool ok_ = true;
};

/// What an SPS tells.
struct SequenceInfo {
    Codec codec = Codec::h264;
    int sps_id = 0;
    /// Of the cropped picture.
    int width = 0;
    int height = 0;
    /// Frames a second from the VUI; 0 when it is absent or not to be believed.
    double fps = 0.0;
    int profile_idc = 0;
    int level_idc = 0;
    std::int64_t chroma_format_idc = 1;
    std::int64_t bit_depth_luma = 8;
    std::int64_t bit_depth_chroma = 8;
    /// H.264 only: false where pictures may be fields.
    bool frame_mbs_only = true;
    std::int64_t frame_num_bits = 4;
    bool separate_colour_planes = false;
    int max_sub_layers = 1;
    bool temporal_id_nesting = false;
    /// Pictures that may precede another in decoding and follow it in output, where the SPS says so.
    std::optional<std::int64_t> reorder_pictures;
    /// Length of a slice's order count (pic_order_cnt_lsb); 0 where slices carry none.
    std::int64_t order_bits = 0;

    bool operator==(const SequenceInfo&) const = default;
};

/// `unit` with its NAL header; nothing when it cannot be read.
[[nodiscard]] std::optional<SequenceInfo> parse_h264_sps(ByteView unit);
[[nodiscard]] std::optional<SequenceInfo> parse_h265_sps(ByteView unit);
[[nodiscard]] std::optional<SequenceInfo> parse_sps(Codec codec, ByteView unit);

/// The codec of a stream, from a NAL unit that reads as the SPS of one of the two (MED-01).
[[nodiscard]] std::optional<SequenceInfo> probe_sps(ByteView unit);

/// AVCDecoderConfigurationRecord (ISO 14496-15 5.3.3.1), four-byte lengths; empty when the sets do not suffice.
[[nodiscard]] Bytes avcc(std::span<const Bytes> parameter_sets);
/// HEVCDecoderConfigurationRecord (ISO 14496-15 8.3.3.1), four-byte lengths; empty when the sets do not suffice.
[[nodiscard]] Bytes hvcc(std::span<const Bytes> parameter_sets);

/// Annex B to four-byte lengths (ISO 14496-15), behind what is in `out`.
void append_length_prefixed(ByteView payload, ByteBuilder& out);

enum class PayloadKind : std::uint8_t { program_stream, transport_stream, elementary };

/// What an RTP payload holds, whatever its payload type says (MED-18). Certain only for a payload at the start of a
/// pack or on a packet boundary; `elementary` is the answer for all else.
[[nodiscard]] PayloadKind sniff_payload(ByteView data) noexcept;

}  // namespace gb28181::nal
