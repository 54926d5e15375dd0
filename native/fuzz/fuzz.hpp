// What the harnesses share: reading choices and pieces from the fuzzer's bytes, and checks that end the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "gb28181/bytes.hpp"
#include "gb28181/units.hpp"

#define REQUIRE(condition)                                                                \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);  \
            std::abort();                                                                 \
        }                                                                                 \
    } while (false)

namespace gb28181::fuzz {

/// Choices in front, then pieces. Every piece is a heap block of its own size, so that a sanitizer sees one byte more.
class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : cursor_(ByteView{data, size}) {}

    [[nodiscard]] bool done() const noexcept { return cursor_.left() == 0; }
    std::uint8_t byte() noexcept { return cursor_.u8(); }
    std::uint16_t word() noexcept { return cursor_.u16(); }
    std::uint32_t number() noexcept { return cursor_.u32(); }
    std::uint64_t large() noexcept { return cursor_.u64(); }

    /// The next bytes, as many as are left at most.
    ByteView piece(std::size_t size) {
        const ByteView taken = cursor_.take(size < cursor_.left() ? size : cursor_.left());
        block_ = std::make_unique<std::uint8_t[]>(taken.size());
        if (!taken.empty()) std::memcpy(block_.get(), taken.data(), taken.size());
        return {block_.get(), taken.size()};
    }
    ByteView rest() { return piece(cursor_.left()); }

private:
    Cursor cursor_;
    std::unique_ptr<std::uint8_t[]> block_;
};

/// What holds for every unit that a demuxer gives.
inline void check_unit(const EsUnit& unit) {
    REQUIRE(unit.track != nullptr);
    REQUIRE(!unit.pts_90k || (*unit.pts_90k >= 0 && *unit.pts_90k < pts_modulus));
    REQUIRE(!unit.dts_90k || (*unit.dts_90k >= 0 && *unit.dts_90k < pts_modulus));
    if (unit.track->codec != Codec::h264 && unit.track->codec != Codec::h265) return;
    const ByteView payload = unit.payload;
    REQUIRE(payload.size() > 4 && payload.u32(0) == 1);
    for (std::size_t place = find_start_code(payload, 1); place != npos; place = find_start_code(payload, place + 3)) {
        REQUIRE(payload[place - 1] == 0);            // four-byte start codes
        REQUIRE(place == 1 || payload[place - 2] != 0);  // and no zeros in front of them
    }
    REQUIRE(!unit.track->parameter_sets.empty());
    REQUIRE(unit.track->width > 0 && unit.track->height > 0);
}

}  // namespace gb28181::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
