// What a payload that begins a pack begins, without demultiplexing it (GB/T 28181-2022 C.1; ISO 13818-1 2.5.3).
//
// The standard puts a system header and a map before a key frame and nowhere else; devices put them on every pack, or
// nowhere (MED-02, MED-12). So the first NAL units of the picture decide where the codec is one whose units are known, or
// nothing is known and they are parameter sets; header and map decide only for other codecs.
#pragma once

#include <cstdint>
#include <optional>

#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

enum class PackStart : std::uint8_t {
    /// No pack, or one without a picture: the middle of something, sound, private data.
    none,
    /// It ends before that can be told.
    more,
    /// A picture that needs others.
    picture,
    /// A key frame, or the parameter sets before one.
    key,
};

/// What `data`, which begins with a pack header, begins. `video`: the codec of the pictures, where it is known. `last`:
/// nothing follows that could be waited for.
[[nodiscard]] PackStart look_at_pack(ByteView data, std::optional<Codec> video, bool last) noexcept;

/// The first parameter set of the pack that is there as a whole, without start code; empty when none is. Another one in a
/// later key frame may mean other tracks (MED-36).
[[nodiscard]] ByteView first_parameter_set(ByteView data, std::optional<Codec> video) noexcept;

/// Does the payload begin a pack?
[[nodiscard]] inline bool begins_pack(ByteView payload) noexcept {
    return payload.size() >= 4 && payload.u32(0) == 0x000001BA;
}

}  // namespace gb28181
