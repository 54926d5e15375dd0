// One form of a stream, made once and shared by all consumers that want it.
//
// The form is the container with its wrapping (HTTP chunks, WebSocket messages, plain), the way H.265 is carried, and
// which audio goes with it. A variant lives as long as it has sinks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gb28181/container.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/spec.hpp"

namespace gb28181 {

class SocketSink;

/// Where a frame stands in a stream.
enum class Role : std::uint8_t {
    video,
    /// The source's own audio.
    audio,
    /// AAC made from it, for consumers that need it.
    made_audio,
};

inline constexpr std::size_t role_count = 3;

/// The tracks of a stream by role; empty where there is none.
using RoleTracks = std::array<TrackPtr, role_count>;

/// Sound is being made for the consumers of this form and cannot be announced later, or not to all players.
[[nodiscard]] bool waits_for_audio(const VariantKey& key, const RoleTracks& tracks) noexcept;

/// What ends a stream in good order.
[[nodiscard]] std::string terminator_of(Wrapping wrapping);

/// Owner of one muxer and of the wrapped bytes of the kept group of pictures.
///
/// Its times count from a base, so that they start near 0 and do not reach the sign bit of FLV's 32 bits before one
/// consumer has watched for 24 days.
class Variant {
public:
    Variant(const VariantKey& key, const RoleTracks& tracks, std::int64_t base_90k);

    /// What comes now cannot be said to its consumers: they have to begin anew.
    [[nodiscard]] bool stale() const noexcept { return muxer_->stale(); }
    /// A consumer with this key may join.
    [[nodiscard]] bool fits(const VariantKey& key, const RoleTracks& tracks) const;

    /// What a new consumer gets first: file header, metadata, codec configurations.
    [[nodiscard]] Buffer head(const RoleTracks& tracks);
    /// What a consumer has to know that skipped over a place: configurations that may have changed there.
    [[nodiscard]] Buffer configuration(const RoleTracks& tracks, std::int64_t at_90k);
    /// The wrapped bytes of a frame, empty when it has no place here. `kept`: it is in the group.
    [[nodiscard]] Buffer add(Role role, const Frame& frame, bool kept);
    /// Forget the group of pictures.
    void clear() noexcept;

    [[nodiscard]] const VariantKey& key() const noexcept { return key_; }
    /// Wrapped bytes since the last key frame.
    [[nodiscard]] const std::vector<Buffer>& group() const noexcept { return group_; }

    std::vector<SocketSink*> sinks;

private:
    [[nodiscard]] bool wants(Role role, const Track& track) const noexcept;
    [[nodiscard]] std::vector<TrackPtr> select(const RoleTracks& tracks) const;
    /// A builder with room in front for the wrapping's head.
    [[nodiscard]] ByteBuilder begin(std::size_t size) const;
    [[nodiscard]] Buffer wrap(ByteBuilder builder) const;

    VariantKey key_;
    std::unique_ptr<ContainerMuxer> muxer_;
    std::vector<Buffer> group_;
    std::optional<std::int64_t> group_at_;
};

}  // namespace gb28181
