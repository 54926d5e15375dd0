// Program stream muxer (ISO 13818-1 2.5; GB/T 28181-2022 C.1): one pack per frame.
//
// A key frame's pack, and every one of a stream without pictures, is: pack header, system header, program stream map, PES;
// the others have no system header and no map. A frame over 65,000 bytes goes into several PES, the first with the times. Same bytes as
// gb28181gw/media/wire/ps_mux.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// Frames of at most one video and one audio track in, packs out.
class PsMuxer {
public:
    /// The tracks of the map; nothing leaves one out.
    PsMuxer(std::optional<Codec> video, std::optional<Codec> audio);

    /// One frame as one pack. AAC gets its ADTS header; a frame that has none in ADTS gives nothing. `head`: goes before
    /// the payload. `with_map`: system header and map though it is no key frame.
    [[nodiscard]] Buffer mux(const Frame& frame, ByteView head = {}, bool with_map = false) const;

    [[nodiscard]] std::optional<Codec> video() const noexcept { return video_; }
    [[nodiscard]] std::optional<Codec> audio() const noexcept { return audio_; }

private:
    std::optional<Codec> video_;
    std::optional<Codec> audio_;
    Bytes heads_;  // system header and map
};

/// CRC of ISO 13818-1 Annex A.
[[nodiscard]] std::uint32_t crc32_mpeg(ByteView data) noexcept;

}  // namespace gb28181
