#include "gb28181/ps_demux.hpp"

#include <algorithm>
#include <array>

namespace gb28181 {
namespace {

constexpr int pack_code = 0xBA;
constexpr int system_header = 0xBB;
constexpr int stream_map = 0xBC;
constexpr int private_1 = 0xBD;
constexpr int padding = 0xBE;
constexpr int private_2 = 0xBF;
constexpr int end_code = 0xB9;

constexpr std::size_t max_map = 4096;
constexpr std::size_t max_streams = 4;
constexpr std::size_t max_map_entries = 16;
/// Bytes between pack header and next start that may be passed over without calling it a loss (MED-11).
constexpr std::int64_t soft_search = 64;
constexpr std::size_t header_search = 32;
constexpr std::size_t endless = std::size_t{1} << 40;

bool is_prefix(ByteView data, std::size_t position) noexcept {
    return position + 3 <= data.size() && data[position] == 0 && data[position + 1] == 0 && data[position + 2] == 1;
}

/// 33 bits of PTS or DTS; the marker bits are not looked at.
std::int64_t timestamp(ByteView data, std::size_t position) noexcept {
    return static_cast<std::int64_t>(data[position] >> 1 & 7) << 30 |
           static_cast<std::int64_t>(data[position + 1]) << 22 |
           static_cast<std::int64_t>(data[position + 2] >> 1) << 15 |
           static_cast<std::int64_t>(data[position + 3]) << 7 | static_cast<std::int64_t>(data[position + 4] >> 1);
}

struct Mpeg1Header {
    std::size_t payload;
    std::optional<std::int64_t> pts;
    std::optional<std::int64_t> dts;
};

/// An ISO 11172-1 packet header; `position` is behind its length.
Mpeg1Header mpeg1_header(ByteView data, std::size_t position, std::size_t limit) noexcept {
    while (position < limit && data[position] == 0xFF) ++position;
    if (position + 2 <= limit && data[position] >> 6 == 1) position += 2;
    if (position >= limit) return {limit, {}, {}};
    const int kind = data[position] >> 4;
    if (kind == 2 && position + 5 <= limit) return {position + 5, timestamp(data, position), {}};
    if (kind == 3 && position + 10 <= limit) {
        return {position + 10, timestamp(data, position), timestamp(data, position + 5)};
    }
    return {std::min(position + 1, limit), {}, {}};
}

/// Where the payload of a PES with a senseless header length begins: at a start code if there is one.
std::size_t payload_start(ByteView data, std::size_t first, std::size_t look, std::size_t limit,
                          std::size_t wanted) noexcept {
    const std::size_t found = find_start_code(data.slice(0, look), first);
    if (found != npos) return found > first && data[found - 1] == 0 ? found - 1 : found;
    return std::min({first + wanted, limit, look});
}

template <class Assemblers>
auto find_assembler(const Assemblers& assemblers, int code) -> decltype(assemblers.front().get()) {
    for (const auto& assembler : assemblers) {
        if (assembler->stream_id() == code) return assembler.get();
    }
    return nullptr;
}

template <class Assembler>
bool is_settled(const Assembler* assembler) noexcept {
    return assembler != nullptr && assembler->track() != nullptr;
}

/// The first stream of a kind with a unit is the one that is `given` out. Decided where the stream has its joints and not
/// only where a `feed` ends, so that it does not depend on how the bytes came.
template <class Assemblers, class Assembler>
void choose_from(const Assemblers& assemblers, Assembler*& given) noexcept {
    for (const auto& assembler : assemblers) {
        if (assembler->has_output() && given != assembler.get() && !is_settled(given)) given = assembler.get();
    }
}

/// Give out what the chosen assembler finished.
template <class Assemblers, class Assembler>
void collect_from(const Assemblers& assemblers, const Assembler* given, std::vector<EsUnit>& out) {
    for (const auto& assembler : assemblers) {
        if (!assembler->has_output()) continue;
        if (given == assembler.get()) {
            assembler->take(out);
        } else {
            assembler->drop_output();
        }
    }
}

}  // namespace

PsDemuxer::PsDemuxer(std::size_t max_unit, ByteView aac_config)
    : max_unit_(max_unit), aac_config_(aac_config.copy()) {}

PsDemuxer::~PsDemuxer() = default;

// -------------------------------------------------------------- interface

std::vector<TrackPtr> PsDemuxer::tracks() const {
    std::vector<TrackPtr> found;
    if (is_settled(video_)) found.push_back(video_->track());
    if (is_settled(audio_)) found.push_back(audio_->track());
    return found;
}

std::uint64_t PsDemuxer::tracks_version() const {
    return (video_ != nullptr ? video_->version() : 0) + (audio_ != nullptr ? audio_->version() : 0);
}

void PsDemuxer::preset(Codec codec, const std::vector<Bytes>& parameter_sets) {
    preset_.emplace(codec, parameter_sets);
    for (const auto& video : videos_) video->preset(preset_->first, preset_->second);
}

void PsDemuxer::feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
                     std::vector<EsUnit>& out) {
    now_ = now;
    rtp_timestamp_ = rtp_timestamp;
    if (remaining_ > payload.size()) {  // within one packet: most calls
        remaining_ -= payload.size();
        append(payload);
    } else if (!payload.empty()) {
        if (tail_.empty()) {
            walk(payload);
        } else {
            ByteBuilder both(tail_.size() + payload.size());
            both.append(tail_);
            both.append(payload);
            walk(both.view());
        }
    }
    if (marker && video_ != nullptr) {
        video_->marker(now, remaining_ == 0 && tail_.empty() && !hunting_);
    }
    collect(out);
}

