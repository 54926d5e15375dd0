#include "gb28181/ts_mux.hpp"

#include <algorithm>
#include <cstring>

#include "gb28181/aac.hpp"
#include "gb28181/nal.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {
namespace {

constexpr std::size_t room_of_packet = 184;
constexpr std::int64_t start_90k = 90'000;        // what came a little before the stream's own zero still has a place
constexpr std::int64_t pcr_lead_90k = 9'000;      // so long a decoder may take to receive a picture
constexpr std::int64_t tables_every_90k = 45'000;
constexpr std::uint8_t video_stream_id = 0xE0;
constexpr std::uint8_t audio_stream_id = 0xC0;
constexpr std::array<std::uint8_t, 4> start_code = {0, 0, 0, 1};
constexpr std::array<std::uint8_t, 6> h264_delimiter = {0, 0, 0, 1, 0x09, 0xF0};
constexpr std::array<std::uint8_t, 7> h265_delimiter = {0, 0, 0, 1, 0x46, 0x01, 0x50};
constexpr int h265_aud = 35;

/// CRC of ISO 13818-1 Annex A; of short tables that hardly ever change.
std::uint32_t crc32_mpeg(ByteView data) noexcept {
    std::uint32_t crc = 0xFFFFFFFF;
    for (const std::uint8_t byte : data.span()) {
        crc ^= static_cast<std::uint32_t>(byte) << 24;
        for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x80000000) != 0 ? crc << 1 ^ 0x04C11DB7 : crc << 1;
    }
    return crc;
}

void push_u16(Bytes& out, unsigned value) {
    out.push_back(static_cast<std::uint8_t>(value >> 8));
    out.push_back(static_cast<std::uint8_t>(value));
}

/// A section of the program specific information (2.4.4) with table_id_extension 1.
Bytes section_of(std::uint8_t table_id, std::uint8_t version, const Bytes& body) {
    Bytes section{table_id};
    push_u16(section, 0xB000U | static_cast<unsigned>(5 + body.size() + 4));
    push_u16(section, 1);
    section.push_back(static_cast<std::uint8_t>(0xC1U | static_cast<unsigned>(version) << 1));
    push_u16(section, 0);
    section.insert(section.end(), body.begin(), body.end());
    const std::uint32_t crc = crc32_mpeg(section);
    push_u16(section, crc >> 16);
    push_u16(section, crc & 0xFFFF);
    return section;
}

void append_timestamp(ByteBuilder& out, unsigned prefix, std::int64_t time_90k) {
    const auto value = static_cast<std::uint64_t>(floor_mod(time_90k, pts_modulus));
    out.append(static_cast<std::uint8_t>(prefix << 4 | (value >> 29 & 0x0E) | 1));
    out.append_u16(static_cast<std::uint32_t>(value >> 14 & 0xFFFE) | 1);
    out.append_u16(static_cast<std::uint32_t>(value << 1 & 0xFFFE) | 1);
}

/// 2.4.3.6; a video PES has length 0.
void append_pes_header(ByteBuilder& out, bool is_video, std::int64_t pts, std::int64_t dts, std::size_t payload) {
    const std::size_t times = pts == dts ? 5 : 10;
    out.append_u24(1);
    out.append(is_video ? video_stream_id : audio_stream_id);
    out.append_u16(is_video ? 0 : static_cast<std::uint32_t>(payload + 3 + times));
    out.append(0x84);  // data_alignment_indicator
    out.append(times == 5 ? 0x80 : 0xC0);
    out.append(static_cast<std::uint8_t>(times));
    if (times == 5) {
        append_timestamp(out, 0b0010, pts);
    } else {
        append_timestamp(out, 0b0011, pts);
        append_timestamp(out, 0b0001, dts);
    }
}

/// Adaptation field with a PCR (2.4.3.4).
std::array<std::uint8_t, 8> clock_field(std::int64_t time_90k, bool random_access) noexcept {
    const auto base = static_cast<std::uint64_t>(floor_mod(time_90k, pts_modulus));
    const std::uint64_t value = base << 15 | 0x3F << 9;
    std::array<std::uint8_t, 8> field{7, static_cast<std::uint8_t>(random_access ? 0x50 : 0x10)};
    for (std::size_t index = 0; index < 6; ++index) {
        field[2 + index] = static_cast<std::uint8_t>(value >> (40 - 8 * index));
    }
    return field;
}

