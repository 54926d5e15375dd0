#include "gb28181/es_depacketiser.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

#include "gb28181/nal.hpp"
#include "gb28181/ps_demux.hpp"

namespace gb28181 {
namespace {

constexpr std::int64_t rtp_modulus = std::int64_t{1} << 32;
constexpr std::array<std::uint8_t, 4> start_code = {0, 0, 0, 1};

bool has_start_code(ByteView payload) noexcept {
    constexpr std::array<std::uint8_t, 3> short_code = {0, 0, 1};
    return payload.starts_with(start_code) || payload.starts_with(short_code);
}

ByteView readable_config(ByteView config) noexcept {
    const auto read = aac::parse_audio_specific_config(config);
    return read && read->sample_rate > 0 ? config : aac::default_config();
}

int rate_of(ByteView config) noexcept {
    const auto read = aac::parse_audio_specific_config(readable_config(config));
    return read ? read->sample_rate : 8000;
}

struct Name {
    std::string_view name;
    Codec codec;
};

/// Encoding names of rtpmap, in capitals.
constexpr std::array<Name, 11> names = {{
    {"H264", Codec::h264},
    {"H265", Codec::h265},
    {"HEVC", Codec::h265},
    {"PCMA", Codec::pcma},
    {"PCMU", Codec::pcmu},
    {"G723", Codec::g723_1},
    {"G729", Codec::g729},
    {"G722", Codec::g722_1},
    {"SVACA", Codec::svaca},
    {"AAC", Codec::aac},
    {"MPEG4-GENERIC", Codec::aac},
}};

std::vector<TrackPtr> list_of(const TrackPtr& track) {
    return track != nullptr ? std::vector<TrackPtr>{track} : std::vector<TrackPtr>{};
}

}  // namespace

std::optional<std::int64_t> RtpPts::of(std::optional<std::uint32_t> rtp_timestamp) noexcept {
    if (!rtp_timestamp) return std::nullopt;
    const std::int64_t value = *rtp_timestamp;
    constexpr std::int64_t half = rtp_modulus / 2;
    last_ = last_ ? *last_ + floor_mod(value - *last_ + half, rtp_modulus) - half : value;
    return floor_mod(floor_div(*last_ * 90000, clock_rate_), pts_modulus);
}

// ------------------------------------------------------------------ video

VideoDepacketiser::VideoDepacketiser(Codec codec, int payload_type, std::size_t max_unit)
    : codec_(codec), assembler_(payload_type, health_, max_unit, true) {}

void VideoDepacketiser::feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
                             std::vector<EsUnit>& out) {
    if (rtp_timestamp != marked_) {
        marked_ = rtp_timestamp;
        const std::optional<std::int64_t> pts = clock_.of(rtp_timestamp);
        assembler_.mark(pts, pts);
    }
    if (!payload.empty()) take(payload, {now, rtp_timestamp});
    if (marker) assembler_.marker(now, !in_fragment_);
    assembler_.take(out);
}

void VideoDepacketiser::gap() {
    ++health_.counters.gaps;
    in_fragment_ = false;
    marked_.reset();
    assembler_.gap();
}

std::optional<double> VideoDepacketiser::deadline() const {
    return in_fragment_ ? std::nullopt : assembler_.deadline();
}

void VideoDepacketiser::flush_after(double now, std::vector<EsUnit>& out) {
    const std::optional<double> at = deadline();
    if (!at || now < *at) return;
    assembler_.flush();
    assembler_.take(out);
}

void VideoDepacketiser::flush(std::vector<EsUnit>& out) {
    if (!in_fragment_) assembler_.flush();
    assembler_.take(out);
}

std::vector<TrackPtr> VideoDepacketiser::tracks() const { return list_of(assembler_.track()); }

void VideoDepacketiser::unit(ByteView unit, const Packet& packet) {
    end_fragment();
    assembler_.append(start_code, {}, unit, packet.now, packet.rtp_timestamp);
}

void VideoDepacketiser::annexb(ByteView payload, const Packet& packet) {
    health_.quirks.add(Quirk::rtp_annexb_in_payload);
    end_fragment();
    assembler_.append(payload, packet.now, packet.rtp_timestamp);
}

/// Another unit while a fragment is open: its end is missing.
void VideoDepacketiser::end_fragment() {
    if (!in_fragment_) return;
    ++health_.counters.malformed;
    in_fragment_ = false;
    assembler_.gap();
}

void VideoDepacketiser::aggregate(ByteView payload, std::size_t position, const Packet& packet) {
    while (position + 2 <= payload.size()) {
        const std::size_t length = payload.u16(position);
        position += 2;
        if (length == 0 || position + length > payload.size()) {
            ++health_.counters.malformed;
            return;
        }
        unit(payload.slice(position, position + length), packet);
        position += length;
    }
}

void VideoDepacketiser::fragment(ByteView header, std::uint8_t flags, ByteView data, const Packet& packet) {
    if ((flags & 0x80) != 0) {
        end_fragment();
        in_fragment_ = true;
        assembler_.append(start_code, header, data, packet.now, packet.rtp_timestamp);
    } else if (in_fragment_) {
        assembler_.append(data, packet.now, packet.rtp_timestamp);
    } else {
        ++health_.counters.dropped_units;  // joined in the middle
        return;
    }
    if ((flags & 0x40) != 0) in_fragment_ = false;
}

