// What a container needs to be a form of a stream: frames in, bytes out, shared by all consumers of the form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gb28181/buffer.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// Writer of one container. Everything is appended to `out`; nothing where there is nothing to say.
class ContainerMuxer {
public:
    ContainerMuxer() = default;
    ContainerMuxer(const ContainerMuxer&) = default;
    ContainerMuxer& operator=(const ContainerMuxer&) = default;
    ContainerMuxer(ContainerMuxer&&) = default;
    ContainerMuxer& operator=(ContainerMuxer&&) = default;
    virtual ~ContainerMuxer() = default;

    /// What comes now cannot be said to the consumers that are there: they have to begin anew.
    [[nodiscard]] virtual bool stale() const noexcept { return false; }
    /// A new consumer of these tracks may share this muxer.
    [[nodiscard]] virtual bool fits(std::span<const TrackPtr> tracks) const;
    /// What a new consumer gets first. `at_90k`: the time of what follows it.
    virtual void header(std::span<const TrackPtr> tracks, std::optional<std::int64_t> at_90k, ByteBuilder& out) = 0;
    /// What a consumer that skipped over a place has to know.
    virtual void configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) = 0;
    /// A frame.
    virtual void mux(const Frame& frame, ByteBuilder& out) = 0;
    /// Room to reserve before `mux`: no more than some bytes too much for frames with four-byte start codes.
    [[nodiscard]] virtual std::size_t bound(const Frame& frame) const = 0;
};

inline bool ContainerMuxer::fits(std::span<const TrackPtr> /*tracks*/) const { return true; }

}  // namespace gb28181