void PsDemuxer::gap() {
    ++health_.counters.gaps;
    drop_open();
    hunting_ = true;
    soft_ = 0;
}

std::optional<double> PsDemuxer::deadline() const {
    if (video_ == nullptr || remaining_ != 0 || hunting_) return std::nullopt;
    return video_->deadline();
}

void PsDemuxer::flush_after(double now, std::vector<EsUnit>& out) {
    const std::optional<double> at = deadline();
    if (!at || now < *at) return;
    video_->flush();
    collect(out);
}

void PsDemuxer::flush(std::vector<EsUnit>& out) {
    if (unbounded_ && !tail_.empty() && (video_sink_ != nullptr || audio_sink_ != nullptr) && !is_prefix(tail_, 0)) {
        append(tail_);
        tail_.clear();
    }
    if (remaining_ == 0 && !hunting_) {
        for (const auto& audio : audios_) audio->finish();
        if (video_ != nullptr) video_->flush();
    }
    collect(out);
}

// --------------------------------------------------------------- the walk

void PsDemuxer::walk(ByteView data) {
    tail_.clear();
    std::size_t position = 0;
    while (position < data.size()) {
        if (remaining_ != 0) {
            const std::size_t taken = std::min(remaining_, data.size() - position);
            append(data.slice(position, position + taken));
            position += taken;
            remaining_ -= taken;
            if (remaining_ == 0) close();
            continue;
        }
        if (unbounded_) {
            position = until_start(data, position);
        } else if (hunting_) {
            position = hunt(data, position);
        } else {
            position = header(data, position);
        }
        if (position == npos) return;
    }
}

void PsDemuxer::append(ByteView data) {
    if (video_sink_ != nullptr) {
        video_sink_->append(data, now_, rtp_timestamp_);
    } else if (audio_sink_ != nullptr) {
        audio_sink_->append(data, now_);
    }
}

/// The open packet is complete.
void PsDemuxer::close() {
    AudioAssembler* const audio = std::exchange(audio_sink_, nullptr);
    video_sink_ = nullptr;
    if (audio != nullptr) audio->finish();
}

PsDemuxer::Place PsDemuxer::wait(ByteView data, std::size_t position) {
    const ByteView rest = data.from(position);
    tail_.assign(rest.begin(), rest.end());
    return npos;
}

void PsDemuxer::skip(std::size_t length) {
    video_sink_ = nullptr;
    audio_sink_ = nullptr;
    remaining_ = length;
}