/// The adaptation field, made longer by `stuffing` bytes, at `place`; returns its end.
std::uint8_t* write_adaptation(std::uint8_t* place, ByteView adaptation, std::size_t stuffing) noexcept {
    if (!adaptation.empty()) {
        place[0] = static_cast<std::uint8_t>(adaptation[0] + stuffing);
        std::memcpy(place + 1, adaptation.data() + 1, adaptation.size() - 1);
        place += adaptation.size();
    } else if (stuffing == 1) {
        *place++ = 0;
        return place;
    } else if (stuffing > 1) {
        *place++ = static_cast<std::uint8_t>(stuffing - 1);
        *place++ = 0;
        stuffing -= 2;
    }
    std::fill_n(place, stuffing, std::uint8_t{0xFF});
    return place + stuffing;
}

}  // namespace

bool TsMuxer::carries(Codec codec) noexcept {
    switch (codec) {
        case Codec::h264:
        case Codec::h265:
        case Codec::aac:
        case Codec::pcma:
        case Codec::pcmu: return true;
        default: return false;
    }
}

TsMuxer::TsMuxer(std::span<const TrackPtr> tracks, std::optional<std::int64_t> base_90k) : base_(base_90k) {
    for (const TrackPtr& track : tracks) {
        Elementary& stream = streams_[static_cast<std::size_t>(track->kind)];
        if (carries(track->codec) && stream.stream_type == 0) stream.stream_type = stream_type_of(track->codec);
    }
    Bytes program{0x00, 0x01};
    push_u16(program, 0xE000U | map_.number);
    association_ = section_of(0x00, 0, program);
}

void TsMuxer::header(std::span<const TrackPtr> /*tracks*/, std::optional<std::int64_t> /*at_90k*/,
                     ByteBuilder& /*out*/) {}

void TsMuxer::configuration(std::span<const TrackPtr> /*tracks*/, std::int64_t /*at_90k*/, ByteBuilder& out) {
    for (const Pid* const pid : {&pat_, &streams_[0].pid, &streams_[1].pid, &map_}) {
        if (!pid->used_before) continue;
        out.append(0x47);
        out.append_u16(pid->number);
        out.append(static_cast<std::uint8_t>(0x20 | ((pid->continuity_before - 1) & 0x0F)));
        out.append(183);
        out.append(0x80);
        std::fill_n(out.extend(182), 182, std::uint8_t{0xFF});
    }
}

void TsMuxer::mux(const Frame& frame, ByteBuilder& out) {
    const Track& track = *frame.track;
    if (!carries(track.codec)) return;
    if (!base_) base_ = frame.dts_90k;
    const bool is_video = track.kind == TrackKind::video;
    Elementary& stream = streams_[static_cast<std::size_t>(track.kind)];
    std::int64_t dts = frame.dts_90k - *base_ + start_90k;
    if (dts <= stream.last_dts_90k) {
        if (!is_video) return;
        dts = stream.last_dts_90k + 1;
    }
    const std::int64_t pts = std::max(frame.pts_90k - *base_ + start_90k, dts);
    ByteView payload = frame.payload;
    if (!begin_unit(frame, pts, dts, payload)) return;
    stream.last_dts_90k = dts;
    for (Pid* const pid : {&pat_, &streams_[0].pid, &streams_[1].pid, &map_}) {
        pid->continuity_before = pid->continuity;
        pid->used_before = pid->used;
    }
    const int stream_type = stream_type_of(track.codec);
    if (stream.stream_type != stream_type || map_section_.empty()) {
        stream.stream_type = stream_type;
        make_tables();
        tables_at_.reset();
    }
    if (!tables_at_ || dts - *tables_at_ >= tables_every_90k || (is_video && frame.key)) {
        tables_at_ = dts;
        append_table(pat_, association_, out);
        append_table(map_, map_section_, out);
    }
    if (is_video || streams_[0].stream_type == 0) {
        append(stream.pid, head_.view(), payload, clock_field(dts - pcr_lead_90k, frame.key), out);
    } else {
        append(stream.pid, head_.view(), payload, {}, out);
    }
}

