// The picture material of the generators: one group of pictures as RTP payloads, made once and shared by all streams.
//
// H.264 of 25 pictures/s with a key picture each 2 s and G.711 A-law, 4 Mbit/s and 1 MB a group, as program stream with
// one pack for each picture and one for each packet of sound. Slices have right headers and filler behind them. What
// differs between streams and rounds (times of the pack and the PES, the stamp) stands in the first packet of a pack.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "load.hpp"
#include "support.hpp"

namespace load {

inline constexpr unsigned pictures_per_s = 25;
inline constexpr unsigned group_size = 50;
inline constexpr std::uint32_t ticks = 90'000 / pictures_per_s;

/// One pack, cut into payloads.
struct Pack {
    gb28181::Bytes bytes;
    std::size_t pts_at = 0;    // of the PES's five bytes
    std::size_t stamp_at = 0;  // 0: none
    bool key = false;

    [[nodiscard]] std::size_t packets() const { return (bytes.size() + payload_size - 1) / payload_size; }
    [[nodiscard]] std::size_t size_of(std::size_t packet) const {
        return std::min(payload_size, bytes.size() - packet * payload_size);
    }
};

inline void write_pts(std::uint8_t* to, std::uint64_t pts) {
    to[0] = static_cast<std::uint8_t>(0x21 | (pts >> 30 & 7) << 1);
    to[1] = static_cast<std::uint8_t>(pts >> 22);
    to[2] = static_cast<std::uint8_t>((pts >> 15 & 0x7F) << 1 | 1);
    to[3] = static_cast<std::uint8_t>(pts >> 7);
    to[4] = static_cast<std::uint8_t>((pts & 0x7F) << 1 | 1);
}

/// One group of pictures; the sound's pack is the same for all.
class Camera {
public:
    explicit Camera(double mbit = 4.0, unsigned key_factor = 8) {
        const double mean = mbit * 1e6 / 8 / pictures_per_s;
        const auto small = static_cast<std::size_t>(mean * group_size / (group_size - 1 + key_factor));
        for (unsigned number = 0; number < group_size; ++number) {
            pictures_.push_back(picture(number, number == 0 ? small * key_factor : small));
        }
        using namespace gb28181::test;
        sound_.bytes = joined({pack_header(0), pes(0xC0, 0, gb28181::Bytes(320, 0xD5))});
        sound_.pts_at = 14 + 9;
    }
    [[nodiscard]] const Pack& picture(std::uint64_t number) const { return pictures_[number % group_size]; }
    [[nodiscard]] const Pack& sound() const { return sound_; }

    /// The first payload of a pack as it goes out.
    static void fill_first(const Pack& pack, std::uint64_t pts, const Stamp* stamp, std::uint8_t* out) {
        std::memcpy(out, pack.bytes.data(), pack.size_of(0));
        const gb28181::Bytes header = gb28181::test::pack_header(pts);
        std::memcpy(out, header.data(), header.size());
        write_pts(out + pack.pts_at, pts);
        if (stamp != nullptr && pack.stamp_at != 0) write_stamp(out + pack.stamp_at, *stamp);
    }

private:
    static Pack picture(unsigned number, std::size_t size) {
        using namespace gb28181::test;
        constexpr std::size_t pes_limit = 65'000;
        const bool key = number == 0;
        Pack pack;
        pack.key = key;
        std::vector<gb28181::Bytes> units;
        if (key) units = {h264_sps(1920, 1088), h264_pps()};
        gb28181::Bytes slice = h264_slice(key, number, size, number + 1);
        write_stamp(slice.data() + 16, {});
        units.push_back(std::move(slice));
        pack.bytes = pack_header(0);
        if (key) {
            add(pack.bytes, gb28181::Bytes{0, 0, 1, 0xBB, 0, 12, 0x80, 4, 4, 4, 0x21, 0x7F, 0xE0, 0xE0, 0xE8, 0xC0, 0xC0, 0x20});
            add(pack.bytes, stream_map({{0xE0, 0x1B}, {0xC0, 0x90}}));
        }
        pack.pts_at = pack.bytes.size() + 9;
        const gb28181::Bytes body = annexb(units);
        for (std::size_t start = 0; start < body.size(); start += pes_limit) {
            const gb28181::ByteView piece = gb28181::ByteView(body).slice(start, start + pes_limit);
            add(pack.bytes, start == 0 ? pes(0xE0, 0, piece) : pes(0xE0, std::nullopt, piece));
        }
        const void* const found =
            ::memmem(pack.bytes.data(), pack.size_of(0), stamp_mark.data(), stamp_mark.size());
        pack.stamp_at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - pack.bytes.data());
        return pack;
    }

    std::vector<Pack> pictures_;
    Pack sound_;
};

}  // namespace load