/// Read the header at `position`; answers where to go on.
PsDemuxer::Place PsDemuxer::header(ByteView data, std::size_t position) {
    constexpr std::array<std::uint8_t, 3> prefix = {0, 0, 1};
    const std::size_t size = data.size();
    for (std::size_t index = 0; index < prefix.size() && position + index < size; ++index) {
        if (data[position + index] != prefix[index]) return misplaced(data, position);
    }
    if (position + 4 > size) return wait(data, position);
    const int code = data[position + 3];
    if (code == pack_code) return pack(data, position);
    after_pack_ = false;
    if (code == end_code) return position + 4;
    if (code < end_code) return lose(position);
    if (position + 6 > size) return wait(data, position);
    const std::size_t length = data.u16(position + 4);
    if (code >= 0xC0 && code <= 0xEF) return pes(data, position, code, length);
    if (code == stream_map && length <= max_map) {
        if (position + 6 + length > size) return wait(data, position);
        map(data.slice(position + 6, position + 6 + length));
        return position + 6 + length;
    }
    // System header, private data (MED-08), padding and all else: nothing of use, by length.
    if (code == stream_map) ++health_.counters.oversized;
    skip(length);
    return position + 6;
}

/// No start code where one should be: zeros are stuffing, the rest is a loss.
PsDemuxer::Place PsDemuxer::misplaced(ByteView data, std::size_t position) {
    const std::size_t size = data.size();
    std::size_t end = position;
    while (end < size && data[end] == 0) ++end;
    const std::size_t zeros = end - position;
    if (zeros >= 2 && (end == size || data[end] == 1)) {
        health_.counters.skipped_bytes += zeros - 2;
        if (end == size) return wait(data, size - 2);
        return end - 2;
    }
    if (end == size) return wait(data, position);
    if (after_pack_) {
        quirk(Quirk::ps_pack_stuffing);
        hunting_ = true;
        soft_ = soft_search;
        return position;
    }
    return lose(position);
}

PsDemuxer::Place PsDemuxer::pack(ByteView data, std::size_t position) {
    const std::size_t size = data.size();
    if (position + 7 > size) return wait(data, position);
    const int first = data[position + 4];
    after_pack_ = true;
    choose();
    for (const auto& video : videos_) video->pack();
    choose();
    if (is_prefix(data, position + 4)) {
        quirk(Quirk::ps_short_pack_header);  // MED-10
        return position + 4;
    }
    std::size_t end = 0;
    if (first >> 6 == 1) {
        if (position + 14 > size) return wait(data, position);
        end = position + 14 + (data[position + 13] & 7);
    } else if (first >> 4 == 2) {
        mpeg1_ = true;
        end = position + 12;
    } else {
        ++health_.counters.malformed;
        return lose(position + 4);
    }
    // The stuffing is passed over by its length, whatever it holds (MED-11).
    if (end > size) return wait(data, position);
    return end;
}

PsDemuxer::Place PsDemuxer::pes(ByteView data, std::size_t position, int code, std::size_t length) {
    const std::size_t size = data.size();
    const std::size_t limit = length != 0 ? position + 6 + length : position + endless;
    if (position + 9 > size && !(length < 3 && limit <= size)) return wait(data, position);
    if (length != 0 && length < 3) {
        ++health_.counters.malformed;
        skip(length);
        return position + 6;
    }
    std::optional<std::int64_t> pts;
    std::optional<std::int64_t> dts;
    std::size_t start = 0;
    if (data[position + 6] >> 6 == 2) {
        constexpr std::array<std::size_t, 4> sizes = {0, 0, 5, 10};
        const std::size_t wanted = sizes[data[position + 7] >> 6];
        const std::size_t header = data[position + 8];
        start = position + 9 + header;
        if (header < wanted || start > limit) {
            // MED-07: the header's length contradicts its flags or its packet.
            const std::size_t look = std::min(position + 9 + wanted + header_search, limit);
            if (look > size) return wait(data, position);
            quirk(Quirk::ps_pes_header_length);
            start = payload_start(data, position + 9, look, limit, wanted);
        } else if (start > size) {
            return wait(data, position);
        }
        if (wanted != 0 && start >= position + 9 + 5) {
            pts = timestamp(data, position + 9);
            if (wanted == 10 && start >= position + 9 + 10) dts = timestamp(data, position + 14);
        }
    } else if (mpeg1_) {
        if (position + 6 + 16 + 12 > size && limit > size) return wait(data, position);
        const Mpeg1Header read = mpeg1_header(data, position + 6, std::min(limit, size));
        start = read.payload;
        pts = read.pts;
        dts = read.dts;
    } else {
        ++health_.counters.malformed;
        quirk(Quirk::ps_pes_marker_bits);
        start = std::min(position + 9, limit);
    }
    open(code, pts, dts);
    if (length != 0) {
        remaining_ = limit - start;
        if (remaining_ == 0) close();
    } else {
        unbounded_ = true;
        quirk(Quirk::ps_pes_length_zero);
    }
    return start;
}

