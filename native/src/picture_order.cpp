#include "gb28181/picture_order.hpp"

namespace gb28181 {
namespace {

/// Bytes of a slice that are looked at.
constexpr std::size_t slice_header = 40;

std::optional<nal::SequenceInfo> first_sps(const Track& track) {
    if (track.codec != Codec::h264 && track.codec != Codec::h265) return std::nullopt;
    const int wanted = track.codec == Codec::h264 ? nal::h264_sps : nal::h265_sps;
    for (const Bytes& unit : track.parameter_sets) {
        if (!unit.empty() && nal::nal_type(track.codec, unit[0]) == wanted) return nal::parse_sps(track.codec, unit);
    }
    return std::nullopt;
}

}  // namespace

PictureOrder::PictureOrder(const Track& track) : codec_(track.codec), info_(first_sps(track)) {
    if (info_) {
        delay_ = info_->reorder_pictures.value_or(0);
        is_coded_ = info_->order_bits > 0 && info_->reorder_pictures != 0;
    }
    if (codec_ != Codec::h265) return;
    // What of the PPS stands between a slice header and its count.
    for (const Bytes& unit : track.parameter_sets) {
        if (unit.empty() || nal::nal_type(codec_, unit[0]) != nal::h265_pps) continue;
        const Bytes rbsp = nal::unescape(ByteView(unit).slice(2, slice_header));
        nal::BitReader bits(rbsp);
        bits.ue();
        bits.ue();
        bits.skip(1);  // dependent_slice_segments_enabled_flag
        const bool output_flag_present = bits.flag();
        const std::uint64_t extra_bits = bits.u(3);
        if (bits.ok()) {
            output_flag_present_ = output_flag_present;
            extra_bits_ = extra_bits;
        }
        break;
    }
}

std::optional<double> PictureOrder::frames_between(ByteView earlier, ByteView later) const {
    if (!info_ || !is_coded_) return std::nullopt;
    const std::optional<Count> before = count(earlier);
    const std::optional<Count> after = count(later);
    if (!before || !after || after->begins) return std::nullopt;
    const std::int64_t half = std::int64_t{1} << (info_->order_bits - 1);
    const std::int64_t distance = floor_mod(after->low_bits - before->low_bits + half, 2 * half) - half;
    // H.264 counts fields.
    return codec_ == Codec::h264 ? static_cast<double>(distance) / 2 : static_cast<double>(distance);
}

std::optional<PictureOrder::Count> PictureOrder::count(ByteView access_unit) const {
    std::optional<Count> found;
    nal::each_unit(access_unit, [&](ByteView unit) {
        const int kind = nal::nal_type(codec_, unit[0]);
        if (!nal::is_vcl(codec_, kind)) return true;
        const Bytes head = nal::unescape(unit.slice(0, slice_header));
        found = codec_ == Codec::h264 ? count_h264(kind, head) : count_h265(kind, head);
        return false;
    });
    return found;
}

/// Slice header up to pic_order_cnt_lsb (7.3.3).
std::optional<PictureOrder::Count> PictureOrder::count_h264(int kind, ByteView head) const {
    nal::BitReader bits(head.from(1));
    bits.ue();
    bits.ue();
    bits.ue();
    if (info_->separate_colour_planes) bits.skip(2);
    bits.skip(static_cast<std::uint64_t>(info_->frame_num_bits));
    if (!info_->frame_mbs_only && bits.flag()) bits.skip(1);
    if (kind == nal::h264_idr) bits.ue();
    const auto low_bits = static_cast<std::int64_t>(bits.u(static_cast<std::uint64_t>(info_->order_bits)));
    if (!bits.ok()) return std::nullopt;
    return Count{low_bits, kind == nal::h264_idr};
}

/// Slice segment header up to slice_pic_order_cnt_lsb (7.3.6.1), of a picture's first segment.
std::optional<PictureOrder::Count> PictureOrder::count_h265(int kind, ByteView head) const {
    if (kind == 19 || kind == 20) return Count{0, true};  // IDR
    nal::BitReader bits(head.from(2));
    bits.skip(1);
    if (nal::is_key_nal(Codec::h265, kind)) bits.skip(1);
    bits.ue();
    bits.skip(extra_bits_);
    bits.ue();
    if (output_flag_present_) bits.skip(1);
    if (info_->separate_colour_planes) bits.skip(2);
    const auto low_bits = static_cast<std::int64_t>(bits.u(static_cast<std::uint64_t>(info_->order_bits)));
    if (!bits.ok()) return std::nullopt;
    return Count{low_bits, false};
}

}  // namespace gb28181
