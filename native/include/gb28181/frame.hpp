// The neutral unit in the middle: N inputs, M outputs, no N x M. Same facts as gb28181gw/media/tracks.py.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"

namespace gb28181 {

enum class Codec : std::uint8_t { h264, h265, svac, mpeg4, aac, pcma, pcmu, g722_1, g723_1, g729, svaca };

/// The name that the API uses ("h264", "g722.1" ...).
[[nodiscard]] std::string_view codec_name(Codec codec) noexcept;

[[nodiscard]] constexpr bool is_video(Codec codec) noexcept { return codec <= Codec::mpeg4; }

enum class TrackKind : std::uint8_t { video, audio };

/// "video" or "audio".
[[nodiscard]] std::string_view track_kind_name(TrackKind kind) noexcept;

/// What a consumer must know before it can read the frames. A change makes a new `Track` (MED-36).
struct Track {
    TrackKind kind = TrackKind::video;
    Codec codec = Codec::h264;
    int width = 0;
    int height = 0;
    /// Frames a second from the parameter sets, else measured from timestamps; 0 unknown.
    double fps = 0.0;
    int sample_rate = 0;
    int channels = 0;
    /// H.264: (SPS, PPS ...); H.265: (VPS, SPS, PPS ...), each a NAL unit without start code.
    /// AAC: one AudioSpecificConfig.
    std::vector<Bytes> parameter_sets;

    bool operator==(const Track&) const = default;
};

/// Tracks never change, so they are shared; equal pointers mean an equal track.
using TrackPtr = std::shared_ptr<const Track>;

/// One access unit or audio packet on the stream's clock.
///
/// `payload`: H.264/H.265 as NAL units with 4-byte start codes, parameter sets included where the device sent them;
/// AAC without ADTS, one raw_data_block; G.711 raw samples. Times in 1/90000 s, monotonic in dts.
struct Frame {
    TrackPtr track;
    std::int64_t pts_90k = 0;
    std::int64_t dts_90k = 0;
    bool key = false;
    /// Something before this was lost and no key frame came since (MED-24).
    bool damaged = false;
    /// Monotonic seconds of the last packet of the frame.
    double arrival = 0.0;
    Buffer payload;
};

}  // namespace gb28181