/// Find the assembler of a stream id and tell it that a PES begins.
void PsDemuxer::open(int code, std::optional<std::int64_t> pts, std::optional<std::int64_t> dts) {
    video_sink_ = nullptr;
    audio_sink_ = nullptr;
    choose();
    if (code >= 0xE0) {
        VideoAssembler* const video = video_of(code);
        if (video == nullptr || (video_ != video && is_settled(video_))) {
            quirk(Quirk::ps_second_video_stream);
            return;
        }
        if (is_settled(video) || video_ == nullptr) video_ = video;
        video->mark(pts, dts);
        video_sink_ = video;
        return;
    }
    AudioAssembler* const audio = audio_of(code);
    if (audio == nullptr || (audio_ != audio && is_settled(audio_))) {
        quirk(Quirk::ps_second_audio_stream);
        return;
    }
    if (is_settled(audio) || audio_ == nullptr) audio_ = audio;
    audio->start(pts, rtp_timestamp_);
    audio_sink_ = audio;
}

VideoAssembler* PsDemuxer::video_of(int code) {
    if (VideoAssembler* const known = find_assembler(videos_, code)) return known;
    if (videos_.size() >= max_streams) return nullptr;
    VideoAssembler& video = *videos_.emplace_back(std::make_unique<VideoAssembler>(code, health_, max_unit_));
    const std::optional<int> type = declared(code);
    const std::optional<Codec> codec = type ? codec_of_stream_type(*type) : std::nullopt;
    if (codec && is_video(*codec)) {
        video.declare(*codec);
    } else if (stream_types_.empty()) {
        quirk(Quirk::ps_no_stream_map);
    }
    if (preset_) video.preset(preset_->first, preset_->second);
    return &video;
}

AudioAssembler* PsDemuxer::audio_of(int code) {
    if (AudioAssembler* const known = find_assembler(audios_, code)) return known;
    if (audios_.size() >= max_streams) return nullptr;
    AudioAssembler& audio = *audios_.emplace_back(std::make_unique<AudioAssembler>(code, health_, aac_config_));
    if (const std::optional<int> type = declared(code)) audio.declare(*type);
    return &audio;
}

std::optional<int> PsDemuxer::declared(int stream_id) const {
    for (const auto& [id, type] : stream_types_) {
        if (id == stream_id) return type;
    }
    return std::nullopt;
}

// -------------------------------------------------------------------- map

/// Program stream map (2.5.4), bounded by its own length alone; the checksum is not looked at (MED-04).
void PsDemuxer::map(ByteView body) {
    const std::size_t size = body.size();
    if (size < 6) {
        ++health_.counters.malformed;
        return;
    }
    std::size_t position = std::size_t{4} + body.u16(2);
    if (position + 2 > size) {
        quirk(Quirk::ps_psm_lengths);
        position = 4;
    }
    const std::size_t said = body.u16(position);
    position += 2;
    std::size_t end = position + said;
    if (said == 0 || end + 4 > size) {
        if (said == 0 || end > size) end = size - 4;
        quirk(Quirk::ps_psm_lengths);
    }
    std::vector<std::pair<int, int>> types;
    while (position + 4 <= end && types.size() < max_map_entries) {
        const int type = body[position];
        const int id = body[position + 1];
        if (id >= 0xBC && id <= 0xEF) {
            const auto known = std::find_if(types.begin(), types.end(), [&](const auto& entry) { return entry.first == id; });
            if (known != types.end()) {
                known->second = type;
            } else {
                types.emplace_back(id, type);
            }
        }
        position += std::size_t{4} + body.u16(position + 2);
    }
    if (position > end) quirk(Quirk::ps_psm_lengths);
    if (types.empty() || (types.size() == stream_types_.size() &&
                          std::is_permutation(types.begin(), types.end(), stream_types_.begin()))) {
        return;
    }
    stream_types_ = std::move(types);
    for (const auto& [id, type] : stream_types_) {
        if (VideoAssembler* const video = find_assembler(videos_, id)) {
            const std::optional<Codec> codec = codec_of_stream_type(type);
            if (codec && is_video(*codec)) video->declare(*codec);
        }
        if (AudioAssembler* const audio = find_assembler(audios_, id)) audio->declare(type);
    }
}

