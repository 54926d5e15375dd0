// Reference-counted bytes, written once and then shared by all who need them.
//
// Theory of operation. A `ByteBuilder` owns a block alone and fills it; `finish` makes it a `Buffer`, which nobody
// changes any more and which any thread may hold, copy and drop. Blocks come in size classes of 1/8 octave (at most
// 12.5 % is wasted) and go back to a bounded cache of the thread that drops them last, so a worker that makes frames
// and drops frames asks the heap for nothing in steady state.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "gb28181/bytes.hpp"

namespace gb28181 {

namespace detail {

/// The head of a block; its bytes stand behind it.
struct Block {
    std::atomic<std::uint32_t> references{1};
    std::uint32_t size_class = 0;
    std::size_t capacity = 0;
    Block* next = nullptr;  // in a cache

    [[nodiscard]] std::uint8_t* bytes() noexcept { return reinterpret_cast<std::uint8_t*>(this + 1); }
};

/// A block of at least `capacity` bytes with one reference. Throws std::bad_alloc.
[[nodiscard]] Block* acquire_block(std::size_t capacity);
/// Drop one reference.
void release_block(Block* block) noexcept;

}  // namespace detail

/// How many bytes of free blocks each thread keeps; 4 MiB unless told. Affects threads as they next drop something.
void set_buffer_cache_limit(std::size_t bytes) noexcept;

/// Immutable bytes. Copying shares them; 24 bytes a handle.
class Buffer {
public:
    Buffer() noexcept = default;
    Buffer(const Buffer& other) noexcept : block_(other.block_), data_(other.data_), size_(other.size_) {
        if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
    }
    Buffer(Buffer&& other) noexcept
        : block_(std::exchange(other.block_, nullptr)),
          data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)) {}
    Buffer& operator=(const Buffer& other) noexcept {
        if (this != &other) Buffer(other).swap(*this);
        return *this;
    }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    ~Buffer() {
        if (block_ != nullptr) detail::release_block(block_);
    }

    /// A block of just this size with a copy of `bytes`.
    [[nodiscard]] static Buffer copy_of(ByteView bytes);

    [[nodiscard]] const std::uint8_t* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] ByteView view() const noexcept { return {data_, size_}; }
    operator ByteView() const noexcept { return view(); }  // NOLINT(google-explicit-constructor)

    /// A part of the same block, as far as there is.
    [[nodiscard]] Buffer slice(std::size_t first, std::size_t last) const noexcept {
        Buffer part(*this);
        const ByteView view = part.view().slice(first, last);
        part.data_ = view.data();
        part.size_ = view.size();
        return part;
    }

    /// Bytes of memory that this handle keeps alive (shared ones count fully).
    [[nodiscard]] std::size_t footprint() const noexcept {
        return block_ != nullptr ? block_->capacity + sizeof(detail::Block) : 0;
    }

    void swap(Buffer& other) noexcept {
        std::swap(block_, other.block_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

private:
    friend class ByteBuilder;
    friend class PacketArena;
    Buffer(detail::Block* block, std::size_t size) noexcept : block_(block), data_(block->bytes()), size_(size) {}

    detail::Block* block_ = nullptr;
    const std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Small pieces side by side in blocks that they share: a packet kept costs its bytes and no block of its own.
///
/// The arena writes only behind what it has given out, so what it gave is immutable. One thread appends; the buffers may
/// go anywhere. A block lives as long as one of its pieces.
class PacketArena {
public:
    PacketArena() noexcept = default;
    PacketArena(const PacketArena&) = delete;
    PacketArena& operator=(const PacketArena&) = delete;
    ~PacketArena() { release(); }

    /// A copy of `bytes`.
    [[nodiscard]] Buffer store(ByteView bytes);
    /// Begin a new block with the next piece.
    void release() noexcept;

private:
    static constexpr std::size_t block_size = std::size_t{64} * 1024 - 256;  // a size class of its own

    detail::Block* block_ = nullptr;
    std::size_t used_ = 0;
};

/// Bytes in work: grows at the end, may lose its front, becomes a `Buffer`.
class ByteBuilder {
public:
    ByteBuilder() noexcept = default;
    explicit ByteBuilder(std::size_t capacity) { reserve(capacity); }
    ByteBuilder(const ByteBuilder&) = delete;
    ByteBuilder& operator=(const ByteBuilder&) = delete;
    ByteBuilder(ByteBuilder&& other) noexcept
        : block_(std::exchange(other.block_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    ByteBuilder& operator=(ByteBuilder&& other) noexcept {
        if (this != &other) {
            release();
            block_ = std::exchange(other.block_, nullptr);
            size_ = std::exchange(other.size_, 0);
        }
        return *this;
    }
    ~ByteBuilder() { release(); }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t capacity() const noexcept { return block_ != nullptr ? block_->capacity : 0; }
    [[nodiscard]] std::uint8_t* data() noexcept { return block_ != nullptr ? block_->bytes() : nullptr; }
    [[nodiscard]] ByteView view() const noexcept {
        return block_ != nullptr ? ByteView{block_->bytes(), size_} : ByteView{};
    }
    [[nodiscard]] std::uint8_t operator[](std::size_t index) const noexcept { return view()[index]; }

    /// Room for `capacity` bytes in all; with nothing in it yet, for hardly more than that.
    void reserve(std::size_t capacity);
    void append(ByteView bytes);
    void append(std::uint8_t byte) { append(ByteView{&byte, 1}); }
    void append_u16(std::uint32_t value);
    void append_u24(std::uint32_t value);
    void append_u32(std::uint32_t value);
    /// `count` bytes more, to be written by the caller at once.
    [[nodiscard]] std::uint8_t* extend(std::size_t count);
    /// Write over bytes that are there already; what would stand outside is left out.
    void overwrite(std::size_t position, ByteView bytes) noexcept;
    /// Forget the first `count` bytes (all of them, if there are fewer).
    void erase_front(std::size_t count) noexcept;
    /// Forget what stands behind `size`.
    void truncate(std::size_t size) noexcept {
        if (size < size_) size_ = size;
    }
    void clear() noexcept { size_ = 0; }
    /// Forget the bytes and give the memory back.
    void release() noexcept;
    /// What was written, as it is. The builder is empty afterwards and has no memory.
    [[nodiscard]] Buffer finish() noexcept;

private:
    detail::Block* block_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace gb28181
