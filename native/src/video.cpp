#include "gb28181/video.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

namespace gb28181 {
namespace {

/// Pictures without parameter sets after which it is said (MED-35): ten seconds.
constexpr int unready_limit = 250;
constexpr int judged_nals = 100;
constexpr std::size_t fps_samples = 25;
constexpr double min_patience_s = 0.02;
constexpr double max_patience_s = 0.5;
/// Pictures in a row that must end where a PES packet ends before a short pause is believed to end one again.
constexpr int ragged_pictures = 25;
constexpr std::size_t max_marks = 64;
constexpr std::size_t max_sets = 64;
/// Memory that the unit in work keeps while it is small; more goes back to the thread's cache.
constexpr std::size_t kept_capacity = 32 * 1024;
/// NAL units of a picture for which memory is kept.
constexpr std::size_t kept_nals = 1024;

bool is_h264_opener(int kind) noexcept { return (kind >= 6 && kind <= 9) || kind == 15; }

bool is_h265_opener(int kind) noexcept {
    return (kind >= 32 && kind <= 35) || kind == 39 || (kind >= 41 && kind <= 44) || (kind >= 48 && kind < 56);
}

/// A delimiter or a VPS: worth keeping until it is known whether an SPS follows.
bool may_precede_sps(ByteView unit) noexcept {
    return !unit.empty() && ((unit[0] & 0x9F) == nal::h264_aud ||
                             (unit.size() >= 2 && (unit[0] == 0x40 || unit[0] == 0x46) && unit[1] == 0x01));
}

/// The first VOP is intra coded (ISO 14496-2 6.2.5); without a VOP, a configuration begins.
bool is_mpeg4_key(ByteView payload) noexcept {
    bool configuration = false;
    for (std::size_t place = find_start_code(payload, 0); place != npos; place = find_start_code(payload, place + 3)) {
        const std::uint8_t code = payload[place + 3];
        if (code == 0xB6 && place + 3 < payload.size()) {
            return place + 4 < payload.size() ? payload[place + 4] >> 6 == 0
                                              : configuration;
        }
        configuration = configuration || code == 0xB0;
    }
    return configuration;
}

/// The set's id, to tell several sets of one kind apart; -1 when it cannot be read.
std::int64_t set_id(Codec codec, int kind, ByteView unit) {
    if (codec == Codec::h265 && kind == nal::h265_vps) return unit[2] >> 4;
    if (codec == Codec::h265 && kind == nal::h265_sps) {
        const auto info = nal::parse_h265_sps(unit);
        return info ? info->sps_id : -1;
    }
    std::size_t start = 2;
    std::int64_t limit = 0xFFFFFFFF;
    if (codec == Codec::h264) {
        start = kind == nal::h264_sps ? 4 : 1;
        if (kind == nal::h264_sps) limit = 0xFFFF;
    }
    nal::BitReader bits(unit.slice(start, start + 8));
    const std::int64_t id = bits.ue();
    return bits.ok() && id <= limit ? id : -1;
}

bool is_bad_nal(std::uint8_t header, std::optional<Codec> codec) noexcept {
    if (header >= 0x80) return true;
    if (codec == Codec::h264) return (header & 0x1F) == 0 || ((header & 0x1F) >= 22);
    if (codec == Codec::h265) return (header >> 1 & 0x3F) >= 41;
    return false;
}

/// A parameter set in somebody's memory.
struct NamedSet {
    int kind;
    std::int64_t id;
    ByteView unit;
};

/// Parameter sets in the order in which their ids came first, the latest of each.
struct NamedSets {
    std::vector<NamedSet> list;
    std::map<std::pair<int, std::int64_t>, std::size_t> places;

