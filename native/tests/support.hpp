// Material for the tests, the fuzzers' seeds and the benchmark: small but right streams made by hand.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/bytes.hpp"

namespace gb28181::test {

inline void add(Bytes& out, ByteView bytes) {
    for (const std::uint8_t byte : bytes.span()) out.push_back(byte);
}

inline Bytes joined(const std::vector<Bytes>& parts) {
    Bytes out;
    for (const Bytes& part : parts) add(out, part);
    return out;
}

/// Writes an RBSP bit by bit.
class BitWriter {
public:
    BitWriter& u(std::uint64_t value, unsigned count) {
        for (unsigned place = count; place > 0; --place) bits_.push_back((value >> (place - 1) & 1) != 0);
        return *this;
    }
    BitWriter& ue(std::uint64_t value) {
        unsigned length = 0;
        while ((value + 1) >> (length + 1) != 0) ++length;
        return u(0, length).u(value + 1, length + 1);
    }
    /// With stop bit and emulation prevention, behind `header`.
    [[nodiscard]] Bytes unit(const Bytes& header) const {
        std::vector<bool> bits = bits_;
        bits.push_back(true);
        while (bits.size() % 8 != 0) bits.push_back(false);
        Bytes out = header;
        unsigned zeros = 0;
        for (std::size_t start = 0; start < bits.size(); start += 8) {
            unsigned byte = 0;
            for (std::size_t place = 0; place < 8; ++place) byte = byte << 1 | (bits[start + place] ? 1U : 0U);
            if (zeros >= 2 && byte <= 3) {
                out.push_back(3);
                zeros = 0;
            }
            out.push_back(static_cast<std::uint8_t>(byte));
            zeros = byte == 0 ? zeros + 1 : 0;
        }
        return out;
    }

private:
    std::vector<bool> bits_;
};

/// Main profile, order type 2; sides are multiples of 16.
inline Bytes h264_sps(unsigned width, unsigned height, unsigned sps_id = 0) {
    return BitWriter()
        .u(77, 8).u(0, 8).u(31, 8).ue(sps_id).ue(0).ue(2).ue(1).u(0, 1)
        .ue(width / 16 - 1).ue(height / 16 - 1).u(1, 1).u(1, 1).u(0, 1).u(0, 1)
        .unit({0x67});
}

inline Bytes h264_pps() {
    return BitWriter().ue(0).ue(0).u(0, 2).ue(0).ue(0).ue(0).u(0, 3).ue(0).ue(0).ue(0).u(0, 3).unit({0x68});
}

/// A slice whose header is right and whose data is filler that never looks like a start code.
inline Bytes h264_slice(bool idr, unsigned frame_num, std::size_t size, std::uint32_t seed = 1) {
    Bytes out = BitWriter().ue(0).ue(idr ? 7 : 5).ue(0).u(frame_num & 15, 4).unit({static_cast<std::uint8_t>(idr ? 0x65 : 0x41)});
    std::uint32_t state = seed * 2654435761U + 1;
    out.reserve(out.size() + size);
    unsigned zeros = 0;
    for (std::size_t index = 0; index < size; ++index) {
        state = state * 1664525U + 1013904223U;
        auto byte = static_cast<std::uint8_t>(state >> 24);
        if (zeros >= 2 && byte <= 3) byte = 0x80;
        zeros = byte == 0 ? zeros + 1 : 0;
        out.push_back(byte);
    }
    out.push_back(0x80);
    return out;
}

inline Bytes h265_vps() { return {0x40, 0x01, 0x0C, 0x01, 0xFF, 0xFF, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90}; }

/// Main profile, no VUI; sides are multiples of 8.
inline Bytes h265_sps(unsigned width, unsigned height) {
    BitWriter bits;
    bits.u(0, 4).u(0, 3).u(1, 1);
    bits.u(0, 3).u(1, 5).u(0x60000000, 32).u(0x900000000000, 48).u(93, 8);
    bits.ue(0).ue(1).ue(width).ue(height).u(0, 1).ue(0).ue(0).ue(4).u(1, 1).ue(1).ue(0).ue(0);
    for (int index = 0; index < 6; ++index) bits.ue(0);
    return bits.u(0, 1).u(0, 2).u(0, 1).ue(0).u(0, 1).u(0, 2).u(0, 1).u(0, 1).unit({0x42, 0x01});
}

inline Bytes h265_pps() { return {0x44, 0x01, 0xC1, 0x72, 0xB4, 0x62, 0x40}; }

inline Bytes h265_slice(bool idr, std::size_t size) {
    Bytes out = {static_cast<std::uint8_t>(idr ? 0x26 : 0x02), 0x01, 0xAF};
    out.insert(out.end(), size, 0xA5);
    return out;
}

/// NAL units with four-byte start codes.
inline Bytes annexb(const std::vector<Bytes>& units) {
    Bytes out;
    for (const Bytes& unit : units) {
        add(out, Bytes{0, 0, 0, 1});
        add(out, unit);
    }
    return out;
}

inline Bytes pack_header(std::uint64_t scr = 0) {
    return {0, 0, 1, 0xBA,
            static_cast<std::uint8_t>(0x44 | (scr >> 30 & 7) << 3 | (scr >> 28 & 3)),
            static_cast<std::uint8_t>(scr >> 20),
            static_cast<std::uint8_t>((scr >> 15 & 0x1F) << 3 | 4 | (scr >> 13 & 3)),
            static_cast<std::uint8_t>(scr >> 5),
            static_cast<std::uint8_t>((scr & 0x1F) << 3 | 4),
            1, 0x9C, 0x43, 0xFB, 0xF8};
}

inline Bytes stream_map(const std::vector<std::pair<int, int>>& types) {
    Bytes body = {0xE0, 0xFF, 0, 0, 0, static_cast<std::uint8_t>(types.size() * 4)};
    for (const auto& [id, type] : types) {
        add(body, Bytes{static_cast<std::uint8_t>(type), static_cast<std::uint8_t>(id), 0, 0});
    }
    add(body, Bytes(4, 0));
    Bytes out = {0, 0, 1, 0xBC, 0, static_cast<std::uint8_t>(body.size())};
    add(out, body);
    return out;
}

/// `size` -1: the right one.
inline Bytes pes(int id, std::optional<std::uint64_t> pts, ByteView payload, int size = -1) {
    Bytes times;
    if (pts) {
        times = {static_cast<std::uint8_t>(0x21 | (*pts >> 30 & 7) << 1), static_cast<std::uint8_t>(*pts >> 22),
                 static_cast<std::uint8_t>((*pts >> 15 & 0x7F) << 1 | 1), static_cast<std::uint8_t>(*pts >> 7),
                 static_cast<std::uint8_t>((*pts & 0x7F) << 1 | 1)};
    }
    const std::size_t length = size >= 0 ? static_cast<std::size_t>(size) : 3 + times.size() + payload.size();
    Bytes out = {0, 0, 1, static_cast<std::uint8_t>(id), static_cast<std::uint8_t>(length >> 8),
                 static_cast<std::uint8_t>(length), 0x80, static_cast<std::uint8_t>(pts ? 0x80 : 0),
                 static_cast<std::uint8_t>(times.size())};
    add(out, times);
    add(out, payload);
    return out;
}

inline Bytes rtp(std::uint16_t sequence_number, std::uint32_t timestamp, bool marker, ByteView payload,
                 int payload_type = 96, std::uint32_t ssrc = 0x0BEBC201) {
    const auto byte = [](std::uint32_t value) { return static_cast<std::uint8_t>(value); };
    Bytes out = {0x80, byte(static_cast<std::uint32_t>(payload_type) | (marker ? 0x80U : 0U)),
                 byte(sequence_number >> 8U), byte(sequence_number), byte(timestamp >> 24), byte(timestamp >> 16),
                 byte(timestamp >> 8), byte(timestamp), byte(ssrc >> 24), byte(ssrc >> 16), byte(ssrc >> 8), byte(ssrc)};
    add(out, payload);
    return out;
}

/// One picture of a program stream, with its sound.
inline Bytes camera_pack(unsigned number, std::size_t picture_size, bool key) {
    const std::uint64_t pts = 90000 + number * std::uint64_t{3600};
    std::vector<Bytes> units;
    if (key) units = {h264_sps(1920, 1088), h264_pps()};
    units.push_back(h264_slice(key, number, picture_size, number + 1));
    Bytes out = pack_header(pts);
    if (key) {
        add(out, Bytes{0, 0, 1, 0xBB, 0, 12, 0x80, 4, 4, 4, 0x21, 0x7F, 0xE0, 0xE0, 0xE8, 0xC0, 0xC0, 0x20});
        add(out, stream_map({{0xE0, 0x1B}, {0xC0, 0x90}}));
    }
    const Bytes body = annexb(units);
    for (std::size_t start = 0; start < body.size(); start += 65000) {
        const ByteView piece = ByteView(body).slice(start, start + 65000);
        add(out, start == 0 ? pes(0xE0, pts, piece) : pes(0xE0, std::nullopt, piece));
    }
    add(out, pes(0xC0, pts, Bytes(320, 0xD5)));
    return out;
}

/// The packets of so many pictures at about 4.1 Mbit/s, a key picture each two seconds.
inline std::vector<Bytes> camera_packets(unsigned pictures) {
    std::vector<Bytes> packets;
    std::uint16_t sequence_number = 0;
    for (unsigned number = 0; number < pictures; ++number) {
        const bool key = number % 50 == 0;
        const Bytes pack = camera_pack(number, key ? 160000 : 17200, key);
        for (std::size_t start = 0; start < pack.size(); start += 1400) {
            packets.push_back(rtp(sequence_number++, number * 3600, start + 1400 >= pack.size(),
                                  ByteView(pack).slice(start, start + 1400)));
        }
    }
    return packets;
}

}  // namespace gb28181::test