void H264Depacketiser::take(ByteView payload, const Packet& packet) {
    const int kind = payload[0] & 0x1F;
    if (kind >= 1 && kind <= 23) {
        if (has_start_code(payload)) {
            annexb(payload, packet);
        } else {
            unit(payload, packet);
        }
    } else if (kind == 24) {
        aggregate(payload, 1, packet);
    } else if (kind == 28 && payload.size() > 2) {
        const std::array<std::uint8_t, 1> header = {
            static_cast<std::uint8_t>((payload[0] & 0xE0) | (payload[1] & 0x1F))};
        fragment(header, payload[1], payload.from(2), packet);
    } else if (has_start_code(payload)) {
        annexb(payload, packet);  // the stream as a file has it
    } else {
        ++health_.counters.malformed;
    }
}

void H265Depacketiser::take(ByteView payload, const Packet& packet) {
    if (payload.size() < 3) {
        ++health_.counters.malformed;
        return;
    }
    if (payload[0] == 0 && payload[1] == 0 && payload[2] <= 1) {
        annexb(payload, packet);
        return;
    }
    const int kind = payload[0] >> 1 & 0x3F;
    if (kind < 48) {
        unit(payload, packet);
    } else if (kind == 48) {
        aggregate(payload, 2, packet);
    } else if (kind == 49 && payload.size() > 3) {
        const std::array<std::uint8_t, 2> header = {
            static_cast<std::uint8_t>((payload[0] & 0x81) | (payload[2] & 0x3F) << 1), payload[1]};
        fragment(header, payload[2], payload.from(3), packet);
    } else {
        ++health_.counters.malformed;
    }
}

// ------------------------------------------------------------------ audio

AudioDepacketiser::AudioDepacketiser(int payload_type, Codec codec, int clock_rate)
    : clock_(clock_rate), assembler_(payload_type, health_) {
    assembler_.declare(stream_type_of(codec));
}

void AudioDepacketiser::feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
                             std::vector<EsUnit>& out) {
    static_cast<void>(marker);  // on audio it marks the start of a talkspurt (RFC 3551 4.1)
    assembler_.start(clock_.of(rtp_timestamp), rtp_timestamp);
    assembler_.append(payload, now);
    assembler_.finish();
    assembler_.take(out);
}

void AudioDepacketiser::gap() {
    ++health_.counters.gaps;
    assembler_.gap();
}

std::vector<TrackPtr> AudioDepacketiser::tracks() const { return list_of(assembler_.track()); }

AacDepacketiser::AacDepacketiser(int payload_type, ByteView config, int clock_rate)
    : clock_(clock_rate > 0 ? clock_rate : rate_of(config)),
      assembler_(payload_type, health_, readable_config(config)) {
    assembler_.declare(stream_type_of(Codec::aac));
}

void AacDepacketiser::feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
                           std::vector<EsUnit>& out) {
    static_cast<void>(marker);
    const ByteView whole = join(payload);
    if (!whole.empty()) {
        assembler_.start(clock_.of(rtp_timestamp), rtp_timestamp);
        assembler_.append(whole, now);
        assembler_.finish();
        health_.quirks.remove(Quirk::ps_aac_au_headers);  // here they are the rule
    }
    assembler_.take(out);
}

/// A unit larger than its packet comes in several, each with the AU header of the whole (RFC 3640 3.2.3).
ByteView AacDepacketiser::join(ByteView payload) {
    constexpr std::size_t head = 4;
    if (payload.size() < head || payload[0] != 0x00 || payload[1] != 0x10) return payload;
    const std::size_t size = payload.u16(2) >> 3;
    const ByteView data = payload.from(head);
    if (fragment_size_ == 0) {
        if (size <= data.size()) return payload;
        fragment_size_ = size;
        fragment_.assign(payload.begin(), payload.end());
        return {};
    }
    // The head of the last fragment is that of the whole.
    std::copy_n(payload.begin(), head, fragment_.begin());
    fragment_.insert(fragment_.end(), data.begin(), data.end());
    const std::size_t present = fragment_.size() - head;
    if (size != fragment_size_ || present > size) {
        ++health_.counters.malformed;
        fragment_size_ = 0;
        return {};
    }
    if (present < size) return {};
    fragment_size_ = 0;
    return fragment_;
}

void AacDepacketiser::gap() {
    ++health_.counters.gaps;
    fragment_size_ = 0;
    fragment_.clear();
    assembler_.gap();
}

std::vector<TrackPtr> AacDepacketiser::tracks() const { return list_of(assembler_.track()); }

// ------------------------------------------------------------------ choice

DemuxerChoice make_demuxer(std::string_view encoding, int payload_type, ByteView first_payload, ByteView aac_config) {
    const nal::PayloadKind found = nal::sniff_payload(first_payload);
    if (found == nal::PayloadKind::transport_stream) return {nullptr, Quirk::rtp_mpeg_ts};
    if (found == nal::PayloadKind::program_stream) {
        return {std::make_unique<PsDemuxer>(VideoAssembler::default_max_unit, aac_config)};
    }
    std::string name(encoding);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char letter) { return static_cast<char>(std::toupper(static_cast<unsigned char>(letter))); });
    const auto known = std::find_if(names.begin(), names.end(), [&](const Name& entry) { return entry.name == name; });
    if (known == names.end()) {
        if (name == "MP4V-ES" || name == "MPEG4" || name == "SVAC") return {nullptr, Quirk::rtp_unsupported_encoding};
        return {std::make_unique<PsDemuxer>(VideoAssembler::default_max_unit, aac_config)};
    }
    switch (known->codec) {
        case Codec::h264: return {std::make_unique<H264Depacketiser>(payload_type)};
        case Codec::h265: return {std::make_unique<H265Depacketiser>(payload_type)};
        case Codec::aac: return {std::make_unique<AacDepacketiser>(payload_type, aac_config)};
        default: return {std::make_unique<AudioDepacketiser>(payload_type, known->codec)};
    }
}

}  // namespace gb28181
