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

/// Nothing is known of the codec: parameter sets have headers that nothing else has.
Unit unknown_unit(unsigned first, unsigned second) noexcept {
    return (first & 0x9FU) == 7 || (first == 0x40 && second == 1) ? Unit::key : Unit::beside;
}

/// What the first telling unit is; nothing when none is there.
std::optional<PackStart> look_at_units(ByteView units, std::optional<Codec> codec) noexcept {
    std::size_t at = 0;
    for (int count = 0; count < max_units; ++count) {
        at = find_start_code(units, at);
        if (at == npos || at + 4 >= units.size()) return std::nullopt;
        at += 3;
        if (units[at] == pack_code) return PackStart::picture;  // the next one: nothing told of a key frame in this
        const Unit unit = !codec                    ? unknown_unit(units[at], units[at + 1])
                          : *codec == Codec::h264 ? h264_unit(units[at])
                                                  : h265_unit(units[at]);
        if (unit != Unit::beside) return unit == Unit::key ? PackStart::key : PackStart::picture;
    }
    return std::nullopt;
}

}  // namespace

PackStart look_at_pack(ByteView data, std::optional<Codec> video, bool last) noexcept {
    if (!begins_pack(data)) return PackStart::none;
    const bool is_mpeg1 = data[4] >> 4U == 0b0010;
    const bool has_units = !is_mpeg1 && (!video || video == Codec::h264 || video == Codec::h265);
    std::size_t at = is_mpeg1 ? 12 : std::size_t{14} + (data[13] & 7U);
    bool has_map = false;
    for (int count = 0; count < max_headers; ++count) {
        if (at + 9 > data.size()) break;
        const std::uint32_t code = data.u32(at);
        if (code >> 8U != 1 || (code & 0xFFU) < pack_code) return has_map ? PackStart::key : PackStart::none;
        const unsigned id = code & 0xFFU;
        if (id == pack_code) return has_map ? PackStart::key : PackStart::none;  // the next one
        if (id >= first_video_code && id <= last_video_code) {
            if (!has_units) return has_map ? PackStart::key : PackStart::picture;
            const auto found = look_at_units(data.from(at + 9 + data[at + 8]), video);
            if (found) return *found;
            break;
        }
        has_map = has_map || id == system_header_code || id == map_code;
        at += std::size_t{6} + data.u16(at + 4);
    }
    if (!last) return PackStart::more;
    return has_map ? PackStart::key : PackStart::none;
}

ByteView first_parameter_set(ByteView data, std::optional<Codec> video) noexcept {
    std::size_t at = 0;
    for (int count = 0; count < max_headers + max_units; ++count) {
        at = find_start_code(data, at);
        if (at == npos || at + 4 >= data.size()) return {};
        at += 3;
        const unsigned header = data[at];
        const bool is_set = video == Codec::h265 ? header == 32U << 1U || header == 33U << 1U
                                                 : (header & 0x9FU) == 7;
        if (!is_set) continue;
        const std::size_t end = find_start_code(data, at);
        return end == npos ? ByteView() : data.slice(at, end);
    }
    return {};
}

}  // namespace gb28181
