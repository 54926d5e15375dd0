#include "gb28181/pack_start.hpp"

#include <cstddef>

namespace gb28181 {
namespace {

constexpr unsigned pack_code = 0xBA;
constexpr unsigned system_header_code = 0xBB;
constexpr unsigned map_code = 0xBC;
constexpr unsigned first_video_code = 0xE0;
constexpr unsigned last_video_code = 0xEF;
constexpr int max_headers = 16;  // of one packet; more are no pack that anybody sends
constexpr int max_units = 16;

enum class Unit : std::uint8_t { picture, key, beside };

Unit h264_unit(unsigned header) noexcept {
    switch (header & 0x1FU) {
        case 5:  // a slice of an IDR picture
        case 7:  // SPS
            return Unit::key;
        case 1:
        case 2:
            return Unit::picture;
        default:  // delimiter, SEI, PPS, private units
            return Unit::beside;
    }
}

Unit h265_unit(unsigned header) noexcept {
    const unsigned type = header >> 1U & 0x3FU;
    if (type <= 9) return Unit::picture;
    // Slices of pictures that can be begun at (16-23), VPS, SPS.
    return (type >= 16 && type <= 23) || type == 32 || type == 33 ? Unit::key : Unit::beside;
}

/// What the first telling unit is; nothing when none is in the packet.
std::optional<PackStart> look_at_units(ByteView units, Codec codec) noexcept {
    std::size_t at = 0;
    for (int count = 0; count < max_units; ++count) {
        at = find_start_code(units, at);
        if (at == npos || at + 3 >= units.size()) return std::nullopt;
        at += 3;
        const Unit unit = codec == Codec::h264 ? h264_unit(units[at]) : h265_unit(units[at]);
        if (unit != Unit::beside) return unit == Unit::key ? PackStart::key : PackStart::picture;
    }
    return std::nullopt;
}

}  // namespace

PackStart look_at_pack(ByteView payload, std::optional<Codec> video) noexcept {
    if (!begins_pack(payload)) return PackStart::none;
    const bool is_mpeg1 = payload[4] >> 4U == 0b0010;
    std::size_t at = is_mpeg1 ? 12 : std::size_t{14} + (payload[13] & 7U);
    bool has_map = false;
    for (int count = 0; count < max_headers; ++count) {
        if (at + 6 > payload.size()) break;
        const std::uint32_t code = payload.u32(at);
        if (code >> 8U != 1) break;
        const unsigned id = code & 0xFFU;
        if (id >= first_video_code && id <= last_video_code) {
            const bool is_known = video == Codec::h264 || video == Codec::h265;
            if (is_known && !is_mpeg1) {
                const auto found = look_at_units(payload.from(at + 9 + payload[at + 8]), *video);
                if (found) return *found;
            }
            return has_map ? PackStart::key : PackStart::picture;
        }
        if (id < pack_code) break;  // not a header of the system layer
        has_map = has_map || id == system_header_code || id == map_code;
        at += std::size_t{6} + payload.u16(at + 4);
    }
    return has_map ? PackStart::key : PackStart::none;
}

}  // namespace gb28181
