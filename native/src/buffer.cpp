#include "gb28181/buffer.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <new>

namespace gb28181 {
namespace detail {
namespace {

// Under a sanitizer every block is the heap's own, so that it sees a use after the last reference.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool caching = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
constexpr bool caching = false;
#else
constexpr bool caching = true;
#endif
#else
constexpr bool caching = true;
#endif

constexpr std::size_t least_capacity = 64;
constexpr unsigned least_bits = 6;        // of least_capacity
constexpr std::size_t class_count = 200;  // up to 1 GB and more
constexpr std::uint32_t unclassed = class_count;

std::atomic<std::size_t> cache_limit{std::size_t{4} * 1024 * 1024};

struct SizeClass {
    std::uint32_t index;
    std::size_t capacity;
};

/// Eight classes an octave.
SizeClass size_class_of(std::size_t wanted) noexcept {
    if (wanted <= least_capacity) return {0, least_capacity};
    const auto bits = static_cast<unsigned>(std::bit_width(wanted - 1));  // at least 7
    const unsigned shift = bits - 4;
    const std::size_t step = std::size_t{1} << shift;
    const std::size_t eighth = (wanted - 1) >> shift;  // 8 to 15
    const std::size_t index = (bits - least_bits - 1) * std::size_t{8} + (eighth - 8) + 1;
    const std::size_t capacity = (eighth + 1) * step;
    if (index >= class_count) return {unclassed, wanted};
    return {static_cast<std::uint32_t>(index), capacity};
}

using Allocator = std::allocator<Block>;

std::size_t units_of(std::size_t capacity) noexcept {
    return 1 + (capacity + sizeof(Block) - 1) / sizeof(Block);
}

Block* make(SizeClass wanted) {
    if (wanted.capacity > static_cast<std::size_t>(-1) / 2) throw std::bad_alloc();
    Block* const block = std::construct_at(Allocator().allocate(units_of(wanted.capacity)));
    block->size_class = wanted.index;
    block->capacity = wanted.capacity;
    return block;
}

void destroy(Block* block) noexcept {
    const std::size_t units = units_of(block->capacity);
    std::destroy_at(block);
    Allocator().deallocate(block, units);
}

/// Free blocks of one thread.
class Cache {
public:
    ~Cache() {
        for (Block*& head : free_) {
            while (head != nullptr) destroy(std::exchange(head, head->next));
        }
    }

    Block* take(std::uint32_t index) noexcept {
        Block* const block = free_[index];
        if (block == nullptr) return nullptr;
        free_[index] = block->next;
        bytes_ -= block->capacity;
        return block;
    }

    bool keep(Block* block) noexcept {
        if (block->size_class == unclassed) return false;
        if (bytes_ + block->capacity > cache_limit.load(std::memory_order_relaxed)) return false;
        block->next = free_[block->size_class];
        free_[block->size_class] = block;
        bytes_ += block->capacity;
        return true;
    }

private:
    std::array<Block*, class_count> free_{};
    std::size_t bytes_ = 0;
};

/// The thread's cache; nothing while the thread ends and its cache is gone.
struct CacheOwner {
    Cache cache;
    CacheOwner() noexcept { current = &cache; }
    ~CacheOwner() { current = nullptr; ended = true; }
    CacheOwner(const CacheOwner&) = delete;
    CacheOwner& operator=(const CacheOwner&) = delete;