bool TsMuxer::begin_unit(const Frame& frame, std::int64_t pts, std::int64_t dts, ByteView& payload) {
    const Track& track = *frame.track;
    head_.clear();
    if (track.kind == TrackKind::audio) {
        if (track.codec != Codec::aac) {
            if (payload.empty()) return false;
            append_pes_header(head_, false, pts, dts, payload.size());
            return true;
        }
        const ByteView config = track.parameter_sets.empty() ? aac::default_config() : track.parameter_sets.front();
        const auto adts = aac::build_adts(config, payload.size());
        if (!adts) return false;
        append_pes_header(head_, false, pts, dts, adts->size() + payload.size());
        head_.append(*adts);
        return true;
    }
    // A delimiter in front (2.14.1), and parameter sets in key frames that come without.
    std::optional<int> first;
    bool has_sets = !frame.key;
    nal::each_unit(payload, [&](ByteView unit) {
        const int kind = nal::nal_type(track.codec, unit[0]);
        if (!first) first = kind;
        has_sets = has_sets || nal::is_parameter_set(track.codec, kind);
        return !has_sets && !nal::is_vcl(track.codec, kind);
    });
    if (!first) return false;
    append_pes_header(head_, true, pts, dts, 0);
    const auto append_sets = [&] {
        for (const Bytes& unit : track.parameter_sets) {
            head_.append(start_code);
            head_.append(unit);
        }
    };
    const bool is_avc = track.codec == Codec::h264;
    if (*first != (is_avc ? nal::h264_aud : h265_aud)) {
        head_.append(is_avc ? ByteView(h264_delimiter) : ByteView(h265_delimiter));
        if (!has_sets) append_sets();
    } else if (!has_sets && !track.parameter_sets.empty()) {
        bool is_first = true;  // the sets stand behind the delimiter
        nal::each_unit(payload, [&](ByteView unit) {
            head_.append(start_code);
            head_.append(unit);
            if (is_first) append_sets();
            is_first = false;
            return true;
        });
        payload = {};
    }
    return true;
}

void TsMuxer::append(Pid& pid, ByteView head, ByteView body, ByteView adaptation, ByteBuilder& out) {
    const std::size_t size = head.size() + body.size();
    std::size_t done = 0;
    unsigned start = 0x40;
    pid.used = true;
    while (done < size) {
        std::size_t room = room_of_packet - adaptation.size();
        const std::size_t left = size - done;
        const std::size_t stuffing = left < room ? room - left : 0;
        room -= stuffing;
        std::uint8_t* place = out.extend(packet_size);
        const bool has_adaptation = !adaptation.empty() || stuffing > 0;
        *place++ = 0x47;
        *place++ = static_cast<std::uint8_t>(start | pid.number >> 8);
        *place++ = static_cast<std::uint8_t>(pid.number);
        *place++ = static_cast<std::uint8_t>((has_adaptation ? 0x30 : 0x10) | pid.continuity);
        place = write_adaptation(place, adaptation, stuffing);
        const ByteView of_head = head.slice(done, done + room);
        if (!of_head.empty()) {
            std::memcpy(place, of_head.data(), of_head.size());
            place += of_head.size();
        }
        const std::size_t rest = room - of_head.size();
        const std::size_t from = done + of_head.size() - head.size();
        if (rest > 0) std::memcpy(place, body.data() + from, rest);
        done += room;
        pid.continuity = (pid.continuity + 1) & 0x0F;
        start = 0;
        adaptation = {};
    }
}

void TsMuxer::append_table(Pid& pid, ByteView section, ByteBuilder& out) {
    std::array<std::uint8_t, room_of_packet> payload;
    payload.fill(0xFF);
    payload[0] = 0;  // pointer_field
    std::memcpy(payload.data() + 1, section.data(), section.size());
    append(pid, payload, {}, {}, out);
}

void TsMuxer::make_tables() {
    if (!map_section_.empty()) version_ = (version_ + 1) & 0x1F;
    const Elementary& clock = streams_[0].stream_type != 0 ? streams_[0] : streams_[1];
    Bytes body;
    push_u16(body, 0xE000U | clock.pid.number);
    push_u16(body, 0xF000);
    for (const Elementary& stream : streams_) {
        if (stream.stream_type == 0) continue;
        body.push_back(static_cast<std::uint8_t>(stream.stream_type));
        push_u16(body, 0xE000U | stream.pid.number);
        push_u16(body, 0xF000);
    }
    map_section_ = section_of(0x02, version_, body);
}

std::size_t TsMuxer::bound(const Frame& frame) const {
    std::size_t unit = frame.payload.size() + 32;
    if (frame.key) {
        for (const Bytes& set : frame.track->parameter_sets) unit += set.size() + 4;
    }
    return (unit / room_of_packet + 4) * packet_size;
}

}  // namespace gb28181
