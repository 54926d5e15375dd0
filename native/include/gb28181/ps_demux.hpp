// Program stream demuxer (ISO 13818-1 2.5; GB/T 28181-2022 C.1), by structure.
//
// Theory of operation. The stream is walked header by header: pack, system header, map, PES. Inside a packet of known
// length nothing is searched (MED-08, MED-09); only where a header should stand and does not, after a loss, or in a PES
// of length 0 (MED-05), is a *plausible* start looked for. PES payloads go to one assembler per stream (`video`,
// `audio`), which find access units; this file knows nothing of NAL units.
//
// Input may be cut anywhere: a header that is not complete waits in `tail_` (bounded), payload never waits. Nothing
// that a device sends is an error; it is counted and named.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gb28181/audio.hpp"
#include "gb28181/demuxer.hpp"
#include "gb28181/video.hpp"

namespace gb28181 {

/// Program stream in, access units out.
class PsDemuxer final : public Demuxer {
public:
    /// `max_unit`: bytes of one access unit.
    explicit PsDemuxer(std::size_t max_unit = VideoAssembler::default_max_unit,
                       ByteView aac_config = aac::default_config());
    ~PsDemuxer() override;

    void feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
              std::vector<EsUnit>& out) override;
    void gap() override;
    [[nodiscard]] std::optional<double> deadline() const override;
    void flush_after(double now, std::vector<EsUnit>& out) override;
    void flush(std::vector<EsUnit>& out) override;
    [[nodiscard]] std::vector<TrackPtr> tracks() const override;
    [[nodiscard]] std::uint64_t tracks_version() const override;
    [[nodiscard]] bool is_program() const noexcept override { return true; }

    void preset(Codec codec, const std::vector<Bytes>& parameter_sets) override;

    /// The last program stream map: stream id -> stream_type.
    [[nodiscard]] const std::vector<std::pair<int, int>>& stream_types() const noexcept { return stream_types_; }

private:
    /// Where the walk goes on; `npos`: more bytes are needed.
    using Place = std::size_t;
    enum class Start : std::uint8_t { no, yes, more };

    void walk(ByteView data);
    void append(ByteView data);
    void close();
    [[nodiscard]] Place wait(ByteView data, std::size_t position);
    void skip(std::size_t length);
    [[nodiscard]] Place header(ByteView data, std::size_t position);
    [[nodiscard]] Place misplaced(ByteView data, std::size_t position);
    [[nodiscard]] Place pack(ByteView data, std::size_t position);
    [[nodiscard]] Place pes(ByteView data, std::size_t position, int code, std::size_t length);
    void open(int code, std::optional<std::int64_t> pts, std::optional<std::int64_t> dts);
    [[nodiscard]] VideoAssembler* video_of(int code);
    [[nodiscard]] AudioAssembler* audio_of(int code);
    void map(ByteView body);
    [[nodiscard]] Place lose(std::size_t position);
    void drop_open();
    [[nodiscard]] Place hunt(ByteView data, std::size_t position);
    void pass_over(std::size_t count);
    [[nodiscard]] Place until_start(ByteView data, std::size_t position);
    [[nodiscard]] Start is_start(ByteView data, std::size_t position) const;
    void choose() noexcept;
    void collect(std::vector<EsUnit>& out);
    [[nodiscard]] std::optional<int> declared(int stream_id) const;
    void quirk(Quirk name) noexcept { health_.quirks.add(name); }

    std::size_t max_unit_;
    Bytes aac_config_;
    std::optional<std::pair<Codec, std::vector<Bytes>>> preset_;
    std::vector<std::pair<int, int>> stream_types_;
    std::vector<std::unique_ptr<VideoAssembler>> videos_;  // in order of appearance
    std::vector<std::unique_ptr<AudioAssembler>> audios_;
    VideoAssembler* video_ = nullptr;  // the one that is given out
    AudioAssembler* audio_ = nullptr;
    // Where the walk stands
    Bytes tail_;
    std::size_t remaining_ = 0;  // bytes of the open packet
    bool unbounded_ = false;     // the open PES has length 0
    bool hunting_ = false;
    bool after_pack_ = false;
    bool mpeg1_ = false;
    std::int64_t soft_ = 0;  // bytes that the search may still pass without loss
    VideoAssembler* video_sink_ = nullptr;  // of the open packet; at most one of the two
    AudioAssembler* audio_sink_ = nullptr;
    std::optional<std::uint32_t> rtp_timestamp_;
    double now_ = 0.0;
};

}  // namespace gb28181
