// A value that one thread writes often and others read now and then, without a lock on the writer's side.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace gb28181 {

/// A sequence lock. Its words are atomics, released and acquired one by one: a reader that sees a word of a later
/// value sees the later (odd) version as well, and reads again.
template <class T>
class Published {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    /// The one writer.
    void store(const T& value) noexcept {
        std::array<std::uint64_t, word_count> raw{};
        std::memcpy(raw.data(), &value, sizeof value);
        const std::uint32_t version = version_.load(std::memory_order_relaxed);
        version_.store(version + 1, std::memory_order_relaxed);
        for (std::size_t index = 0; index < word_count; ++index) {
            words_[index].store(raw[index], std::memory_order_release);
        }
        version_.store(version + 2, std::memory_order_release);
    }

    [[nodiscard]] T load() const noexcept {
        std::array<std::uint64_t, word_count> raw{};
        for (;;) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);
            for (std::size_t index = 0; index < word_count; ++index) {
                raw[index] = words_[index].load(std::memory_order_acquire);
            }
            if ((before & 1U) == 0 && version_.load(std::memory_order_relaxed) == before) break;
        }
        T value;
        std::memcpy(static_cast<void*>(&value), raw.data(), sizeof value);
        return value;
    }

private:
    static constexpr std::size_t word_count = (sizeof(T) + 7) / 8;

    std::atomic<std::uint32_t> version_{0};
    std::array<std::atomic<std::uint64_t>, word_count> words_{};
};

}  // namespace gb28181
