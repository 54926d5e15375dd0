#include "gb28181/audio.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace gb28181 {
namespace {

constexpr int assume_after = 25;
constexpr int give_up_after = 10;
constexpr std::size_t max_carry = 0x2000;

}  // namespace

bool is_mpeg_audio(ByteView data) noexcept {
    constexpr std::array<int, 15> kbps = {0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384};
    constexpr std::array<int, 3> hz = {44100, 48000, 32000};
    for (std::size_t start = find_byte(data, 0xFF, 0); start != npos && start + 3 < data.size();
         start = find_byte(data, 0xFF, start + 1)) {
        if ((data[start + 1] & 0xFE) != 0xFC) continue;
        const auto rate = static_cast<std::size_t>(data[start + 2] >> 4);
        const auto frequency = static_cast<std::size_t>(data[start + 2] >> 2 & 3);
        if (rate == 0 || rate >= kbps.size() || frequency >= hz.size()) continue;
        const std::size_t size = static_cast<std::size_t>(144000 * kbps[rate] / hz[frequency]) +
                                 static_cast<std::size_t>(data[start + 2] >> 1 & 1);
        if (start + size + 2 <= data.size() && data[start + size] == 0xFF &&
            (data[start + size + 1] & 0xFE) == 0xFC) {
            return true;
        }
    }
    return false;
}

AudioAssembler::AudioAssembler(int stream_id, DemuxHealth& health, ByteView aac_config)
    : stream_id_(stream_id), health_(health), aac_config_(aac_config.copy()) {}

void AudioAssembler::declare(int stream_type) {
    if (declared_ == stream_type) return;
    declared_ = stream_type;
    adts_seen_ = 0;
    unread_ = 0;
}

void AudioAssembler::start(Time pts, std::optional<std::uint32_t> rtp_timestamp) {
    finish();
    pts_ = pts;
    rtp_timestamp_ = rtp_timestamp;
    started_ = true;
}

void AudioAssembler::append(ByteView data, double arrival) {
    arrival_ = arrival;
    if (!started_) return;
    if (packet_.size() + data.size() > max_pes) {
        ++health_.counters.oversized;
        drop();
        return;
    }
    packet_.insert(packet_.end(), data.begin(), data.end());
}

void AudioAssembler::finish() {
    if (packet_.empty()) return;
    started_ = false;
    Bytes data = std::exchange(packet_, {});
    read(data);
    data.clear();
    packet_ = std::move(data);  // for its memory
}

void AudioAssembler::gap() {
    if (!packet_.empty()) ++health_.counters.dropped_units;
    drop();
    damaged_ = true;
}

void AudioAssembler::drop() noexcept {
    packet_.clear();
    carry_.clear();
    next_pts_.reset();
    started_ = false;
}

void AudioAssembler::take(std::vector<EsUnit>& out) {
    std::move(out_.begin(), out_.end(), std::back_inserter(out));
    out_.clear();
}

void AudioAssembler::read(ByteView data) {
    std::optional<Codec> declared;
    if (declared_) declared = codec_of_stream_type(*declared_);
    if (is_adts(data, declared)) {
        if (declared != Codec::aac) quirk(Quirk::ps_audio_codec_mismatch);
        read_adts(data);
        return;
    }
    if (adts_seen_ != 0 && !track_) {
        // It may be AAC under another name (MED-13): one packet later we know, and nothing wrong was published.
        ++health_.counters.dropped_units;
        return;
    }
    if (declared == Codec::aac) {
        read_aac_units(data);
        return;
    }
    if (!declared) {
        if (declared_) {
            quirk(Quirk::ps_unsupported_stream_type);
            ++health_.counters.dropped_units;
            return;
        }
        ++undeclared_;
        mpeg_audio_ += is_mpeg_audio(data) ? 1 : 0;
        if (undeclared_ < assume_after || mpeg_audio_ > assume_after / 2) {
            ++health_.counters.dropped_units;
            if (undeclared_ == assume_after) quirk(Quirk::ps_unsupported_stream_type);
            return;
        }
        quirk(Quirk::ps_audio_codec_assumed);
        declared = Codec::pcma;
    }
    if (is_video(*declared)) {
        quirk(Quirk::ps_unsupported_stream_type);
        ++health_.counters.dropped_units;
        return;
    }
    emit(plain_track(*declared), pts_, data);
}

/// AAC by its bytes. Under another declaration two chains in a row are wanted: noise may look like one.
bool AudioAssembler::is_adts(ByteView data, std::optional<Codec> declared) {
    if (declared == Codec::aac && (!carry_.empty() || aac::parse_adts(data))) return true;
    if (aac::is_adts_chain(data)) {
        ++adts_seen_;
    } else if (adts_seen_ < 2 || !aac::parse_adts(data)) {
        adts_seen_ = 0;
    }
    return adts_seen_ >= 2;
}

