// What a payload that begins a pack begins, without demultiplexing it (GB/T 28181-2022 C.1; ISO 13818-1 2.5.3).
//
// The standard puts a system header and a map before a key frame and nowhere else; devices put them on every pack, or
// nowhere (MED-02, MED-12). So the first NAL units of the picture decide where the codec is one whose units are known,
// and header or map only where it is not, or where the packet ends before the units come.
#pragma once

#include <cstdint>
#include <optional>

#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

enum class PackStart : std::uint8_t {
    /// No pack, or one without a picture: the middle of something, sound, private data.
    none,
    /// A picture that needs others.
    picture,
    /// A key frame, or the parameter sets before one.
    key,
};

/// `video`: the codec of the pictures, where it is known.
[[nodiscard]] PackStart look_at_pack(ByteView payload, std::optional<Codec> video) noexcept;

/// Does the payload begin a pack?
[[nodiscard]] inline bool begins_pack(ByteView payload) noexcept {
    return payload.size() >= 4 && payload.u32(0) == 0x000001BA;
}

}  // namespace gb28181
