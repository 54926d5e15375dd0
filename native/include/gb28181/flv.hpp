// FLV (Adobe FLV 10.1; Enhanced RTMP v1 for H.265), writer.
//
// Tags carry the stream's own time, counted from the first frame or from a base: with a common base the tags of one
// stream are the same for all its viewers and may be shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "gb28181/container.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// How H.265 is carried.
enum class FlvHevc : std::uint8_t { enhanced, legacy };

/// One FLV stream.
class FlvMuxer final : public ContainerMuxer {
public:
    explicit FlvMuxer(FlvHevc hevc = FlvHevc::enhanced, std::optional<std::int64_t> base_90k = std::nullopt)
        : hevc_(hevc), base_(base_90k) {}

    /// The container has this codec.
    [[nodiscard]] static bool carries(Codec codec) noexcept;

    /// File header, onMetaData and sequence headers of the tracks; those that FLV cannot carry are left out. Tracks
    /// that come later need no new header: `mux` announces them. `pts_90k` is the time of the sequence headers.
    void header(std::span<const TrackPtr> tracks, std::optional<std::int64_t> pts_90k,
                ByteBuilder& out) override;

    /// The sequence headers alone, for a consumer that skipped over the place where they changed.
    void configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) override;

    /// The configuration tag of a track; nothing where the codec needs none or its parameter sets do not read.
    void sequence_header(const TrackPtr& track, std::uint32_t timestamp_ms, ByteBuilder& out);

    /// The tag of a frame, led by a new sequence header when its track changed; nothing if FLV has no such codec (or
    /// the tag would not fit its 24 bits of size). Appends; at most `bound(frame)` bytes.
    void mux(const Frame& frame, ByteBuilder& out) override;

    /// Room to reserve before `mux`: no more than some bytes too much for frames with four-byte start codes.
    [[nodiscard]] std::size_t bound(const Frame& frame) const override;

    /// Milliseconds of the output for a time of the stream; never negative.
    [[nodiscard]] std::uint32_t milliseconds(std::int64_t time_90k);

private:
    struct Announced {
        TrackPtr track;  // what the last sequence header was about
        Codec codec;
    };
    [[nodiscard]] static bool is_announced(const Announced& announced, const TrackPtr& track) noexcept;
    [[nodiscard]] std::int64_t relative_ms(std::int64_t time_90k);

    FlvHevc hevc_;
    std::optional<std::int64_t> base_;
    Announced video_{};
    Announced audio_{};
};

}  // namespace gb28181