    void put(const NamedSet& set) {
        const auto [known, is_new] = places.try_emplace({set.kind, set.id}, list.size());
        if (is_new) {
            list.push_back(set);
        } else {
            list[known->second] = set;
        }
    }
    [[nodiscard]] bool has(int kind) const {
        const auto first = places.lower_bound({kind, std::numeric_limits<std::int64_t>::min()});
        return first != places.end() && first->first.first == kind;
    }
};

double to_one_decimal(double value) noexcept {
    std::array<char, 64> digits{};
    if (std::snprintf(digits.data(), digits.size(), "%.1f", value) >= static_cast<int>(digits.size())) return value;
    return std::strtod(digits.data(), nullptr);
}

}  // namespace

VideoAssembler::VideoAssembler(int stream_id, DemuxHealth& health, std::size_t max_unit, bool aligned)
    : stream_id_(stream_id), health_(health), max_unit_(max_unit), ragged_(aligned ? 0 : 1) {}

// ------------------------------------------------------------------ input

void VideoAssembler::declare(Codec codec) {
    const bool opaque = codec == Codec::svac || codec == Codec::mpeg4;
    declared_ = codec;
    if (is_opaque() && codec_ != codec) {
        codec_.reset();
        reset_unit();
        if (!opaque) return;
    }
    if (!codec_ && opaque) {
        codec_ = codec;
        info_.reset();
        reset_unit();
        Track track;
        track.codec = codec;
        set_track(std::move(track));
    }
}

void VideoAssembler::preset(Codec codec, const std::vector<Bytes>& parameter_sets) {
    if (info_) return;
    codec_ = codec;
    std::vector<ByteView> sets;
    for (const Bytes& unit : parameter_sets) {
        if (unit.size() >= 4) sets.emplace_back(unit);
    }
    learn_sets(sets);
}

void VideoAssembler::mark(Time pts, Time dts) {
    if (is_opaque()) {
        mark_opaque(pts, dts);
        return;
    }
    const std::int64_t place = base_ + static_cast<std::int64_t>(es_.size());
    packets_[packet_] = place;
    packet_ = (packet_ + 1) % packets_.size();
    if (!pts) return;
    if (!codec_) count_unready();
    if (marks_.size() >= max_marks) marks_.erase(marks_.begin());
    marks_.push_back({place, pts, dts});
}

void VideoAssembler::append(ByteView first, ByteView second, ByteView third, double arrival,
                            std::optional<std::uint32_t> rtp_timestamp) {
    const std::int64_t known = base_ + static_cast<std::int64_t>(es_.size());  // came with earlier packets up to here
    if (es_.empty()) rtp_timestamp_ = rtp_timestamp;
    if (is_opaque()) {
        if (skipping_) return;
        es_.append(first);
        es_.append(second);
        es_.append(third);
        arrival_ = arrival;
        if (es_.size() > max_unit_) overflow();
        return;
    }
    es_.append(first);
    es_.append(second);
    es_.append(third);
    while (true) {
        std::size_t index = find_start_code(es_.view(), scan_);
        if (index == npos) {
            if (es_.size() >= 2) scan_ = std::max(scan_, es_.size() - 2);
            break;
        }
        if (es_.size() < index + lookahead()) {
            scan_ = index;
            break;
        }
        const std::int64_t end = open(index);
        if (end >= 0) {
            cut(static_cast<std::size_t>(end), base_ + end <= known ? arrival_ : arrival);
            index -= static_cast<std::size_t>(end);
            rtp_timestamp_ = rtp_timestamp;
        } else if (fresh_) {
            fresh_ = false;
            index -= start_fresh(index);
            rtp_timestamp_ = rtp_timestamp;
        }
        enter(index);
    }
    arrival_ = arrival;
    if (es_.size() > max_unit_) {
        overflow();
    } else if (skipping_ || !codec_) {
        trim();
    }
}

void VideoAssembler::marker(double arrival, bool between) {
    if (es_.empty() || !codec_) return;
    if (!between || (vcl_ < 0 && !is_opaque())) {
        markers_ = 0;
        marker_at_.reset();
        return;
    }
    const std::int64_t place = base_ + static_cast<std::int64_t>(es_.size());
    if (marker_at_ && *marker_at_ != place) markers_ = 0;  // the one before fell into a picture
    marker_at_ = place;
    if (markers_ >= trusted_markers && is_whole()) end_early(arrival);
}

void VideoAssembler::gap() {
    if (!es_.empty() || !nals_.empty()) ++health_.counters.dropped_units;
    reset_unit();
    skipping_ = codec_.has_value();  // else the search for an SPS begins anew
    ended_early_ = false;
    damaged_ = true;
}

void VideoAssembler::flush() {
    if (is_opaque()) {
        if (!es_.empty()) emit(es_.size(), arrival_);
    } else if (is_whole()) {
        end_early(arrival_);
    }
}

std::optional<double> VideoAssembler::deadline() const {
    if (is_opaque() ? es_.empty() : !is_whole()) return std::nullopt;
    if (ragged_ != 0) return arrival_ + max_patience_s;
    const double pause = std::min(std::max(interval_ / 90000, min_patience_s), 0.2) * patience_;
    return arrival_ + std::min(pause, max_patience_s);
}

void VideoAssembler::take(std::vector<EsUnit>& out) {
    std::move(out_.begin(), out_.end(), std::back_inserter(out));
    out_.clear();
}

// --------------------------------------------------------- start of units

/// Bytes from a start code on that `open` looks at.
std::size_t VideoAssembler::lookahead() const noexcept {
    if (codec_ != Codec::h264) return 6;
    return info_ && !info_->frame_mbs_only ? 24 : 5;
}

/// Where to cut if the start code at `index` begins an access unit, else -1 (and perhaps `fresh_`).
std::int64_t VideoAssembler::open(std::size_t index) {
    if (!codec_) {
        probe(index);
        return -1;
    }
    const std::uint8_t header = es_[index + 3];
    if (!nals_.empty()) probe_change(index);
    const Opening opening = opens(index, header);
    judge(header, codec_);
    if (ended_early_) {
        ended_early_ = false;
        if (!opening.opens || !es_.view().slice(0, index).without_trailing_zeros().empty()) {
            // The marker or the pause was inside the picture after all.
            ++health_.counters.premature;
            quirk(Quirk::rtp_marker_inside_picture);
            markers_ = 0;
            patience_ = std::min(patience_ * 2, 16.0);
            damaged_ = true;
            skipping_ = true;
            ++health_.counters.dropped_units;
        }
    }
    if (skipping_) {
        if (!opening.opens) return -1;
        skipping_ = false;
        fresh_ = true;
        return -1;
    }
    if (opening.opens && vcl_ >= 0 && !(opening.is_slice && is_second_field(index))) {
        // A four-byte start code belongs to what follows, unless the times say that it begins one later.
        const std::int64_t place = base_ + static_cast<std::int64_t>(index);
        if (index != 0 && es_[index - 1] == 0) {
            if (!is_marked(place)) return static_cast<std::int64_t>(index) - 1;
            split_at_ = place;
        }
        return static_cast<std::int64_t>(index);
    }
    return -1;
}

VideoAssembler::Opening VideoAssembler::opens(std::size_t index, std::uint8_t header) const noexcept {
    if (codec_ == Codec::h264) {
        const int kind = header & 0x1F;
        if (kind == 1 || kind == 2 || kind == 5) {
            const bool first = es_[index + 4] >= 0x80;  // first_mb_in_slice is 0
            return {first, first};
        }
        return {is_h264_opener(kind), false};
    }
    const int kind = header >> 1 & 0x3F;
    if (kind < 32) {
        // Temporal id 0 is forbidden: an empty unit before the next start code.
        if (es_[index + 4] == 0) return {false, false};
        const bool first = es_[index + 5] >= 0x80;  // first_slice_segment_in_pic_flag
        return {first, first};
    }
    return {is_h265_opener(kind), false};
}

/// Note the NAL unit whose start code is at `index`.
void VideoAssembler::enter(std::size_t index) {
    scan_ = index + 3;
    if (skipping_) return;
    nals_.push_back(static_cast<std::uint32_t>(index));
    if (!codec_) return;
    const int kind = nal::nal_type(*codec_, es_[index + 3]);
    if (!nal::is_vcl(*codec_, kind) || (codec_ != Codec::h264 && es_[index + 4] == 0)) return;
    if (vcl_ < 0) {
        vcl_ = static_cast<std::int64_t>(index);
        if (codec_ == Codec::h264 && info_ && !info_->frame_mbs_only) field_ = read_field(index);
    }
    if (nal::is_key_nal(*codec_, kind)) key_ = true;
}

/// frame_num, field_pic_flag and bottom_field_flag of the slice header (H.264 7.3.3).
std::optional<VideoAssembler::FieldHeader> VideoAssembler::read_field(std::size_t index) const {
    if (!info_) return std::nullopt;
    const Bytes rbsp = nal::unescape(es_.view().slice(index + 4, index + 24));
    nal::BitReader bits(rbsp);
    bits.ue();
    bits.ue();
    bits.ue();
    if (info_->separate_colour_planes) bits.skip(2);
    FieldHeader header;
    std::int64_t left = info_->frame_num_bits;
    for (std::uint64_t& word : header.frame_num) {
        word = bits.u(static_cast<std::uint64_t>(std::min<std::int64_t>(left, 64)));
        left -= std::min<std::int64_t>(left, 64);
    }
    if (left > 0) return std::nullopt;
    header.is_field = bits.flag();
    header.bottom = header.is_field && bits.flag();
    if (!bits.ok()) return std::nullopt;
    return header;
}

bool VideoAssembler::is_second_field(std::size_t index) {
    if (!field_ || !field_->is_field) return false;
    const std::optional<FieldHeader> second = read_field(index);
    if (!second || !second->is_field) return false;
    const FieldHeader first = *field_;
    field_.reset();  // a third field is a new frame
    return second->frame_num == first.frame_num && second->bottom != first.bottom;
}

bool VideoAssembler::is_marked(std::int64_t place) const noexcept {
    return std::any_of(marks_.begin(), marks_.end(), [&](const Mark& mark) { return mark.offset == place; });
}

// ------------------------------------------------------------------ probe

/// Codec unknown: look whether the NAL unit that ends at `index` is an SPS.
void VideoAssembler::probe(std::size_t index) {
    judge(es_[index + 3], std::nullopt);
    ByteView unit;
    if (!nals_.empty()) unit = es_.view().slice(nals_.back() + std::size_t{3}, index).without_trailing_zeros();
    if (const auto info = nal::probe_sps(unit)) {
        adopt(*info);
    } else if (!may_precede_sps(unit)) {
        fresh_ = true;
    }
}

void VideoAssembler::adopt(const nal::SequenceInfo& info) {
    codec_ = info.codec;
    info_ = info;
    vcl_ = -1;
    key_ = false;
    skipping_ = false;
}

/// The codec changed in mid-stream (MED-36): the last NAL unit is an SPS of the other one.
void VideoAssembler::probe_change(std::size_t index) {
    const std::size_t start = nals_.back();
    const std::uint8_t header = es_[start + 3];
    const bool other = codec_ == Codec::h264
                           ? header == 0x42 && es_[start + 4] == 1
                           : header == 0x67 || header == 0x27 || header == 0x47 || header == 0x07;
    if (!other) return;
    const auto info = nal::probe_sps(es_.view().slice(start + 3, index).without_trailing_zeros());
    if (!info || info->codec == codec_) return;
    // What stands before it in the buffer was read by the wrong rules; at most its VPS is kept.
    std::size_t keep = start;
    for (std::size_t number = nals_.size() - 1; number > 0; --number) {
        const std::size_t earlier = nals_[number - 1];
        if (!may_precede_sps(es_.view().slice(earlier + 3, earlier + 5))) break;
        keep = earlier;
    }
    std::erase_if(nals_, [&](std::uint32_t place) { return place < keep; });
    vcl_ = -1;
    key_ = false;
    field_.reset();
    damaged_ = true;
    sets_.clear();
    last_sets_.clear();
    adopt(*info);
}

/// Count NAL types that no encoder makes: an encrypted stream is a valid PS of invalid units (MED-39).
void VideoAssembler::judge(std::uint8_t header, std::optional<Codec> codec) {
    ++(is_bad_nal(header, codec) ? bad_nals_ : good_nals_);
    if (bad_nals_ + good_nals_ < judged_nals) return;
    if (bad_nals_ > good_nals_) quirk(Quirk::ps_video_encrypted);
    bad_nals_ = good_nals_ = 0;
}

void VideoAssembler::count_unready() {
    ++unready_;
    if (unready_ != unready_limit) return;
    quirk(Quirk::ps_no_parameter_sets);
    // Hundreds of pictures and hardly a start code among them.
    if (good_nals_ + bad_nals_ < unready_limit / 10) quirk(Quirk::ps_video_encrypted);
}

// ----------------------------------------------------------------- output

/// A picture is in work and no start code hangs unread at its end.
bool VideoAssembler::is_whole() const noexcept {
    return vcl_ >= 0 && !skipping_ && codec_ && scan_ + 2 >= es_.size();
}

void VideoAssembler::end_early(double arrival) {
    split_at_.reset();  // nothing else began in its PES
    emit(es_.size(), arrival);
    ended_early_ = true;
    marker_at_.reset();
}

/// The structure shows that the unit ends at index `end`.
void VideoAssembler::cut(std::size_t end, double arrival) {
    const std::int64_t place = base_ + static_cast<std::int64_t>(end);
    if (marker_at_) {
        markers_ = *marker_at_ == place ? markers_ + 1 : 0;
        marker_at_.reset();
    }
    const bool aligned = std::any_of(packets_.begin(), packets_.end(), [&](std::int64_t packet) {
        return packet >= 0 && (packet == place || packet == place + 1);
    });
    ragged_ = aligned ? std::max(0, ragged_ - 1) : ragged_pictures;
    emit(end, arrival);
}

/// Give out the first `end` bytes and make the rest the unit in work.
void VideoAssembler::emit(std::size_t end, double arrival) {
    const std::optional<Mark> mark = take_mark(end);
    std::optional<Buffer> payload;
    bool key = key_;
    if (end > max_unit_) {
        ++health_.counters.oversized;
        quirk(Quirk::es_unit_too_large);
        damaged_ = true;
    } else if (is_opaque()) {
        payload = Buffer::copy_of(es_.view());
        key = codec_ == Codec::svac || is_mpeg4_key(es_.view());
    } else {
        payload = close_payload(end, key);
    }
    es_.erase_front(end);
    if (es_.capacity() > kept_capacity && es_.size() <= kept_capacity / 2) {
        ByteBuilder smaller;
        if (!es_.empty()) smaller.append(es_.view());
        es_ = std::move(smaller);
    }
    base_ += static_cast<std::int64_t>(end);
    scan_ = scan_ > end ? scan_ - end : 0;
    forget_nals();
    if (!payload || track_ == nullptr) {
        ++health_.counters.dropped_units;
        count_unready();
        return;
    }
    if (key) {
        if (declared_ && declared_ != codec_) quirk(Quirk::ps_psm_codec_mismatch);
        damaged_ = false;
        ++health_.counters.key_frames;
    }
    const Time pts = mark ? mark->pts : Time{};
    const Time dts = mark && mark->dts ? mark->dts : pts;
    measure(dts);
    ++health_.counters.units;
    EsUnit& unit = out_.emplace_back();
    unit.track = track_;
    unit.stream_id = stream_id_;
    unit.pts_90k = pts;
    unit.dts_90k = dts;
    unit.key = key;
    unit.payload = std::move(*payload);
    unit.damaged = damaged_;
    unit.rtp_timestamp = rtp_timestamp_;
    unit.arrival = arrival;
}

/// Annex B with four-byte start codes; learns parameter sets on the way. Nothing: not to be given out yet.
std::optional<Buffer> VideoAssembler::close_payload(std::size_t end, bool& key) {
    if (!codec_ || nals_.empty() || vcl_ < 0) {
        key = false;
        return std::nullopt;
    }
    const Codec codec = *codec_;
    const ByteView view = es_.view().slice(0, end);
    bool uniform = nals_.front() == 1 && view[end - 1] != 0;
    std::size_t bound = 0;  // of the payload with four-byte start codes
    found_sets_.clear();
    const auto stop_of = [&](std::size_t number) {
        return number + 1 < nals_.size() ? static_cast<std::size_t>(nals_[number + 1]) : end;
    };
    for (std::size_t number = 0; number < nals_.size(); ++number) {
        const std::size_t index = nals_[number];
        const std::size_t stop = stop_of(number);
        bound += stop - index + 1;
        if (stop != end && (view[stop - 1] != 0 || view[stop - 2] == 0)) {
            uniform = false;  // a three-byte start code, or zeros in front of it (MED-40)
        }
        if (index + 3 >= stop) {
            uniform = false;  // an empty unit
            continue;
        }
        if (nal::is_parameter_set(codec, nal::nal_type(codec, view[index + 3]))) {
            const ByteView unit = view.slice(index + 3, stop).without_trailing_zeros();
            if (unit.size() >= 4 && unit.size() <= nal::max_parameter_set) found_sets_.push_back(unit);
        }
    }
    Buffer payload;
    if (uniform) {
        payload = Buffer::copy_of(view);
    } else {
        ByteBuilder joined(bound);
        for (std::size_t number = 0; number < nals_.size(); ++number) {
            const ByteView unit =
                view.slice(nals_[number] + std::size_t{3}, stop_of(number)).without_trailing_zeros();
            if (unit.empty()) continue;
            joined.append_u32(1);
            joined.append(unit);
        }
        payload = joined.finish();
    }
    if (!found_sets_.empty()) {
        learn_sets(found_sets_);
        if (!key && codec == Codec::h264) key = is_intra(payload);
        if (found_sets_.capacity() > kept_nals) std::vector<ByteView>().swap(found_sets_);
    }
    if (track_ == nullptr) return std::nullopt;
    return payload;
}

/// An I picture that is no IDR but comes with parameter sets: encoders with open GOPs mean a key frame.
bool VideoAssembler::is_intra(ByteView payload) {
    bool intra = false;
    nal::each_unit(payload, [&](ByteView unit) {
        if ((unit[0] & 0x1F) != nal::h264_slice) return true;
        nal::BitReader bits(unit.slice(1, 12));
        bits.ue();
        const std::int64_t slice_type = bits.ue();
        intra = bits.ok() && (slice_type == 2 || slice_type == 7);
        return false;
    });
    if (intra) quirk(Quirk::es_key_without_idr);
    return intra;
}

/// Keep parameter sets by type and id; a change makes a new track (MED-36).
void VideoAssembler::learn_sets(const std::vector<ByteView>& sets) {
    if (track_ != nullptr && are_last_sets(sets)) return;
    if (!codec_) return;
    const Codec codec = *codec_;
    const int sps_kind = codec == Codec::h264 ? nal::h264_sps : nal::h265_sps;
    const int pps_kind = codec == Codec::h264 ? nal::h264_pps : nal::h265_pps;
    NamedSets fresh;
    std::optional<nal::SequenceInfo> info = info_;
    for (const ByteView unit : sets) {
        const int kind = nal::nal_type(codec, unit[0]);
        if (kind == sps_kind) {
            const auto read = nal::parse_sps(codec, unit);
            if (!read) {
                ++health_.counters.malformed;
                continue;
            }
            info = read;
        }
        fresh.put({kind, set_id(codec, kind, unit), unit});
    }
    if (!info || fresh.list.empty()) return;
    // A new SPS replaces what was there of each kind that came with it.
    const bool replaces = fresh.has(sps_kind);
    NamedSets merged;
    for (const ParameterSet& set : sets_) {
        if (!replaces || !fresh.has(set.kind)) merged.put({set.kind, set.id, set.unit});
    }
    for (const NamedSet& set : fresh.list) merged.put(set);
    const std::size_t gone = merged.list.size() > max_sets ? merged.list.size() - max_sets : 0;
    merged.list.erase(merged.list.begin(), merged.list.begin() + static_cast<std::ptrdiff_t>(gone));
    remember_sets(sets);
    info_ = info;
    const bool changed =
        merged.list.size() != sets_.size() ||
        !std::all_of(merged.list.begin(), merged.list.end(), [&](const NamedSet& set) {
            return std::any_of(sets_.begin(), sets_.end(), [&](const ParameterSet& other) {
                return set.kind == other.kind && set.id == other.id && set.unit == ByteView(other.unit);
            });
        });
    std::vector<ParameterSet> kept;
    for (const NamedSet& set : merged.list) kept.push_back({set.kind, set.id, set.unit.copy()});
    sets_ = std::move(kept);
    const auto has = [&](int kind) {
        return std::any_of(sets_.begin(), sets_.end(), [&](const ParameterSet& set) { return set.kind == kind; });
    };
    if (!changed || !has(sps_kind) || !has(pps_kind)) return;
    std::vector<const ParameterSet*> order;
    for (const ParameterSet& set : sets_) order.push_back(&set);
    std::stable_sort(order.begin(), order.end(),
                     [](const ParameterSet* one, const ParameterSet* other) { return one->kind < other->kind; });
    Track track;
    track.codec = codec;
    track.width = info->width;
    track.height = info->height;
    track.fps = info->fps;
    for (const ParameterSet* const set : order) track.parameter_sets.push_back(set->unit);
    if (track_ != nullptr) {
        if (track_->parameter_sets == track.parameter_sets) return;
        steps_.clear();
    }
    set_track(std::move(track));
}

// A hostile picture may hold a hundred thousand sets: what was seen last is kept in one piece, each behind its length.

bool VideoAssembler::are_last_sets(const std::vector<ByteView>& sets) const noexcept {
    Cursor last(last_sets_);
    for (const ByteView unit : sets) {
        if (last.u32() != unit.size() || !(last.take(unit.size()) == unit)) return false;
    }
    return last.ok() && last.left() == 0;
}

void VideoAssembler::remember_sets(const std::vector<ByteView>& sets) {
    last_sets_.clear();
    for (const ByteView unit : sets) {
        const auto size = static_cast<std::uint32_t>(unit.size());
        for (const unsigned shift : {24U, 16U, 8U, 0U}) last_sets_.push_back(static_cast<std::uint8_t>(size >> shift));
        last_sets_.insert(last_sets_.end(), unit.begin(), unit.end());
    }
}

void VideoAssembler::set_track(Track track) {
    track_ = std::make_shared<const Track>(std::move(track));
    ++version_;
    if (track_->fps > 0) interval_ = 90000 / track_->fps;
}

/// Times of the unit of the first `end` bytes; forgets the marks that are used up.
std::optional<VideoAssembler::Mark> VideoAssembler::take_mark(std::size_t end) {
    if (marks_.empty()) return std::nullopt;
    const std::int64_t start = base_;
    const std::int64_t stop = start + static_cast<std::int64_t>(end);
    std::optional<Mark> chosen;
    std::size_t used = 0;  // marks from the front on that are used up
    while (used < marks_.size() && marks_[used].offset <= start) chosen = marks_[used++];
    const auto finish = [&](const std::optional<Mark>& kept) {
        if (kept) marks_[--used] = *kept;
        marks_.erase(marks_.begin(), marks_.begin() + static_cast<std::ptrdiff_t>(used));
    };
    if (chosen && split_at_ == start) {
        // A start code whose first zero is in the PES before. If another picture begins in this PES, the times are
        // that one's (ISO 13818-1 2.4.3.7); if not, the zero was the end of the picture before.
        split_at_.reset();
        const bool another = std::any_of(packets_.begin(), packets_.end(), [&](std::int64_t packet) {
            return packet > start && packet <= stop;
        });
        if (!another) {
            finish(chosen);
            return std::nullopt;
        }
    }
    if (used == marks_.size() || marks_[used].offset >= stop) {
        finish(std::nullopt);
        return chosen;
    }
    const auto is_nal = [&](std::int64_t place) {
        return std::any_of(nals_.begin(), nals_.end(), [&](std::uint32_t index) {
            return start + static_cast<std::int64_t>(index) == place;
        });
    };
    std::optional<Mark> later;
    while (used < marks_.size() && marks_[used].offset < stop) {
        const Mark mark = marks_[used++];
        const bool aligned = is_nal(mark.offset) || is_nal(mark.offset + 1);
        if (!chosen && aligned && mark.offset <= start + vcl_) {
            chosen = mark;  // what precedes the slices hung at the end of the PES before
        } else if (!aligned) {
            later = mark;  // belongs to the first unit that begins in its PES: the next one
        }
    }
    if (later && chosen && later->pts == chosen->pts) later.reset();
    finish(later);
    return chosen;
}

/// Learn the frame interval, and the rate where the parameter sets tell none.
void VideoAssembler::measure(Time dts) {
    const Time last = std::exchange(last_dts_, dts);
    if (!dts || !last) return;
    const std::int64_t step = floor_mod(*dts - *last, pts_modulus);
    if (step <= 0 || step >= 180000) return;
    interval_ += (static_cast<double>(step) - interval_) / 8;
    if (track_ == nullptr || track_->fps > 0 || steps_.size() >= fps_samples) return;
    steps_.push_back(step);
    if (steps_.size() < fps_samples) return;
    // The middle half: one lost frame or one hiccup must not tilt it.
    std::vector<std::int64_t> sorted = steps_;
    std::sort(sorted.begin(), sorted.end());
    std::int64_t sum = 0;
    for (std::size_t index = 6; index < 19; ++index) sum += sorted[index];
    Track track = *track_;
    track.fps = to_one_decimal(90000.0 * 13 / static_cast<double>(sum));
    set_track(std::move(track));
}

// ------------------------------------------------------------ start again

/// Forget what stands before the start code at `index`, but for its leading zero; answers how much.
std::size_t VideoAssembler::start_fresh(std::size_t index) {
    const std::size_t start = index != 0 && es_[index - 1] == 0 ? index - 1 : index;
    es_.erase_front(start);
    base_ += static_cast<std::int64_t>(start);
    forget_nals();
    marker_at_.reset();
    std::size_t used = 0;
    while (used + 1 < marks_.size() && marks_[used + 1].offset <= base_) ++used;
    marks_.erase(marks_.begin(), marks_.begin() + static_cast<std::ptrdiff_t>(used));
    return start;
}

void VideoAssembler::forget_nals() noexcept {
    nals_.clear();
    if (nals_.capacity() > kept_nals) std::vector<std::uint32_t>().swap(nals_);
    vcl_ = -1;
    key_ = false;
    field_.reset();
}

void VideoAssembler::reset_unit() {
    base_ += static_cast<std::int64_t>(es_.size());
    es_.clear();
    if (es_.capacity() > kept_capacity) es_.release();
    scan_ = 0;
    forget_nals();
    marks_.clear();
    marker_at_.reset();
}

/// Nothing in work: keep only what may become a start code or is a candidate for an SPS.
void VideoAssembler::trim() {
    if (!codec_ && !nals_.empty() && es_.size() <= 4 * nal::max_parameter_set) {
        const std::size_t last = nals_.back();
        const ByteView header = es_.view().slice(last + 3, last + 5);
        if ((header[0] == 0x42 && header[1] == 0x01) || (header[0] & 0x9F) == nal::h264_sps ||
            may_precede_sps(header)) {
            return;
        }
    }
    std::size_t keep = std::min(scan_, es_.size());
    if (keep == 0) return;
    if (es_[keep - 1] == 0) --keep;
    es_.erase_front(keep);
    base_ += static_cast<std::int64_t>(keep);
    scan_ -= keep;
    nals_.clear();
}

void VideoAssembler::overflow() {
    ++health_.counters.oversized;
    quirk(Quirk::es_unit_too_large);
    gap();
}

void VideoAssembler::pack() {
    if (!is_opaque() || timed_) return;
    if (!es_.empty()) emit(es_.size(), arrival_);
    skipping_ = false;
}

/// Without NAL units a unit ends where the time changes.
void VideoAssembler::mark_opaque(Time pts, Time dts) {
    if (!pts) return;
    timed_ = true;
    if (!es_.empty() && (marks_.empty() || marks_.back().pts != pts)) emit(es_.size(), arrival_);
    skipping_ = false;
    if (marks_.empty()) marks_.push_back({base_, pts, dts});
}

}  // namespace gb28181
