#include "gb28181/ps_mux.hpp"

#include <algorithm>
#include <array>

#include "gb28181/aac.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {
namespace {

constexpr std::uint8_t video_id = 0xE0;
constexpr std::uint8_t audio_id = 0xC0;
constexpr std::size_t max_pes_payload = 65'000;  // leaves room for the PES header within the 16-bit length
constexpr std::uint32_t mux_rate = 20'000;       // of 50 bytes/s
constexpr std::size_t pack_header_size = 14;
constexpr std::size_t pes_header_size = 9;
constexpr std::size_t stamp_size = 5;

void put(Bytes& out, std::uint64_t value, unsigned bytes) {
    for (unsigned shift = bytes * 8; shift > 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(value >> (shift - 8)));
}

void put(ByteBuilder& out, std::uint64_t value, unsigned bytes) {
    std::uint8_t* place = out.extend(bytes);
    for (unsigned shift = bytes * 8; shift > 0; shift -= 8) *place++ = static_cast<std::uint8_t>(value >> (shift - 8));
}

std::uint64_t wrapped(std::int64_t time_90k) noexcept {
    return static_cast<std::uint64_t>(time_90k) & static_cast<std::uint64_t>(pts_modulus - 1);
}

/// 2.5.3.3; SCR extension 0, no stuffing.
void put_pack_header(ByteBuilder& out, std::int64_t scr_90k) {
    const std::uint64_t scr = wrapped(scr_90k);
    put(out, 0x000001BA, 4);
    // 01, then SCR in pieces with marker bits, its extension, a marker.
    std::uint64_t value = 0b01;
    value = value << 3 | scr >> 30;
    value = value << 1 | 1;
    value = value << 15 | (scr >> 15 & 0x7FFF);
    value = value << 1 | 1;
    value = value << 15 | (scr & 0x7FFF);
    value = value << 1 | 1;
    value = value << 9;
    value = value << 1 | 1;
    put(out, value, 6);
    put(out, mux_rate << 2 | 3, 3);
    put(out, 0b11111000, 1);
}

/// 2.4.3.7.
void put_time(ByteBuilder& out, std::uint64_t prefix, std::int64_t time_90k) {
    const std::uint64_t value = wrapped(time_90k);
    put(out,
        prefix << 36 | value >> 30 << 33 | std::uint64_t{1} << 32 | (value >> 15 & 0x7FFF) << 17 | 1 << 16 |
            (value & 0x7FFF) << 1 | 1,
        stamp_size);
}

/// Header of seven bytes for a raw data block; nothing where ADTS cannot tell it.
std::optional<std::array<std::uint8_t, 7>> adts_header(const Track& track, std::size_t size) noexcept {
    const auto config = aac::parse_audio_specific_config(
        track.parameter_sets.empty() ? aac::default_config() : ByteView(track.parameter_sets.front()));
    if (!config || config->object_type < 1 || config->object_type > 4) return std::nullopt;
    const auto rate = std::find(aac::sample_rates.begin(), aac::sample_rates.end(), config->sample_rate);
    const std::size_t frame_size = size + 7;
    if (rate == aac::sample_rates.end() || frame_size > 0x1FFF) return std::nullopt;
    const auto index = static_cast<unsigned>(rate - aac::sample_rates.begin());
    const auto object_type = static_cast<unsigned>(config->object_type);
    const auto channels = static_cast<unsigned>(config->channels);
    return std::array<std::uint8_t, 7>{0xFF,
                                       0xF1,
                                       static_cast<std::uint8_t>((object_type - 1) << 6 | index << 2 | channels >> 2),
                                       static_cast<std::uint8_t>((channels & 3) << 6 | frame_size >> 11),
                                       static_cast<std::uint8_t>(frame_size >> 3),
                                       static_cast<std::uint8_t>((frame_size & 7) << 5 | 0x1F),
                                       0xFC};
}

}  // namespace

