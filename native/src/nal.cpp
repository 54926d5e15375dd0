#include "gb28181/nal.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace gb28181::nal {
namespace {

bool is_h264_profile(std::uint64_t profile_idc) noexcept {
    constexpr std::array<std::uint64_t, 17> known = {66, 77, 88, 100, 110, 122, 144, 244, 44,
                                                     83, 86, 118, 128, 134, 135, 138, 139};
    return std::find(known.begin(), known.end(), profile_idc) != known.end();
}

bool is_h264_high(std::uint64_t profile_idc) noexcept {
    return is_h264_profile(profile_idc) && profile_idc != 66 && profile_idc != 77 && profile_idc != 88 &&
           profile_idc != 144;
}

/// A believable rate with three decimals, else 0.
double believable_fps(std::uint64_t numerator, std::uint64_t denominator) noexcept {
    if (denominator == 0) return 0.0;
    const double fps = static_cast<double>(numerator) / static_cast<double>(denominator);
    // To the decimal that is really nearest: by its digits, not by multiplying.
    std::array<char, 64> digits{};
    if (std::snprintf(digits.data(), digits.size(), "%.3f", fps) >= static_cast<int>(digits.size())) return 0.0;
    const double rounded = std::strtod(digits.data(), nullptr);
    return rounded >= 0.1 && rounded <= 240 ? rounded : 0.0;
}

void skip_h264_scaling_list(BitReader& bits, int size) {
    std::int64_t last = 8;
    std::int64_t following = 8;
    for (int index = 0; index < size && bits.ok(); ++index) {
        if (following != 0) following = (last + bits.se()) & 0xFF;
        last = following != 0 ? following : last;
    }
}

void skip_h264_hrd(BitReader& bits) {
    const std::int64_t count = bits.ue() + 1;
    bits.skip(8);
    for (std::int64_t index = 0; index < std::min<std::int64_t>(count, 32) && bits.ok(); ++index) {
        bits.ue();
        bits.ue();
        bits.skip(1);
    }
    bits.skip(20);
}

/// What stands at the beginning of vui_parameters of both codecs, up to the chroma location.
void skip_vui_start(BitReader& bits) {
    if (bits.flag() && bits.u(8) == 255) bits.skip(32);  // aspect_ratio_idc Extended_SAR
    if (bits.flag()) bits.skip(1);                       // overscan
    if (bits.flag()) {                                   // video signal
        bits.skip(4);
        if (bits.flag()) bits.skip(24);
    }
    if (bits.flag()) {  // chroma location
        bits.ue();
        bits.ue();
    }
}

/// vui_parameters (E.1.1): rate and max_num_reorder_frames.
void read_h264_vui(BitReader& bits, SequenceInfo& info) {
    skip_vui_start(bits);
    double fps = 0.0;
    if (bits.flag()) {
        const std::uint64_t num_units_in_tick = bits.u(32);
        const std::uint64_t time_scale = bits.u(32);
        bits.skip(1);
        fps = believable_fps(time_scale, 2 * num_units_in_tick);
    }
    if (!bits.ok()) return;
    info.fps = fps;
    // Cameras cut their VUI short; what came before holds.
    const bool nal_hrd = bits.flag();
    if (nal_hrd) skip_h264_hrd(bits);
    const bool vcl_hrd = bits.flag();
    if (vcl_hrd) skip_h264_hrd(bits);
    if (nal_hrd || vcl_hrd) bits.skip(1);
    bits.skip(1);  // pic_struct_present_flag
    if (!bits.flag()) return;
    bits.skip(1);
    for (int index = 0; index < 4; ++index) bits.ue();
    const std::int64_t reorder = std::min<std::int64_t>(bits.ue(), 16);
    if (bits.ok()) info.reorder_pictures = reorder;
}

struct ProfileLevel {
    int profile_idc;
    int level_idc;
};

/// profile_tier_level (7.3.3).
ProfileLevel read_profile_tier_level(BitReader& bits, int max_sub_layers_minus1) {
    bits.skip(3);
    ProfileLevel read{};
    read.profile_idc = static_cast<int>(bits.u(5));
    bits.skip(80);
    read.level_idc = static_cast<int>(bits.u(8));
    std::uint64_t skipped = 0;
    for (int index = 0; index < max_sub_layers_minus1; ++index) {
        skipped += bits.flag() ? 88U : 0U;
        skipped += bits.flag() ? 8U : 0U;
    }
    if (max_sub_layers_minus1 != 0) bits.skip(static_cast<std::uint64_t>(2 * (8 - max_sub_layers_minus1)));
    bits.skip(skipped);
    return read;
}

void skip_h265_scaling_list(BitReader& bits) {
    for (int size_id = 0; size_id < 4; ++size_id) {
        for (int matrix = 0; matrix < 6 && bits.ok(); matrix += size_id == 3 ? 3 : 1) {
            if (!bits.flag()) {
                bits.ue();
                continue;
            }
            if (size_id > 1) bits.se();
            const int coefficients = std::min(64, 1 << (4 + (size_id << 1)));
            for (int index = 0; index < coefficients && bits.ok(); ++index) bits.se();
        }
    }
}

/// st_ref_pic_set for all indices (7.3.7); only the number of pictures of the last must be kept. False: not believed.
bool skip_short_term_ref_pic_sets(BitReader& bits, std::int64_t count) {
    std::int64_t pictures = 0;
    for (std::int64_t index = 0; index < count && bits.ok(); ++index) {
        if (index != 0 && bits.flag()) {  // inter_ref_pic_set_prediction_flag
            bits.skip(1);
            bits.ue();
            std::int64_t kept = 0;
            for (std::int64_t picture = 0; picture < pictures + 1 && bits.ok(); ++picture) {
                const bool used = bits.flag();
                kept += used || bits.flag() ? 1 : 0;
            }
            pictures = kept;
            continue;
        }
        const std::int64_t negative = bits.ue();
        const std::int64_t positive = bits.ue();
        if (negative + positive > 32) return false;
        for (std::int64_t picture = 0; picture < negative + positive && bits.ok(); ++picture) {
            bits.ue();
            bits.skip(1);
        }
        pictures = negative + positive;
    }
    return true;
}

/// vui_parameters up to the timing (E.2.1).
double read_h265_vui_fps(BitReader& bits) {
    skip_vui_start(bits);
    bits.skip(3);
    if (bits.flag()) {  // default_display_window
        for (int index = 0; index < 4; ++index) bits.ue();
    }
    if (!bits.flag()) return 0.0;
    const std::uint64_t num_units_in_tick = bits.u(32);
    const std::uint64_t time_scale = bits.u(32);
    return bits.ok() ? believable_fps(time_scale, num_units_in_tick) : 0.0;
}

/// What follows the bit depths of an H.265 SPS. Size and profile hold even if this cannot be read.
void read_h265_rest(BitReader& bits, int max_sub_layers_minus1, SequenceInfo& info) {
    const std::int64_t order_bits = bits.ue() + 4;
    if (!bits.ok()) return;
    info.order_bits = order_bits <= 16 ? order_bits : 0;
    if (order_bits > 16) return;
    std::optional<std::int64_t> reorder;
    for (int layer = bits.flag() ? 0 : max_sub_layers_minus1; layer <= max_sub_layers_minus1; ++layer) {
        bits.ue();
        reorder = bits.ue();
        if (!bits.ok()) return;
        info.reorder_pictures = reorder;
        bits.ue();
    }
    for (int index = 0; index < 6; ++index) bits.ue();
    if (bits.flag() && bits.flag()) skip_h265_scaling_list(bits);  // enabled, data present
    bits.skip(2);
    if (bits.flag()) {  // pcm_enabled
        bits.skip(8);
        bits.ue();
        bits.ue();
        bits.skip(1);
    }
    const std::int64_t sets = bits.ue();
    if (!bits.ok() || sets > 64 || !skip_short_term_ref_pic_sets(bits, sets)) return;
    if (bits.flag()) {
        bits.skip(static_cast<std::uint64_t>(std::min<std::int64_t>(bits.ue(), 32) * (order_bits + 1)));
    }
    bits.skip(2);
    if (!bits.flag()) return;
    const double fps = read_h265_vui_fps(bits);
    if (bits.ok()) info.fps = fps;
}

bool is_believed(std::int64_t width, std::int64_t height) noexcept {
    return width > 0 && width <= max_dimension && height > 0 && height <= max_dimension;
}

void append(Bytes& out, ByteView bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

void append_unit(Bytes& out, const Bytes& unit) {
    const std::size_t size = unit.size();
    out.push_back(static_cast<std::uint8_t>(size >> 8));
    out.push_back(static_cast<std::uint8_t>(size));
    append(out, unit);
}

std::vector<const Bytes*> units_of(std::span<const Bytes> sets, Codec codec, int kind) {
    std::vector<const Bytes*> found;
    for (const Bytes& unit : sets) {
        // The record has 16 bits for a length.
        if (!unit.empty() && unit.size() <= 0xFFFF && nal_type(codec, unit[0]) == kind) found.push_back(&unit);
    }
    return found;
}

}  // namespace

Bytes unescape(ByteView unit) {
    Bytes out;
    out.reserve(unit.size());
    std::size_t position = 0;
    while (position < unit.size()) {
        if (unit[position] == 0 && position + 2 < unit.size() && unit[position + 1] == 0 && unit[position + 2] == 3) {
            out.push_back(0);
            out.push_back(0);
            position += 3;
        } else {
            out.push_back(unit[position]);
            ++position;
        }
    }
    return out;
}

std::uint64_t BitReader::u(std::uint64_t count) noexcept {
    if (!ok_ || count > left_ || count > 64) {
        ok_ = false;
        return 0;
    }
    std::uint64_t value = 0;
    std::size_t place = data_.size() * 8 - left_;
    left_ -= count;
    while (count > 0) {
        const std::size_t offset = place % 8;
        const auto taken = std::min<std::size_t>(8 - offset, static_cast<std::size_t>(count));
        const unsigned piece = data_[place / 8] >> (8 - offset - taken) & ((1U << taken) - 1);
        value = value << taken | piece;
        place += taken;
        count -= taken;
    }
    return value;
}

void BitReader::skip(std::uint64_t count) noexcept {
    if (!ok_ || count > left_) {
        ok_ = false;
        return;
    }
    left_ -= count;
}

std::int64_t BitReader::ue() noexcept {
    std::uint64_t zeros = 0;
    while (u(1) == 0) {
        ++zeros;
        if (!ok_ || zeros > 32) {
            ok_ = false;
            return 0;
        }
    }
    if (zeros == 0) return 0;
    const std::int64_t value = (std::int64_t{1} << zeros) - 1 + static_cast<std::int64_t>(u(zeros));
    return ok_ ? value : 0;
}

std::int64_t BitReader::se() noexcept {
    const std::int64_t code = ue();
    return (code & 1) != 0 ? (code + 1) / 2 : -(code / 2);
}

std::optional<SequenceInfo> parse_h264_sps(ByteView unit) {
    if (unit.size() < 5 || (unit[0] & 0x9F) != h264_sps) return std::nullopt;
    const Bytes rbsp = unescape(unit.slice(1, max_parameter_set));
    BitReader bits(rbsp);
    SequenceInfo info;
    info.codec = Codec::h264;
    const std::uint64_t profile_idc = bits.u(8);
    if (!is_h264_profile(profile_idc)) return std::nullopt;
    info.profile_idc = static_cast<int>(profile_idc);
    bits.skip(8);
    info.level_idc = static_cast<int>(bits.u(8));
    const std::int64_t sps_id = bits.ue();
    if (sps_id > 31) return std::nullopt;
    info.sps_id = static_cast<int>(sps_id);
    if (is_h264_high(profile_idc)) {
        info.chroma_format_idc = bits.ue();
        if (info.chroma_format_idc == 3) info.separate_colour_planes = bits.flag();
        info.bit_depth_luma = 8 + bits.ue();
        info.bit_depth_chroma = 8 + bits.ue();
        bits.skip(1);
        if (bits.flag()) {
            const int lists = info.chroma_format_idc == 3 ? 12 : 8;
            for (int index = 0; index < lists && bits.ok(); ++index) {
                if (bits.flag()) skip_h264_scaling_list(bits, index < 6 ? 16 : 64);
            }
        }
    }
    info.frame_num_bits = bits.ue() + 4;
    const std::int64_t order_type = bits.ue();
    if (order_type == 0) {
        info.order_bits = bits.ue() + 4;
        if (info.order_bits > 16) return std::nullopt;
    } else if (order_type == 1) {
        bits.skip(1);
        bits.se();
        bits.se();
        const std::int64_t cycle = std::min<std::int64_t>(bits.ue(), 255);
        for (std::int64_t index = 0; index < cycle && bits.ok(); ++index) bits.se();
    }
    bits.ue();  // max_num_ref_frames
    bits.skip(1);
    const std::int64_t width_mbs = bits.ue() + 1;
    const std::int64_t height_units = bits.ue() + 1;
    info.frame_mbs_only = bits.flag();
    if (!info.frame_mbs_only) bits.skip(1);
    bits.skip(1);
    std::array<std::int64_t, 4> crop{};
    if (bits.flag()) {
        for (std::int64_t& side : crop) side = bits.ue();
    }
    if (!bits.ok()) return std::nullopt;
    // A monochrome or 4:4:4 picture crops in single samples (7.4.2.1.1).
    const std::int64_t chroma = info.chroma_format_idc;
    const std::int64_t field_factor = info.frame_mbs_only ? 1 : 2;
    const std::int64_t unit_x = (chroma == 1 || chroma == 2) && !info.separate_colour_planes ? 2 : 1;
    const std::int64_t unit_y = (chroma == 1 && !info.separate_colour_planes ? 2 : 1) * field_factor;
    const std::int64_t width = width_mbs * 16 - unit_x * (crop[0] + crop[1]);
    const std::int64_t height = height_units * 16 * field_factor - unit_y * (crop[2] + crop[3]);
    if (!is_believed(width, height)) return std::nullopt;
    info.width = static_cast<int>(width);
    info.height = static_cast<int>(height);
    if (bits.flag()) read_h264_vui(bits, info);
    // Order type 2: what is decoded next is shown next (8.2.1.3).
    if (profile_idc == 66 || order_type == 2) info.reorder_pictures = 0;
    return info;
}

std::optional<SequenceInfo> parse_h265_sps(ByteView unit) {
    if (unit.size() < 16 || unit[0] >> 1 != h265_sps) return std::nullopt;
    const Bytes rbsp = unescape(unit.slice(2, max_parameter_set));
    BitReader bits(rbsp);
    SequenceInfo info;
    info.codec = Codec::h265;
    bits.skip(4);
    const auto max_sub_layers_minus1 = static_cast<int>(bits.u(3));
    if (max_sub_layers_minus1 > 6) return std::nullopt;
    info.max_sub_layers = max_sub_layers_minus1 + 1;
    info.temporal_id_nesting = bits.flag();
    const ProfileLevel level = read_profile_tier_level(bits, max_sub_layers_minus1);
    info.profile_idc = level.profile_idc;
    info.level_idc = level.level_idc;
    const std::int64_t sps_id = bits.ue();
    info.chroma_format_idc = bits.ue();
    if (sps_id > 15 || info.chroma_format_idc > 3) return std::nullopt;
    info.sps_id = static_cast<int>(sps_id);
    if (info.chroma_format_idc == 3) info.separate_colour_planes = bits.flag();
    std::int64_t width = bits.ue();
    std::int64_t height = bits.ue();
    if (bits.flag()) {
        const std::int64_t unit_x = info.chroma_format_idc == 1 || info.chroma_format_idc == 2 ? 2 : 1;
        const std::int64_t unit_y = info.chroma_format_idc == 1 ? 2 : 1;
        width -= unit_x * (bits.ue() + bits.ue());
        height -= unit_y * (bits.ue() + bits.ue());
    }
    if (!bits.ok() || !is_believed(width, height)) return std::nullopt;
    info.width = static_cast<int>(width);
    info.height = static_cast<int>(height);
    info.bit_depth_luma = 8 + bits.ue();
    info.bit_depth_chroma = 8 + bits.ue();
    if (!bits.ok() || info.bit_depth_luma > 16 || info.bit_depth_chroma > 16) return std::nullopt;
    read_h265_rest(bits, max_sub_layers_minus1, info);
    return info;
}

std::optional<SequenceInfo> parse_sps(Codec codec, ByteView unit) {
    return codec == Codec::h264 ? parse_h264_sps(unit) : parse_h265_sps(unit);
}

std::optional<SequenceInfo> probe_sps(ByteView unit) {
    // The headers cannot be confused: 0x07, 0x27, 0x47 or 0x67 would be an H.265 unit of a layer above 31, and 0x42
    // 0x01 an H.264 data partition, which no encoder makes. Slices prove nothing: 0x41 shifted is a VPS.
    if (unit.empty()) return std::nullopt;
    if ((unit[0] & 0x9F) == h264_sps) return parse_h264_sps(unit);
    if (unit[0] == 0x42 && unit[1] == 0x01) return parse_h265_sps(unit);
    return std::nullopt;
}

Bytes avcc(std::span<const Bytes> parameter_sets) {
    const auto sps = units_of(parameter_sets, Codec::h264, h264_sps);
    const auto pps = units_of(parameter_sets, Codec::h264, h264_pps);
    if (sps.empty() || sps[0]->size() < 4 || pps.empty()) return {};
    const std::optional<SequenceInfo> info = parse_h264_sps(*sps[0]);
    if (!info) return {};
    const Bytes& first = *sps[0];
    const std::size_t sps_count = std::min<std::size_t>(sps.size(), 31);
    const std::size_t pps_count = std::min<std::size_t>(pps.size(), 255);
    Bytes out = {0x01, first[1], first[2], first[3], 0xFF, static_cast<std::uint8_t>(0xE0 | sps_count)};
    for (std::size_t index = 0; index < sps_count; ++index) append_unit(out, *sps[index]);
    out.push_back(static_cast<std::uint8_t>(pps_count));
    for (std::size_t index = 0; index < pps_count; ++index) append_unit(out, *pps[index]);
    if (is_h264_high(static_cast<std::uint64_t>(info->profile_idc))) {
        // They have 2 and 3 bits.
        if (info->chroma_format_idc > 3 || info->bit_depth_luma > 15 || info->bit_depth_chroma > 15) return {};
        out.push_back(static_cast<std::uint8_t>(0xFC | info->chroma_format_idc));
        out.push_back(static_cast<std::uint8_t>(0xF8 | (info->bit_depth_luma - 8)));
        out.push_back(static_cast<std::uint8_t>(0xF8 | (info->bit_depth_chroma - 8)));
        out.push_back(0);
    }
    return out;
}

Bytes hvcc(std::span<const Bytes> parameter_sets) {
    const auto sps = units_of(parameter_sets, Codec::h265, h265_sps);
    if (sps.empty() || units_of(parameter_sets, Codec::h265, h265_pps).empty()) return {};
    const std::optional<SequenceInfo> info = parse_h265_sps(*sps[0]);
    if (!info) return {};
    // general_profile_space ... general_level_idc are 12 whole bytes behind the first byte of the SPS.
    const Bytes rbsp = unescape(ByteView(*sps[0]).slice(2, 64));
    Bytes out = {0x01};
    append(out, ByteView(rbsp).slice(1, 13));
    append(out, std::array<std::uint8_t, 3>{0xF0, 0x00, 0xFC});  // segmentation and parallelism unknown
    out.push_back(static_cast<std::uint8_t>(0xFC | info->chroma_format_idc));
    out.push_back(static_cast<std::uint8_t>(0xF8 | (info->bit_depth_luma - 8)));
    out.push_back(static_cast<std::uint8_t>(0xF8 | (info->bit_depth_chroma - 8)));
    append(out, std::array<std::uint8_t, 2>{0, 0});  // avgFrameRate unspecified
    out.push_back(static_cast<std::uint8_t>(info->max_sub_layers << 3 | (info->temporal_id_nesting ? 4 : 0) | 3));
    const std::size_t count_place = out.size();
    out.push_back(0);
    for (const int kind : {h265_vps, h265_sps, h265_pps}) {
        const auto units = units_of(parameter_sets, Codec::h265, kind);
        if (units.empty()) continue;
        ++out[count_place];
        out.push_back(static_cast<std::uint8_t>(0x80 | kind));
        out.push_back(static_cast<std::uint8_t>(units.size() >> 8));
        out.push_back(static_cast<std::uint8_t>(units.size()));
        for (const Bytes* const unit : units) append_unit(out, *unit);
    }
    return out;
}

void append_length_prefixed(ByteView payload, ByteBuilder& out) {
    each_unit(payload, [&](ByteView unit) {
        out.append_u32(static_cast<std::uint32_t>(unit.size()));
        out.append(unit);
        return true;
    });
}

PayloadKind sniff_payload(ByteView data) noexcept {
    if (data.size() >= 4 && data[0] == 0 && data[1] == 0 && data[2] == 1 && data[3] >= 0xB9) {
        return PayloadKind::program_stream;
    }
    if (data.size() >= 188 && data[0] == 0x47) {
        for (std::size_t place = 188; place < data.size(); place += 188) {
            if (data[place] != 0x47) return PayloadKind::elementary;
        }
        return PayloadKind::transport_stream;
    }
    return PayloadKind::elementary;
}

}  // namespace gb28181::nal
