#include "gb28181/fmp4.hpp"

#include <algorithm>
#include <string_view>

#include "gb28181/aac.hpp"
#include "gb28181/nal.hpp"

namespace gb28181 {
namespace {

constexpr std::uint32_t timescale = 90'000;
constexpr std::size_t max_config = 64;  // fits descriptors with lengths of one byte (14496-1 8.3.3)
constexpr std::int64_t default_duration_90k = 3'600;
constexpr std::int64_t max_duration_90k = 90'000;
constexpr std::int64_t max_offset_90k = 0x7FFFFFFF;
constexpr std::uint32_t sync_sample = 0x02000000;   // depends on no other (8.8.3.1)
constexpr std::uint32_t other_sample = 0x01010000;  // depends on others, is no sync sample
constexpr std::uint32_t default_base_is_moof = 0x020000;
constexpr std::uint32_t trun_flags = 0x000F01;  // data offset; duration, size, flags, composition offset of a sample
constexpr std::size_t moof_size = 8 + 16 + 8 + 16 + 20 + 36;

std::uint32_t track_id(TrackKind kind) noexcept { return kind == TrackKind::video ? 1 : 2; }

ByteView bytes_of(std::string_view text) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void append_zeros(ByteBuilder& out, std::size_t count) {
    std::uint8_t* const place = out.extend(count);
    std::fill_n(place, count, std::uint8_t{0});
}

void append_u64(ByteBuilder& out, std::uint64_t value) {
    out.append_u32(static_cast<std::uint32_t>(value >> 32));
    out.append_u32(static_cast<std::uint32_t>(value));
}

void append_matrix(ByteBuilder& out) {
    for (const std::uint32_t value : {0x10000U, 0U, 0U, 0U, 0x10000U, 0U, 0U, 0U, 0x40000000U}) out.append_u32(value);
}

/// A box whose size is written when it ends.
class Box {
public:
    Box(ByteBuilder& out, std::string_view kind) : out_(out), start_(out.size()) {
        out_.append_u32(0);
        out_.append(bytes_of(kind));
    }
    Box(ByteBuilder& out, std::string_view kind, std::uint32_t version_and_flags) : Box(out, kind) {
        out_.append_u32(version_and_flags);
    }
    Box(const Box&) = delete;
    Box& operator=(const Box&) = delete;
    ~Box() {
        const auto size = static_cast<std::uint32_t>(out_.size() - start_);
        const std::array<std::uint8_t, 4> bytes = {
            static_cast<std::uint8_t>(size >> 24), static_cast<std::uint8_t>(size >> 16),
            static_cast<std::uint8_t>(size >> 8), static_cast<std::uint8_t>(size)};
        out_.overwrite(start_, bytes);
    }

private:
    ByteBuilder& out_;
    std::size_t start_;
};

/// AudioSpecificConfig; nothing where it cannot be announced.
std::optional<aac::AudioSpecificConfig> audio_config(const Track& track) {
    if (track.parameter_sets.empty() || track.parameter_sets.front().size() > max_config) return std::nullopt;
    return aac::parse_audio_specific_config(track.parameter_sets.front());
}

/// ISO 14496-14 5.6: an ES_Descriptor around the AudioSpecificConfig.
void append_esds(ByteBuilder& out, ByteView config) {
    const Box box(out, "esds", 0);
    const auto size = static_cast<std::uint8_t>(config.size());
    out.append(0x03);
    out.append(static_cast<std::uint8_t>(3 + 2 + 13 + 2 + size + 3));
    out.append_u16(track_id(TrackKind::audio));
    out.append(0x00);
    out.append(0x04);
    out.append(static_cast<std::uint8_t>(13 + 2 + size));
    out.append(0x40);
    out.append(0x15);
    append_zeros(out, 11);
    out.append(0x05);
    out.append(size);
    out.append(config);
    out.append_u24(0x060102);
}

/// `avc1`, `hvc1` or `mp4a`; false, and nothing of use, where the track's configuration does not read.
bool append_sample_entry(ByteBuilder& out, const Track& track) {
    if (track.kind == TrackKind::audio) {
        const auto config = audio_config(track);
        if (!config) return false;
        const Box box(out, "mp4a");
        append_zeros(out, 6);
        out.append_u16(1);
        append_zeros(out, 8);
        out.append_u16(config->channels != 0 ? static_cast<std::uint32_t>(config->channels) : 2);
        out.append_u16(16);
        out.append_u32(0);
        out.append_u16(static_cast<std::uint32_t>(std::min(config->sample_rate, 0xFFFF)));
        out.append_u16(0);
        append_esds(out, track.parameter_sets.front());
        return true;
    }
    const bool is_avc = track.codec == Codec::h264;
    const Bytes configuration = is_avc ? nal::avcc(track.parameter_sets) : nal::hvcc(track.parameter_sets);
    if (configuration.empty()) return false;
    const Box box(out, is_avc ? "avc1" : "hvc1");
    append_zeros(out, 6);
    out.append_u16(1);
    append_zeros(out, 16);
    out.append_u16(static_cast<std::uint32_t>(track.width));
    out.append_u16(static_cast<std::uint32_t>(track.height));
    out.append_u32(0x480000);
    out.append_u32(0x480000);
    out.append_u32(0);
    out.append_u16(1);
    append_zeros(out, 32);
    out.append_u16(0x18);
    out.append_u16(0xFFFF);
    const Box inner(out, is_avc ? "avcC" : "hvcC");
    out.append(configuration);
    return true;
}

/// 8.3.1 to 8.7.5, with empty sample tables.
void append_trak(ByteBuilder& out, const Track& track) {
    const bool video = track.kind == TrackKind::video;
    const Box trak(out, "trak");
    {
        const Box tkhd(out, "tkhd", 3);  // enabled, in the presentation
        append_u64(out, 0);
        out.append_u32(track_id(track.kind));
        append_zeros(out, 20);
        out.append_u32(video ? 0 : 0x01000000);  // volume
        append_matrix(out);
        out.append_u32(video ? static_cast<std::uint32_t>(track.width & 0xFFFF) << 16 : 0);
        out.append_u32(video ? static_cast<std::uint32_t>(track.height & 0xFFFF) << 16 : 0);
    }
    const Box mdia(out, "mdia");
    {
        const Box mdhd(out, "mdhd", 0);
        append_u64(out, 0);
        out.append_u32(timescale);
        out.append_u32(0);
        out.append_u32(0x55C40000);  // "und"
    }
    {
        const Box hdlr(out, "hdlr", 0);
        out.append_u32(0);
        out.append(bytes_of(video ? "vide" : "soun"));
        append_zeros(out, 12);
        out.append(bytes_of("gb28181gw"));
        out.append(0x00);
    }
    const Box minf(out, "minf");
    if (video) {
        const Box vmhd(out, "vmhd", 1);
        append_u64(out, 0);
    } else {
        const Box smhd(out, "smhd", 0);
        out.append_u32(0);
    }
    {
        const Box dinf(out, "dinf");
        const Box dref(out, "dref", 0);
        out.append_u32(1);
        const Box url(out, "url ", 1);
    }
    const Box stbl(out, "stbl");
    {
        const Box stsd(out, "stsd", 0);
        out.append_u32(1);
        append_sample_entry(out, track);
    }
    for (const std::string_view kind : {"stts", "stsc"}) {
        const Box table(out, kind, 0);
        out.append_u32(0);
    }
    {
        const Box stsz(out, "stsz", 0);
        append_u64(out, 0);
    }
    const Box stco(out, "stco", 0);
    out.append_u32(0);
}

/// Of an AAC packet, or of a picture as far as its parameter sets tell.
std::int64_t first_interval(const Track& track) {
    std::int64_t known = 0;
    if (track.kind == TrackKind::audio) {
        const auto config = audio_config(track);
        if (config && config->sample_rate > 0) {
            known = std::int64_t{aac::samples_per_frame} * timescale / config->sample_rate;
        }
    } else if (track.fps > 0) {
        known = static_cast<std::int64_t>(std::min(timescale / track.fps, static_cast<double>(max_duration_90k)));
    }
    return known != 0 ? std::min(known, max_duration_90k) : default_duration_90k;
}

}  // namespace

bool Fmp4Muxer::carries(Codec codec) noexcept {
    return codec == Codec::h264 || codec == Codec::h265 || codec == Codec::aac;
}

bool Fmp4Muxer::can_announce(const Track& track) {
    if (!carries(track.codec)) return false;
    ByteBuilder scratch;
    return append_sample_entry(scratch, track);
}

Fmp4Muxer::Fmp4Muxer(std::span<const TrackPtr> tracks, std::optional<std::int64_t> base_90k) : base_(base_90k) {
    for (const TrackPtr& track : tracks) {
        Announced& announced = announced_[static_cast<std::size_t>(track->kind)];
        if (announced.track == nullptr && can_announce(*track)) {
            announced.track = track;
            announced.interval_90k = first_interval(*track);
        }
    }
}

bool Fmp4Muxer::fits(std::span<const TrackPtr> tracks) const {
    if (stale_) return false;
    std::array<std::optional<Codec>, 2> wanted;
    for (const TrackPtr& track : tracks) {
        auto& codec = wanted[static_cast<std::size_t>(track->kind)];
        if (!codec && can_announce(*track)) codec = track->codec;
    }
    for (std::size_t kind = 0; kind < wanted.size(); ++kind) {
        const TrackPtr& track = announced_[kind].track;
        if (wanted[kind].has_value() != (track != nullptr)) return false;
        if (track != nullptr && *wanted[kind] != track->codec) return false;
    }
    return true;
}

void Fmp4Muxer::header(std::span<const TrackPtr> /*tracks*/, std::optional<std::int64_t> /*at_90k*/,
                       ByteBuilder& out) {
    const auto has_track = [](const Announced& announced) { return announced.track != nullptr; };
    if (std::any_of(announced_.begin(), announced_.end(), has_track)) init_segment(out);
}

void Fmp4Muxer::configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) {
    if (renewed_) header(tracks, at_90k, out);
}

