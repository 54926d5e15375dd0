#include "gb28181/frame.hpp"

#include <array>

namespace gb28181 {

std::string_view codec_name(Codec codec) noexcept {
    constexpr std::array<std::string_view, 11> names = {"h264", "h265",   "svac",   "mpeg4", "aac",  "pcma",
                                                        "pcmu", "g722.1", "g723.1", "g729",  "svaca"};
    const auto index = static_cast<std::size_t>(codec);
    return index < names.size() ? names[index] : std::string_view{};
}

std::string_view track_kind_name(TrackKind kind) noexcept { return kind == TrackKind::video ? "video" : "audio"; }

}  // namespace gb28181
