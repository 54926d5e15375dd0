#include "gb28181/intake.hpp"

#include <algorithm>
#include <cctype>
#include <limits>
#include <string>
#include <utility>

#include "gb28181/es_depacketiser.hpp"
#include "gb28181/nal.hpp"

namespace gb28181 {
namespace {

// Packets among which the parameter sets of an elementary stream under a PS payload type are looked for.
constexpr unsigned probed_packets = 500;
// A program stream without a map is expected to have video for so long.
constexpr double map_wait_s = 5.0;
constexpr unsigned stap_a = 24;       // RFC 6184 5.7.1
constexpr unsigned aggregation = 48;  // RFC 7798 4.4.2
constexpr unsigned h265_vps = 32;

bool same_name(std::string_view name, std::string_view upper) {
    return std::equal(name.begin(), name.end(), upper.begin(), upper.end(),
                      [](char left, char right) { return std::toupper(static_cast<unsigned char>(left)) == right; });
}

bool means_ps(std::string_view name) { return name.empty() || same_name(name, "PS"); }

// The codec of a payload that is, or begins an aggregate with, a readable SPS or a VPS.
std::optional<Codec> probe(ByteView payload) {
    if (payload.size() < 8) return std::nullopt;
    ByteView inner;
    if ((payload[0] & 0x1FU) == stap_a) {
        inner = payload.slice(3, std::size_t{3} + payload.u16(1));
    } else if ((payload[0] >> 1U & 0x3FU) == aggregation) {
        if ((payload[4] >> 1U & 0x3FU) == h265_vps) return Codec::h265;
        return std::nullopt;
    } else if (payload[0] == 0x40 && payload[1] == 0x01 && payload[2] == 0x0C) {
        return Codec::h265;  // a VPS as encoders write it
    }
    for (const ByteView unit : {payload, inner}) {
        if (unit.empty()) continue;
        if (const auto info = nal::probe_sps(unit)) return info->codec;
    }
    return std::nullopt;
}

}  // namespace

std::uint32_t rtp_clock_rate(std::string_view encoding) {
    for (const std::string_view audio : {"PCMA", "PCMU", "G723", "G729", "G722", "SVACA"}) {
        if (same_name(encoding, audio)) return 8'000;
    }
    return 90'000;
}

Looks Intake::looks(const RtpPacket& packet) const {
    const ByteView payload = packet.payload;
    if (payload.empty()) return Looks::nothing;
    if (nal::sniff_payload(payload) != nal::PayloadKind::elementary) return Looks::recognised;
    const auto found = payloads_->find(packet.payload_type);
    if (found == payloads_->end() || same_name(found->second, "PS")) {
        return probe(payload) ? Looks::recognised : Looks::plausible;
    }
    return Looks::recognised;
}

void Intake::preset(ParameterSets sets) {
    sets_ = std::move(sets);
    each([this](Demuxer& reader) { hand_over(reader); });
}

// What the SDP told of the video. The codec is what a readable SPS says (MED-01).
void Intake::hand_over(Demuxer& reader) const {
    if (!sets_) return;
    std::optional<Codec> codec;
    for (const Bytes& unit : *sets_) {
        if (const auto info = nal::probe_sps(ByteView(unit))) {
            codec = info->codec;
            break;
        }
    }
    if (codec) reader.preset(*codec, *sets_);
}

void Intake::push(const RtpPacket& packet, double now, std::vector<EsUnit>& out) {
    now_ = now;
    if (!began_at_) began_at_ = now;
    const Reader* known = find(packet.payload_type);
    Demuxer* reader = known != nullptr ? known->demuxer : open(packet.payload_type, packet.payload);
    if (probed_ < probed_packets && reader == program_.get()) {
        reader = reconsider(packet.payload_type, packet.payload, reader);
    }
    if (reader == nullptr) {
        ++dropped_;
        return;
    }
    reader->feed(packet.payload, packet.timestamp, packet.marker, now, out);
}

template <class Action>
void Intake::each(Action&& action) const {
    if (program_) action(static_cast<Demuxer&>(*program_));
    for (const auto& reader : elementary_) action(*reader);
}

void Intake::gap() {
    each([](Demuxer& reader) { reader.gap(); });
}

void Intake::flush(std::vector<EsUnit>& out) {
    each([&out](Demuxer& reader) { reader.flush(out); });
}

double Intake::deadline() const {
    double first = std::numeric_limits<double>::infinity();
    each([&first](const Demuxer& reader) {
        if (const auto at = reader.deadline()) first = std::min(first, *at);
    });
    return first;
}

void Intake::flush_after(double now, std::vector<EsUnit>& out) {
    each([now, &out](Demuxer& reader) { reader.flush_after(now, out); });
}

QuirkSet Intake::quirks() const {
    QuirkSet all = told_;
    each([&all](const Demuxer& reader) { all.add(reader.quirks().set()); });
    return all;
}

std::uint64_t Intake::errors() const {
    std::uint64_t sum = dropped_;
    each([&sum](const Demuxer& reader) { sum += reader.counters().errors(); });
    return sum;
}

bool Intake::video_expected() const {
    if (!program_) {
        return std::any_of(payloads_->begin(), payloads_->end(), [](const auto& entry) {
            const std::string& name = entry.second;
            return same_name(name, "H264") || same_name(name, "H265") || same_name(name, "HEVC");
        });
    }
    const auto& types = program_->stream_types();
    if (types.empty()) return now_ - began_at_.value_or(0.0) < map_wait_s;
    return std::any_of(types.begin(), types.end(),
                       [](const auto& entry) { return entry.first >= 0xE0 && entry.first <= 0xEF; });
}

bool Intake::audio_expected() const {
    if (!program_) return false;
    const auto& types = program_->stream_types();
    return std::any_of(types.begin(), types.end(), [](const auto& entry) {
        const auto codec = codec_of_stream_type(entry.second);
        return codec && !is_video(*codec);
    });
}

Intake::Reader* Intake::find(std::uint8_t payload_type) noexcept {
    for (Reader& reader : readers_) {
        if (reader.payload_type == payload_type) return &reader;
    }
    return nullptr;
}

Demuxer* Intake::open(std::uint8_t payload_type, ByteView payload) {
    const auto entry = payloads_->find(payload_type);
    const std::string_view encoding = entry != payloads_->end() ? std::string_view(entry->second) : "";
    if (entry == payloads_->end()) told_.add(Quirk::rtp_payload_type);  // MED-19
    if (readers_.size() >= max_readers) return nullptr;
    Demuxer* reader = nullptr;
    if (program_ && means_ps(encoding)) {
        reader = program_.get();
    } else {
        DemuxerChoice choice = make_demuxer(encoding.empty() ? "PS" : encoding, payload_type, payload);
        if (!choice.demuxer) {
            told_.add(choice.refused);
        } else if (choice.demuxer->is_program()) {
            if (!means_ps(encoding)) told_.add(Quirk::rtp_ps_under_es);
            if (!program_) program_.reset(static_cast<PsDemuxer*>(choice.demuxer.release()));
            reader = program_.get();
        } else {
            reader = choice.demuxer.get();
            elementary_.push_back(std::move(choice.demuxer));
        }
    }
    if (reader != nullptr) hand_over(*reader);
    readers_.push_back({.payload_type = payload_type, .demuxer = reader});
    return reader;
}

// An elementary stream under the payload type of PS is found by its parameter sets (MED-18).
Demuxer* Intake::reconsider(std::uint8_t payload_type, ByteView payload, Demuxer* reader) {
    ++probed_;
    if (!program_ || !program_->stream_types().empty() || program_->tracks_version() != 0 ||
        nal::sniff_payload(payload) == nal::PayloadKind::program_stream) {
        probed_ = probed_packets;
        return reader;
    }
    const auto codec = probe(payload);
    if (!codec) return reader;
    told_.add(Quirk::rtp_es_under_ps);
    probed_ = probed_packets;
    program_.reset();
    elementary_.clear();
    readers_.clear();
    if (*codec == Codec::h264) {
        elementary_.push_back(std::make_unique<H264Depacketiser>(payload_type));
    } else {
        elementary_.push_back(std::make_unique<H265Depacketiser>(payload_type));
    }
    readers_.push_back({.payload_type = payload_type, .demuxer = elementary_.back().get()});
    return elementary_.back().get();
}

}  // namespace gb28181