void AudioAssembler::read_adts(ByteView fresh) {
    std::size_t carried = carry_.size();
    Bytes joined;
    ByteView data = fresh;
    if (carried != 0) {
        joined = std::move(carry_);
        joined.insert(joined.end(), fresh.begin(), fresh.end());
        data = joined;
    }
    carry_ = Bytes{};
    std::size_t position = 0;
    Time pts = carried != 0 ? next_pts_ : pts_;
    while (position < data.size()) {
        const std::optional<aac::AdtsHeader> header = aac::parse_adts(data, position);
        if (!header) {
            const std::size_t left = data.size() - position;
            if (left < 7 && data[position] == 0xFF && (left < 2 || (data[position + 1] & 0xF6) == 0xF0)) break;
            const std::size_t following = find_byte(data, 0xFF, position + 1);
            const std::size_t next = following == npos ? data.size() : following;
            health_.counters.skipped_bytes += next - position;
            position = next;
            if (following == npos) break;
            continue;
        }
        const std::size_t end = position + header->frame_size;
        if (end > data.size()) break;
        if (carried != 0 && position >= carried) {
            // The first frame that begins in this PES takes its time.
            carried = 0;
            if (pts_) pts = pts_;
        }
        const int rate = header->sample_rate();
        if (header->blocks == 1) {
            emit(aac_track(header->config(), rate, header->channels), pts,
                 data.slice(position + header->header_size, end));
        } else {
            ++health_.counters.malformed;
        }
        if (pts) {
            const std::int64_t duration = std::int64_t{aac::samples_per_frame} * 90000 * header->blocks / rate;
            pts = (*pts + duration) % pts_modulus;
        }
        position = end;
    }
    if (data.size() - position <= max_carry) carry_ = data.from(position).copy();
    next_pts_ = pts;
    if (carried != 0 && !carry_.empty() && pts_ && carried <= position) next_pts_ = pts_;
}

/// Declared AAC without ADTS: AU headers (MED-14), or not to be read.
void AudioAssembler::read_aac_units(ByteView data) {
    if (!aac::split_au_headers(data, units_)) {
        ++health_.counters.dropped_units;
        ++unread_;
        if (unread_ == give_up_after) quirk(Quirk::ps_audio_unreadable);
        return;
    }
    quirk(Quirk::ps_aac_au_headers);
    const auto config = aac::parse_audio_specific_config(aac_config_);
    if (!config || config->sample_rate == 0) {
        ++health_.counters.malformed;
        return;
    }
    const TrackPtr track = aac_track(aac_config_, config->sample_rate, config->channels);
    Time pts = pts_;
    for (const ByteView unit : units_) {
        emit(track, pts, unit);
        if (pts) pts = (*pts + std::int64_t{aac::samples_per_frame} * 90000 / config->sample_rate) % pts_modulus;
    }
}

TrackPtr AudioAssembler::aac_track(ByteView config, int sample_rate, int channels) const {
    if (track_ != nullptr && track_->codec == Codec::aac && track_->parameter_sets.size() == 1 &&
        ByteView(track_->parameter_sets[0]) == config) {
        return track_;
    }
    Track track;
    track.kind = TrackKind::audio;
    track.codec = Codec::aac;
    track.sample_rate = sample_rate;
    track.channels = channels;
    track.parameter_sets.push_back(config.copy());
    return std::make_shared<const Track>(std::move(track));
}

TrackPtr AudioAssembler::plain_track(Codec codec) const {
    if (track_ != nullptr && track_->codec == codec) return track_;
    Track track;
    track.kind = TrackKind::audio;
    track.codec = codec;
    track.sample_rate = default_audio_rate(codec);
    track.channels = 1;
    return std::make_shared<const Track>(std::move(track));
}

void AudioAssembler::emit(TrackPtr track, Time pts, ByteView payload) {
    if (track != track_) {
        track_ = track;
        ++version_;
    }
    unread_ = 0;
    ++health_.counters.units;
    EsUnit& unit = out_.emplace_back();
    unit.track = std::move(track);
    unit.stream_id = stream_id_;
    unit.pts_90k = pts;
    unit.dts_90k = pts;
    unit.key = true;
    unit.payload = Buffer::copy_of(payload);
    unit.damaged = damaged_;
    unit.rtp_timestamp = rtp_timestamp_;
    unit.arrival = arrival_;
    damaged_ = false;
}

}  // namespace gb28181