void Fmp4Muxer::init_segment(ByteBuilder& out) const {
    {
        const Box ftyp(out, "ftyp");
        out.append(bytes_of("iso6"));
        out.append_u32(0x200);
        out.append(bytes_of("iso6iso5mp41"));
    }
    const Box moov(out, "moov");
    {
        const Box mvhd(out, "mvhd", 0);
        append_u64(out, 0);
        out.append_u32(timescale);
        out.append_u32(0);
        out.append_u32(0x10000);
        out.append_u16(0x0100);
        append_zeros(out, 10);
        append_matrix(out);
        append_zeros(out, 24);
        out.append_u32(3);  // next_track_ID
    }
    for (const Announced& announced : announced_) {
        if (announced.track != nullptr) append_trak(out, *announced.track);
    }
    const Box mvex(out, "mvex");
    for (const Announced& announced : announced_) {
        if (announced.track == nullptr) continue;
        const Box trex(out, "trex", 0);
        out.append_u32(track_id(announced.track->kind));
        out.append_u32(1);
        append_zeros(out, 12);
    }
}

void Fmp4Muxer::mux(const Frame& frame, ByteBuilder& out) {
    const TrackPtr& track = frame.track;
    const bool is_video = track->kind == TrackKind::video;
    Announced& announced = announced_[static_cast<std::size_t>(track->kind)];
    if (announced.track == nullptr || announced.track->codec != track->codec) {
        stale_ = stale_ || is_video || announced.track != nullptr;
        return;
    }
    if (announced.track != track) {
        if (announced.track->parameter_sets != track->parameter_sets) {
            if (!can_announce(*track)) return;
            announced.track = track;
            renewed_ = true;
            header({}, std::nullopt, out);
        }
    }
    if (!base_) base_ = frame.dts_90k;
    std::int64_t dts = frame.dts_90k - *base_;
    if (dts <= announced.last_dts_90k) {
        if (!is_video) return;
        dts = announced.last_dts_90k + 1;
    }
    if (announced.last_dts_90k >= 0 && is_video) {
        const std::int64_t step = std::min(dts - announced.last_dts_90k, max_duration_90k);
        announced.interval_90k = std::max(step, announced.interval_90k - announced.interval_90k / 16);
    }
    announced.last_dts_90k = dts;
    ++sequence_;
    const std::int64_t offset = std::clamp<std::int64_t>(frame.pts_90k - *base_ - dts, 0, max_offset_90k);

    const std::size_t start = out.size();
    std::size_t size_place = 0;
    {
        const Box moof(out, "moof");
        {
            const Box mfhd(out, "mfhd", 0);
            out.append_u32(sequence_);
        }
        const Box traf(out, "traf");
        {
            const Box tfhd(out, "tfhd", default_base_is_moof);
            out.append_u32(track_id(track->kind));
        }
        {
            const Box tfdt(out, "tfdt", 1U << 24);
            append_u64(out, static_cast<std::uint64_t>(dts));
        }
        const Box trun(out, "trun", 1U << 24 | trun_flags);
        out.append_u32(1);
        out.append_u32(static_cast<std::uint32_t>(moof_size + 8));
        out.append_u32(static_cast<std::uint32_t>(announced.interval_90k));
        size_place = out.size();
        out.append_u32(0);
        out.append_u32(frame.key || !is_video ? sync_sample : other_sample);
        out.append_u32(static_cast<std::uint32_t>(offset));
    }
    {
        const Box mdat(out, "mdat");
        if (is_video) {
            nal::append_length_prefixed(frame.payload, out);
        } else {
            out.append(frame.payload);
        }
    }
    const auto size = static_cast<std::uint32_t>(out.size() - start - moof_size - 8);
    const std::array<std::uint8_t, 4> bytes = {static_cast<std::uint8_t>(size >> 24),
                                               static_cast<std::uint8_t>(size >> 16),
                                               static_cast<std::uint8_t>(size >> 8), static_cast<std::uint8_t>(size)};
    out.overwrite(size_place, bytes);
}

std::size_t Fmp4Muxer::bound(const Frame& frame) const {
    const TrackPtr& track = announced_[static_cast<std::size_t>(frame.track->kind)].track;
    std::size_t configuration = 0;
    if (track != frame.track) {
        configuration = 1536;
        for (const Bytes& unit : frame.track->parameter_sets) configuration += unit.size() + 8;
    }
    return frame.payload.size() + moof_size + 8 + configuration;
}

}  // namespace gb28181