// ----------------------------------------------------------------- search

/// The structure is lost at `position`.
PsDemuxer::Place PsDemuxer::lose(std::size_t position) {
    ++health_.counters.resyncs;
    quirk(Quirk::ps_structure_lost);
    drop_open();
    hunting_ = true;
    soft_ = 0;
    return position;
}

void PsDemuxer::drop_open() {
    for (const auto& video : videos_) video->gap();
    for (const auto& audio : audios_) audio->gap();
    tail_.clear();
    remaining_ = 0;
    unbounded_ = false;
    video_sink_ = nullptr;
    audio_sink_ = nullptr;
    after_pack_ = false;
}

/// Search a plausible start from `position` on.
PsDemuxer::Place PsDemuxer::hunt(ByteView data, std::size_t position) {
    std::size_t start = position;
    while (true) {
        const std::size_t found = find_start_code(data, start);
        if (found == npos) {
            const std::size_t keep = std::max(position, data.size() < 2 ? 0 : data.size() - 2);
            pass_over(keep - position);
            return wait(data, keep);
        }
        switch (is_start(data, found)) {
            case Start::more:
                pass_over(found - position);
                return wait(data, found);
            case Start::yes:
                pass_over(found - position);
                hunting_ = false;
                return found;
            case Start::no:
                start = found + 3;
                break;
        }
    }
}

void PsDemuxer::pass_over(std::size_t count) {
    health_.counters.skipped_bytes += count;
    if (soft_ == 0) return;
    soft_ -= static_cast<std::int64_t>(count);
    if (soft_ <= 0) static_cast<void>(lose(0));
}

/// Payload of a PES of length 0: up to the next plausible start (MED-05).
PsDemuxer::Place PsDemuxer::until_start(ByteView data, std::size_t position) {
    const std::size_t size = data.size();
    std::size_t start = position;
    while (true) {
        const std::size_t found = find_start_code(data, start);
        std::size_t end = found;
        Start verdict = Start::more;
        if (found == npos) {
            const bool zero = data[size - 1] == 0;
            end = zero && size >= 2 && data[size - 2] == 0 ? size - 2 : zero ? size - 1 : size;
            end = std::max(end, position);
        } else {
            verdict = is_start(data, found);
            if (verdict == Start::no) {
                start = found + 3;
                continue;
            }
        }
        if (end > position) append(data.slice(position, end));
        if (verdict == Start::more) return wait(data, end);
        unbounded_ = false;
        close();
        return found;
    }
}

/// May a unit of the program stream start at the prefix at `position`?
PsDemuxer::Start PsDemuxer::is_start(ByteView data, std::size_t position) const {
    const std::size_t size = data.size();
    const auto answer = [](bool yes) { return yes ? Start::yes : Start::no; };
    if (position + 4 > size) return Start::more;
    const int code = data[position + 3];
    if (code < end_code || code > 0xEF) return Start::no;  // NAL units have codes below 0x80
    const bool unchecked = code == end_code || code == padding || code == private_2;
    if ((unchecked || code == private_1) && unbounded_) return Start::yes;
    if (unchecked) return Start::no;  // nothing behind them can be checked
    if (position + 9 > size) return Start::more;
    if (code == pack_code) {
        const int first = data[position + 4];
        return answer(first >> 6 == 1 || first >> 4 == 2 || is_prefix(data, position + 4));
    }
    const std::size_t length = data.u16(position + 4);
    if (code == system_header) return answer(length >= 6 && length <= 512);
    if (code == stream_map) return answer(length >= 6 && length <= max_map);
    if (length == 1 || length == 2) return Start::no;
    return answer(data[position + 6] >> 6 == 2 || mpeg1_);
}

// ----------------------------------------------------------------- output

void PsDemuxer::choose() noexcept {
    choose_from(videos_, video_);
    choose_from(audios_, audio_);
}

void PsDemuxer::collect(std::vector<EsUnit>& out) {
    choose();
    collect_from(videos_, video_, out);
    collect_from(audios_, audio_, out);
}

}  // namespace gb28181
