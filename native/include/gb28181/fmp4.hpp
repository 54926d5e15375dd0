// Fragmented MP4 (ISO 14496-12, 14496-15 for H.264 and H.265, 14496-1 and -3 for AAC), writer: an initialisation segment,
// then a fragment for each frame, so that nothing waits for the next one.
//
// Times are in 1/90000 s in all tracks. The tracks are announced in the initialisation segment and cannot be added to
// later: a frame of another one has no place here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gb28181/container.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// One stream. Its times count from a base, else from the first frame.
///
/// A sample's duration is not known when its fragment is written. What is written is the longest recent distance of two
/// frames: players of the Media Source Extensions leave out all up to the next key frame when one is later than twice
/// the duration of the one before (step 11 of "coded frame processing"), and a frame that begins before the end of
/// another costs nothing.
class Fmp4Muxer final : public ContainerMuxer {
public:
    explicit Fmp4Muxer(std::span<const TrackPtr> tracks, std::optional<std::int64_t> base_90k = std::nullopt);

    /// The container has this codec, as far as this gateway goes: G.711 has to become AAC first.
    [[nodiscard]] static bool carries(Codec codec) noexcept;
    /// The codec is carried and the track's configuration can be written.
    [[nodiscard]] static bool can_announce(const Track& track);

    [[nodiscard]] bool stale() const noexcept override { return stale_; }
    [[nodiscard]] bool fits(std::span<const TrackPtr> tracks) const override;
    /// The initialisation segment; nothing where no track could be announced. The arguments do not matter.
    void header(std::span<const TrackPtr> tracks, std::optional<std::int64_t> at_90k, ByteBuilder& out) override;
    /// The initialisation segment, if it was renewed since the first one. The arguments do not matter.
    void configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) override;
    /// The fragment of a frame, led by a new initialisation segment when its track changed.
    void mux(const Frame& frame, ByteBuilder& out) override;
    [[nodiscard]] std::size_t bound(const Frame& frame) const override;

private:
    struct Announced {
        TrackPtr track;
        std::int64_t last_dts_90k = -1;
        std::int64_t interval_90k = 0;
    };
    void init_segment(ByteBuilder& out) const;

    std::optional<std::int64_t> base_;
    std::uint32_t sequence_ = 0;
    std::array<Announced, 2> announced_;  // by TrackKind
    bool renewed_ = false;
    bool stale_ = false;
};

}  // namespace gb28181
