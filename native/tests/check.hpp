// The little that the engine's test programs need: checks that end the program, waiting with a deadline, a source of
// program streams in RTP.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace gb28181::test {

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);      \
            std::exit(1);                                                                     \
        }                                                                                     \
    } while (false)

/// Polls until `condition` holds; false after `seconds`.
inline bool until(const std::function<bool()>& condition, double seconds = 20.0) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

inline std::vector<std::uint8_t> from_hex(std::string_view text) {
    std::vector<std::uint8_t> bytes;
    for (std::size_t index = 0; index + 1 < text.size(); index += 2) {
        bytes.push_back(static_cast<std::uint8_t>(std::stoi(std::string(text.substr(index, 2)), nullptr, 16)));
    }
    return bytes;
}

/// A device: pictures of H.264 in a program stream, cut into RTP packets. The slices are filler.
class RtpSource {
public:
    explicit RtpSource(std::uint32_t ssrc, std::size_t picture_size = 1500, unsigned gop = 10)
        : ssrc_(ssrc), picture_size_(picture_size), gop_(gop) {}

    /// The packets of the next picture.
    std::vector<std::vector<std::uint8_t>> next() {
        const bool key = count_ % gop_ == 0;
        const std::uint32_t at = count_ * 3600;
        const std::vector<std::uint8_t> data = picture(key, at);
        std::vector<std::vector<std::uint8_t>> packets;
        for (std::size_t start = 0; start < data.size(); start += 1400) {
            const std::size_t end = std::min(data.size(), start + 1400);
            std::vector<std::uint8_t> packet{0x80, static_cast<std::uint8_t>(end == data.size() ? 0xE0 : 0x60)};
            put(packet, sequence_++, 2);
            put(packet, at, 4);
            put(packet, ssrc_, 4);
            packet.insert(packet.end(), data.begin() + static_cast<std::ptrdiff_t>(start),
                          data.begin() + static_cast<std::ptrdiff_t>(end));
            packets.push_back(std::move(packet));
        }
        ++count_;
        return packets;
    }

private:
    static void put(std::vector<std::uint8_t>& out, std::uint64_t value, unsigned bytes) {
        for (unsigned shift = bytes * 8; shift > 0; shift -= 8) {
            out.push_back(static_cast<std::uint8_t>(value >> (shift - 8) & 0xFFU));
        }
    }

    [[nodiscard]] std::vector<std::uint8_t> picture(bool key, std::uint32_t at) const {
        // Pack header with SCR 0 (ISO 13818-1 2.5.3.3); its clock is not read.
        std::vector<std::uint8_t> out = from_hex("000001BA44000400040100000303F8");
        out.resize(14);
        out[13] = 0xF8;
        std::vector<std::uint8_t> es;
        const auto unit = [&es](const std::vector<std::uint8_t>& nal) {
            put(es, 1, 4);
            es.insert(es.end(), nal.begin(), nal.end());
        };
        if (key) {
            // Program stream map: stream_type 0x1B, stream id 0xE0.
            const auto map = from_hex("000001BC000EE1FF00000004" "1BE00000" "00000000");
            out.insert(out.end(), map.begin(), map.end());
            unit(from_hex("6764002aacd940780227e5c044000003000400000300c83c60c658"));
            unit(from_hex("68ebe3cb22c0"));
        }
        std::vector<std::uint8_t> slice = from_hex(key ? "658880" : "419a02");
        slice.resize(key ? picture_size_ * 4 : picture_size_, 0x55);
        unit(slice);
        const std::uint64_t pts = at;
        put(out, 0x000001E0, 4);
        put(out, es.size() + 8, 2);
        put(out, 0x8080, 2);
        out.push_back(5);
        out.push_back(static_cast<std::uint8_t>(0x21U | (pts >> 30U & 7U) << 1U));
        put(out, (pts >> 15U & 0x7FFFU) << 1U | 1U, 2);
        put(out, (pts & 0x7FFFU) << 1U | 1U, 2);
        out.insert(out.end(), es.begin(), es.end());
        return out;
    }

    std::uint32_t ssrc_;
    std::size_t picture_size_;
    unsigned gop_;
    std::uint32_t count_ = 0;
    std::uint16_t sequence_ = 1;
};

}  // namespace gb28181::test