    static thread_local Cache* current;
    static thread_local bool ended;
};

thread_local Cache* CacheOwner::current = nullptr;
thread_local bool CacheOwner::ended = false;

Cache* thread_cache() noexcept {
    if (!caching || CacheOwner::ended) return nullptr;
    if (CacheOwner::current == nullptr) {
        static thread_local CacheOwner owner;
        static_cast<void>(owner);
    }
    return CacheOwner::current;
}

}  // namespace

Block* acquire_block(std::size_t capacity) {
    const SizeClass wanted = size_class_of(capacity);
    if (wanted.index != unclassed) {
        if (Cache* const cache = thread_cache()) {
            if (Block* const block = cache->take(wanted.index)) {
                block->references.store(1, std::memory_order_relaxed);
                return block;
            }
        }
    }
    return make(wanted);
}

void release_block(Block* block) noexcept {
    // Alone with it: nobody else can take a reference any more.
    if (block->references.load(std::memory_order_acquire) != 1 &&
        block->references.fetch_sub(1, std::memory_order_acq_rel) != 1) {
        return;
    }
    Cache* const cache = thread_cache();
    if (cache == nullptr || !cache->keep(block)) destroy(block);
}

}  // namespace detail

void set_buffer_cache_limit(std::size_t bytes) noexcept {
    detail::cache_limit.store(bytes, std::memory_order_relaxed);
}

Buffer Buffer::copy_of(ByteView bytes) {
    if (bytes.empty()) return {};
    detail::Block* const block = detail::acquire_block(bytes.size());
    std::memcpy(block->bytes(), bytes.data(), bytes.size());
    return {block, bytes.size()};
}

Buffer PacketArena::store(ByteView bytes) {
    if (bytes.empty()) return {};
    if (block_ == nullptr || bytes.size() > block_->capacity - used_) {
        detail::Block* const fresh = detail::acquire_block(std::max(block_size, bytes.size()));
        release();
        block_ = fresh;
    }
    std::uint8_t* const place = block_->bytes() + used_;
    std::memcpy(place, bytes.data(), bytes.size());
    used_ += bytes.size();
    block_->references.fetch_add(1, std::memory_order_relaxed);
    Buffer stored(block_, bytes.size());
    stored.data_ = place;
    return stored;
}

void PacketArena::release() noexcept {
    if (block_ != nullptr) detail::release_block(block_);
    block_ = nullptr;
    used_ = 0;
}

void ByteBuilder::reserve(std::size_t capacity) {
    if (capacity <= this->capacity()) return;
    detail::Block* const larger = detail::acquire_block(capacity);
    if (block_ != nullptr) {
        if (size_ != 0) std::memcpy(larger->bytes(), block_->bytes(), size_);
        detail::release_block(block_);
    }
    block_ = larger;
}

std::uint8_t* ByteBuilder::extend(std::size_t count) {
    const std::size_t wanted = size_ + count;
    const std::size_t present = capacity();
    if (wanted > present) reserve(std::max(wanted, present * 2));
    std::uint8_t* const place = data() + size_;
    size_ = wanted;
    return place;
}

void ByteBuilder::append(ByteView bytes) {
    if (bytes.empty()) return;
    std::memcpy(extend(bytes.size()), bytes.data(), bytes.size());
}

void ByteBuilder::append_u16(std::uint32_t value) {
    std::uint8_t* const place = extend(2);
    place[0] = static_cast<std::uint8_t>(value >> 8);
    place[1] = static_cast<std::uint8_t>(value);
}

void ByteBuilder::append_u24(std::uint32_t value) {
    std::uint8_t* const place = extend(3);
    place[0] = static_cast<std::uint8_t>(value >> 16);
    place[1] = static_cast<std::uint8_t>(value >> 8);
    place[2] = static_cast<std::uint8_t>(value);
}

void ByteBuilder::append_u32(std::uint32_t value) {
    std::uint8_t* const place = extend(4);
    place[0] = static_cast<std::uint8_t>(value >> 24);
    place[1] = static_cast<std::uint8_t>(value >> 16);
    place[2] = static_cast<std::uint8_t>(value >> 8);
    place[3] = static_cast<std::uint8_t>(value);
}

void ByteBuilder::overwrite(std::size_t position, ByteView bytes) noexcept {
    if (position > size_ || bytes.size() > size_ - position || bytes.empty()) return;
    std::memcpy(data() + position, bytes.data(), bytes.size());
}

void ByteBuilder::erase_front(std::size_t count) noexcept {
    if (count >= size_) {
        size_ = 0;
        return;
    }
    if (count == 0) return;
    std::memmove(data(), data() + count, size_ - count);
    size_ -= count;
}

void ByteBuilder::release() noexcept {
    if (block_ != nullptr) detail::release_block(block_);
    block_ = nullptr;
    size_ = 0;
}

Buffer ByteBuilder::finish() noexcept {
    if (block_ == nullptr) return {};
    if (size_ == 0) {
        release();
        return {};
    }
    return {std::exchange(block_, nullptr), std::exchange(size_, 0)};
}

}  // namespace gb28181
