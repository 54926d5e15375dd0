// Reading bytes that a network gave: nothing here can read outside what it was given.
//
// `ByteView` is a span whose index and slices are total: past the end there are zeros and nothing. The codecs check
// lengths where a length means something; a check that was forgotten reads a zero and not a neighbour's memory.
// `Cursor` walks a fixed layout and says at the end whether everything was there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace gb28181 {

using Bytes = std::vector<std::uint8_t>;

/// What the searches answer when there is nothing.
inline constexpr std::size_t npos = static_cast<std::size_t>(-1);

/// Bytes that belong to somebody else and live at least as long as the call they are given to.
class ByteView {
public:
    constexpr ByteView() noexcept = default;
    constexpr ByteView(const std::uint8_t* data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr ByteView(std::span<const std::uint8_t> bytes) noexcept : data_(bytes.data()), size_(bytes.size()) {}
    ByteView(const Bytes& bytes) noexcept : data_(bytes.data()), size_(bytes.size()) {}
    template <std::size_t Size>
    constexpr ByteView(const std::array<std::uint8_t, Size>& bytes) noexcept : data_(bytes.data()), size_(Size) {}

    [[nodiscard]] constexpr const std::uint8_t* data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr const std::uint8_t* begin() const noexcept { return data_; }
    [[nodiscard]] constexpr const std::uint8_t* end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept { return {data_, size_}; }

    /// The byte at `index`, 0 past the end.
    [[nodiscard]] constexpr std::uint8_t operator[](std::size_t index) const noexcept {
        return index < size_ ? data_[index] : std::uint8_t{0};
    }

    /// Two bytes, network order; missing ones are 0.
    [[nodiscard]] constexpr std::uint16_t u16(std::size_t index) const noexcept {
        return static_cast<std::uint16_t>((*this)[index] << 8 | (*this)[index + 1]);
    }

    /// Four bytes, network order; missing ones are 0.
    [[nodiscard]] constexpr std::uint32_t u32(std::size_t index) const noexcept {
        return static_cast<std::uint32_t>(u16(index)) << 16 | u16(index + 2);
    }

    /// From `first` up to `last`, as far as there is.
    [[nodiscard]] constexpr ByteView slice(std::size_t first, std::size_t last) const noexcept {
        const std::size_t stop = last < size_ ? last : size_;
        return first < stop ? ByteView{data_ + first, stop - first} : ByteView{};
    }

    /// From `first` to the end.
    [[nodiscard]] constexpr ByteView from(std::size_t first) const noexcept { return slice(first, size_); }

    [[nodiscard]] bool starts_with(ByteView prefix) const noexcept {
        return size_ >= prefix.size_ && (prefix.size_ == 0 || std::memcmp(data_, prefix.data_, prefix.size_) == 0);
    }

    [[nodiscard]] bool operator==(ByteView other) const noexcept {
        return size_ == other.size_ && (size_ == 0 || std::memcmp(data_, other.data_, size_) == 0);
    }

    /// Without the zeros at its end.
    [[nodiscard]] constexpr ByteView without_trailing_zeros() const noexcept {
        std::size_t size = size_;
        while (size > 0 && data_[size - 1] == 0) --size;
        return {data_, size};
    }

    [[nodiscard]] Bytes copy() const { return {begin(), end()}; }

private:
    const std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

/// The first 00 00 01 at or behind `from`; `npos` with none. Time depends on the length alone, not on the contents.
[[nodiscard]] std::size_t find_start_code(ByteView data, std::size_t from) noexcept;

/// The first place of `needle` at or behind `from`; `npos` with none. For short needles that are looked for rarely.
[[nodiscard]] std::size_t find(ByteView data, ByteView needle, std::size_t from) noexcept;

/// The first `byte` at or behind `from`; `npos` with none.
[[nodiscard]] std::size_t find_byte(ByteView data, std::uint8_t byte, std::size_t from) noexcept;

/// Reads fields in order, network byte order. Past the end every read gives 0 and `ok` is false from then on.
class Cursor {
public:
    explicit constexpr Cursor(ByteView data) noexcept : data_(data) {}

    [[nodiscard]] constexpr bool ok() const noexcept { return ok_; }
    [[nodiscard]] constexpr std::size_t position() const noexcept { return position_; }
    [[nodiscard]] constexpr std::size_t left() const noexcept { return data_.size() - position_; }

    constexpr std::uint8_t u8() noexcept { return static_cast<std::uint8_t>(number(1)); }
    constexpr std::uint16_t u16() noexcept { return static_cast<std::uint16_t>(number(2)); }
    constexpr std::uint32_t u24() noexcept { return static_cast<std::uint32_t>(number(3)); }
    constexpr std::uint32_t u32() noexcept { return static_cast<std::uint32_t>(number(4)); }
    constexpr std::uint64_t u64() noexcept { return number(8); }

    /// The next `count` bytes; empty (and not `ok`) when there are fewer.
    constexpr ByteView take(std::size_t count) noexcept {
        if (count > left()) {
            ok_ = false;
            position_ = data_.size();
            return {};
        }
        const ByteView taken = data_.slice(position_, position_ + count);
        position_ += count;
        return taken;
    }

    constexpr void skip(std::size_t count) noexcept { take(count); }

private:
    constexpr std::uint64_t number(std::size_t count) noexcept {
        const ByteView bytes = take(count);
        std::uint64_t value = 0;
        for (std::size_t index = 0; index < bytes.size(); ++index) value = value << 8 | bytes[index];
        return value;
    }

    ByteView data_;
    std::size_t position_ = 0;
    bool ok_ = true;
};

/// Division that rounds down, as the times of devices want it; `divisor` is positive.
[[nodiscard]] constexpr std::int64_t floor_div(std::int64_t value, std::int64_t divisor) noexcept {
    const std::int64_t quotient = value / divisor;
    return quotient - (value % divisor != 0 && value < 0 ? 1 : 0);
}

/// The remainder that belongs to `floor_div`: never negative.
[[nodiscard]] constexpr std::int64_t floor_mod(std::int64_t value, std::int64_t divisor) noexcept {
    const std::int64_t rest = value % divisor;
    return rest < 0 ? rest + divisor : rest;
}

}  // namespace gb28181