PsMuxer::PsMuxer(std::optional<Codec> video, std::optional<Codec> audio) : video_(video), audio_(audio) {
    // 2.5.3.5: one audio and one video at most, a buffer bound for each.
    Bytes body;
    put(body, 1U << 23 | mux_rate << 1 | 1U, 3);
    put(body, audio ? 4 : 0, 1);
    put(body, 0xE0 | (video ? 1 : 0), 1);
    put(body, 0x7F, 1);
    Bytes entries;
    if (video) {
        put(body, video_id, 1);
        put(body, 0b11U << 14 | 1U << 13 | 2048, 2);
        put(entries, static_cast<std::uint64_t>(stream_type_of(*video)) << 24 | std::uint64_t{video_id} << 16, 4);
    }
    if (audio) {
        put(body, audio_id, 1);
        put(body, 0b11U << 14 | 512, 2);
        put(entries, static_cast<std::uint64_t>(stream_type_of(*audio)) << 24 | std::uint64_t{audio_id} << 16, 4);
    }
    put(heads_, 0x000001BB, 4);
    put(heads_, body.size(), 2);
    heads_.insert(heads_.end(), body.begin(), body.end());
    // 2.5.4.1, without descriptors.
    Bytes map;
    put(map, 0x000001BC, 4);
    put(map, 6 + entries.size() + 4, 2);
    put(map, 0xE0FF0000, 4);
    put(map, entries.size(), 2);
    map.insert(map.end(), entries.begin(), entries.end());
    put(map, crc32_mpeg(map), 4);
    heads_.insert(heads_.end(), map.begin(), map.end());
}

Buffer PsMuxer::mux(const Frame& frame, ByteView head, bool with_map) const {
    const Track& track = *frame.track;
    const bool video = is_video(track.codec);
    std::optional<std::array<std::uint8_t, 7>> adts;
    if (track.codec == Codec::aac && !frame.payload.empty()) {
        adts = adts_header(track, frame.payload.size());
        if (!adts) return {};
        head = ByteView(*adts);
    }
    const std::size_t size = head.size() + frame.payload.size();
    const std::size_t pieces = std::max<std::size_t>(1, (size + max_pes_payload - 1) / max_pes_payload);
    const bool has_dts = frame.pts_90k != frame.dts_90k;
    // Sound alone has no key pictures: a receiver learns from any of its packs what they are (9.12, C.1).
    const bool has_map = with_map || (frame.key && (video || !video_));
    ByteBuilder out(pack_header_size + heads_.size() + size + pieces * pes_header_size + 2 * stamp_size);
    put_pack_header(out, frame.dts_90k);
    if (has_map) out.append(ByteView(heads_));
    for (std::size_t start = 0; start < std::max<std::size_t>(size, 1); start += max_pes_payload) {
        const std::size_t last = std::min(size, start + max_pes_payload);
        const std::size_t times = start != 0 ? 0 : has_dts ? 2 * stamp_size : stamp_size;
        // 2.4.3.6
        put(out, 0x00000100U | (video ? video_id : audio_id), 4);
        put(out, last - start + 3 + times, 2);
        put(out, times != 0 ? 0x84 : 0x80, 1);
        put(out, times == 0 ? 0x00 : has_dts ? 0xC0 : 0x80, 1);
        put(out, times, 1);
        if (times != 0) {
            put_time(out, has_dts ? 0b0011 : 0b0010, frame.pts_90k);
            if (has_dts) put_time(out, 0b0001, frame.dts_90k);
        }
        out.append(head.slice(start, last));
        const std::size_t offset = head.size();
        if (last > offset) out.append(frame.payload.view().slice(std::max(start, offset) - offset, last - offset));
    }
    return out.finish();
}

std::uint32_t crc32_mpeg(ByteView data) noexcept {
    std::uint32_t crc = 0xFFFFFFFF;
    for (const std::uint8_t byte : data) {
        crc ^= static_cast<std::uint32_t>(byte) << 24;
        for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x80000000) != 0 ? crc << 1 ^ 0x04C11DB7 : crc << 1;
    }
    return crc;
}

}  // namespace gb28181
