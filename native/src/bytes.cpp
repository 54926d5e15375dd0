#include "gb28181/bytes.hpp"

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace gb28181 {

#if defined(__SSE2__)

std::size_t find_start_code(ByteView data, std::size_t from) noexcept {
    const std::uint8_t* const bytes = data.data();
    const std::size_t size = data.size();
    if (size < 3 || from > size - 3) return npos;
    const __m128i zero = _mm_setzero_si128();
    const __m128i one = _mm_set1_epi8(1);
    const auto load = [&](std::size_t place) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + place));
    };
    std::size_t place = from;
    // A start code at `place` + n is seen in lane n of three loads, so the last load reads up to place + 17.
    for (; place + 18 <= size; place += 16) {
        const __m128i first = _mm_cmpeq_epi8(load(place), zero);
        const __m128i second = _mm_cmpeq_epi8(load(place + 1), zero);
        const __m128i third = _mm_cmpeq_epi8(load(place + 2), one);
        const int found = _mm_movemask_epi8(_mm_and_si128(_mm_and_si128(first, second), third));
        if (found != 0) return place + static_cast<std::size_t>(__builtin_ctz(static_cast<unsigned>(found)));
    }
    for (; place + 3 <= size; ++place) {
        if (bytes[place] == 0 && bytes[place + 1] == 0 && bytes[place + 2] == 1) return place;
    }
    return npos;
}

#else

std::size_t find_start_code(ByteView data, std::size_t from) noexcept {
    const std::uint8_t* const bytes = data.data();
    const std::size_t size = data.size();
    if (size < 3 || from > size - 3) return npos;
    // By the 01, which is rarer in coded video than the zeros.
    std::size_t place = from + 2;
    while (place < size) {
        const void* const found = std::memchr(bytes + place, 1, size - place);
        if (found == nullptr) return npos;
        place = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - bytes);
        if (bytes[place - 1] == 0 && bytes[place - 2] == 0) return place - 2;
        ++place;
    }
    return npos;
}

#endif

std::size_t find(ByteView data, ByteView needle, std::size_t from) noexcept {
    if (from > data.size() || needle.size() > data.size() - from) return npos;
    const auto* const found = std::search(data.begin() + from, data.end(), needle.begin(), needle.end());
    return found == data.end() && !needle.empty() ? npos : static_cast<std::size_t>(found - data.begin());
}

std::size_t find_byte(ByteView data, std::uint8_t byte, std::size_t from) noexcept {
    if (from >= data.size()) return npos;
    const void* const found = std::memchr(data.data() + from, byte, data.size() - from);
    return found == nullptr ? npos
                            : static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - data.data());
}

}  // namespace gb28181
