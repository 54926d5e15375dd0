#include "gb28181/reorder.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace gb28181 {
namespace {

constexpr int modulus = 1 << 16;
constexpr int half = 1 << 15;
constexpr double calm_s = 30.0;
constexpr int max_dropout = 3000;  // RFC 3550 A.1: farther than this is a new sequence
constexpr int restart_packets = 8;
constexpr std::size_t max_given_up = 64;
constexpr std::size_t least_slots = 16;
constexpr std::size_t kept_slots = 64;

int distance(int later, int earlier) noexcept { return (later - earlier + 2 * modulus) % modulus; }

void append_packet(std::vector<Ordered>& out, const RtpPacket& packet) {
    Ordered& next = out.emplace_back();
    next.packet = packet;
}

void append_gap(std::vector<Ordered>& out, int lost, bool restart) {
    Ordered& next = out.emplace_back();
    next.is_gap = true;
    next.lost = lost;
    next.restart = restart;
}

/// The packet with its bytes in `storage`.
RtpPacket moved_to(const RtpPacket& packet, const Buffer& storage) noexcept {
    RtpPacket moved = packet;
    const std::size_t offset = packet.payload.empty()
                                   ? 0
                                   : static_cast<std::size_t>(packet.payload.data() - packet.datagram.data());
    moved.datagram = storage.view();
    moved.payload = moved.datagram.slice(offset, offset + packet.payload.size());
    return moved;
}

}  // namespace

ReorderBuffer::ReorderBuffer(double window_s, double max_window_s, std::size_t max_packets)
    : window_s_(window_s),
      least_window_s_(window_s),
      max_window_s_(max_window_s),
      max_packets_(max_packets) {}

void ReorderBuffer::push(const RtpPacket& packet, double now, std::vector<Ordered>& out) {
    if (packet.sequence_number == expected_) {
        expected_ = (expected_ + 1) % modulus;
        append_packet(out, packet);
        if (held_ == 0) {
            has_suspect_ = false;
            return;
        }
        drain(out);
        expire(now, out);
        return;
    }
    if (expected_ < 0) {
        expected_ = (packet.sequence_number + 1) % modulus;
        last_trouble_ = now;
        append_packet(out, packet);
        return;
    }
    out_of_turn(packet, now, out);
}

void ReorderBuffer::poll(double now, std::vector<Ordered>& out) { expire(now, out); }

void ReorderBuffer::flush(std::vector<Ordered>& out) {
    while (held_ != 0) skip(out, std::nullopt);
}

std::optional<double> ReorderBuffer::deadline() const noexcept {
    if (held_ == 0) return std::nullopt;
    return slots_[static_cast<std::size_t>(oldest_)].at + window_s_;
}

void ReorderBuffer::out_of_turn(const RtpPacket& packet, double now, std::vector<Ordered>& out) {
    int ahead = distance(packet.sequence_number, expected_);
    if (ahead >= half) ahead -= modulus;
    const int most = static_cast<int>(max_packets_);
    if (ahead > 0 && ahead <= most) {
        has_suspect_ = false;
        if (is_held(packet.sequence_number)) {
            ++duplicated_;
            return;
        }
        hold(packet, now, static_cast<std::size_t>(ahead));
        ++reordered_;
        if (now - last_trouble_ > calm_s) window_s_ = least_window_s_;
        last_trouble_ = now;
        expire(now, out);
        return;
    }
    if (ahead < 0 && ahead >= -most) {
        behind(packet.sequence_number, now);
        restarted_behind(packet, now, out);
        return;
    }
    confirm(packet, out);
}

/// A jump: believed when the next packet continues it (RFC 3550 A.1).
void ReorderBuffer::confirm(const RtpPacket& packet, std::vector<Ordered>& out) {
    if (!has_suspect_ || (suspect_.sequence_number + 1) % modulus != packet.sequence_number) {
        suspect_storage_ = Buffer::copy_of(packet.datagram);
        suspect_ = moved_to(packet, suspect_storage_);
        has_suspect_ = true;
        return;
    }
    const int ahead = distance(suspect_.sequence_number, expected_);
    flush(out);
    if (ahead < max_dropout) {
        lost_ += static_cast<std::uint64_t>(ahead);
        append_gap(out, ahead, false);
    } else {
        ++restarts_;
        append_gap(out, 0, true);
    }
    append_packet(out, suspect_);
    out.back().storage = std::move(suspect_storage_);
    append_packet(out, packet);
    expected_ = (packet.sequence_number + 1) % modulus;
    has_suspect_ = false;
    given_up_.clear();
}

/// Late or duplicate: late if it is one of those given up.
void ReorderBuffer::behind(int sequence_number, double now) {
    for (std::size_t index = 0; index < given_up_.size(); ++index) {
        const GivenUp range = given_up_[index];
        const int place = distance(sequence_number, range.first);
        if (place >= range.count) continue;
        ++late_;
        // Split the range, so that a second copy counts as duplicate.
        given_up_.erase(given_up_.begin() + static_cast<std::ptrdiff_t>(index));
        if (place != 0) give_up(range.first, place, range.when);
        if (place + 1 < range.count) {
            give_up((sequence_number + 1) % modulus, range.count - place - 1, range.when);
        }
        const double needed = now - range.when + window_s_;
        window_s_ = std::min(max_window_s_, std::max(window_s_, needed * 1.1));
        last_trouble_ = now;
        return;
    }
    ++duplicated_;
}

/// A restart by a few hundred packets looks like old packets (MED-23). It is believed when old numbers, each following
/// the one before, are all that comes for longer than the window may be: packets that were delayed or doubled on the way
/// come among new ones.
void ReorderBuffer::restarted_behind(const RtpPacket& packet, double now, std::vector<Ordered>& out) {
    const int following = (packet.sequence_number + 1) % modulus;
    if (!old_run_ || old_run_->expected != expected_ || old_run_->following != packet.sequence_number) {
        old_run_ = OldRun{expected_, following, 1, now};
        return;
    }
    old_run_->following = following;
    ++old_run_->packets;
    if (old_run_->packets < restart_packets || now - old_run_->since < max_window_s_) return;
    flush(out);
    ++restarts_;
    append_gap(out, 0, true);
    append_packet(out, packet);
    expected_ = following;
    has_suspect_ = false;
    old_run_.reset();
    given_up_.clear();
}

void ReorderBuffer::give_up(int first, int count, double when) {
    if (given_up_.size() >= max_given_up) given_up_.erase(given_up_.begin());
    given_up_.push_back({first, count, when});
}

void ReorderBuffer::drain(std::vector<Ordered>& out) {
    while (held_ != 0 && is_held(expected_)) {
        release(slot_of(expected_), out);
        expected_ = (expected_ + 1) % modulus;
    }
}

void ReorderBuffer::expire(double now, std::vector<Ordered>& out) {
    while (held_ != 0) {
        const double oldest = slots_[static_cast<std::size_t>(oldest_)].at;
        if (now < oldest + window_s_ && held_ < max_packets_) return;
        skip(out, now);
    }
}

/// Give up what is missing before the first packet that waits.
void ReorderBuffer::skip(std::vector<Ordered>& out, std::optional<double> now) {
    int missing = 0;
    while (missing < modulus && !is_held((expected_ + missing) % modulus)) ++missing;
    const int first = (expected_ + missing) % modulus;
    if (missing != 0) {
        lost_ += static_cast<std::uint64_t>(missing);
        append_gap(out, missing, false);
        if (now) give_up(expected_, missing, *now);
    }
    expected_ = first;
    drain(out);
}

bool ReorderBuffer::is_held(int sequence_number) const noexcept {
    if (slots_.empty()) return false;
    const Held& held = slots_[slot_of(sequence_number)];
    return held.used && held.packet.sequence_number == sequence_number;
}

void ReorderBuffer::hold(const RtpPacket& packet, double now, std::size_t ahead) {
    // All that wait lie within as many places as there are slots, so no two want the same one.
    if (ahead >= slots_.size()) grow(std::max(least_slots, std::bit_ceil(ahead + 1)));
    Held held;
    held.storage = Buffer::copy_of(packet.datagram);
    held.packet = moved_to(packet, held.storage);
    held.at = now;
    place(std::move(held));
    ++held_;
}

/// Put a packet into its slot, as the latest.
void ReorderBuffer::place(Held&& held) {
    const std::size_t slot = slot_of(held.packet.sequence_number);
    const auto index = static_cast<std::int32_t>(slot);
    held.used = true;
    held.before = newest_;
    held.behind = -1;
    if (newest_ >= 0) slots_[static_cast<std::size_t>(newest_)].behind = index;
    if (oldest_ < 0) oldest_ = index;
    newest_ = index;
    slots_[slot] = std::move(held);
}

void ReorderBuffer::grow(std::size_t slot_count) {
    std::vector<Held> former(slot_count);
    former.swap(slots_);
    newest_ = -1;
    for (std::int32_t index = std::exchange(oldest_, -1); index >= 0;) {
        Held& held = former[static_cast<std::size_t>(index)];
        index = held.behind;
        place(std::move(held));
    }
}

void ReorderBuffer::release(std::size_t slot, std::vector<Ordered>& out) {
    Held& held = slots_[slot];
    append_packet(out, held.packet);
    out.back().storage = std::move(held.storage);
    held.used = false;
    if (held.before >= 0) {
        slots_[static_cast<std::size_t>(held.before)].behind = held.behind;
    } else {
        oldest_ = held.behind;
    }
    if (held.behind >= 0) {
        slots_[static_cast<std::size_t>(held.behind)].before = held.before;
    } else {
        newest_ = held.before;
    }
    --held_;
    if (held_ == 0 && slots_.size() > kept_slots) std::vector<Held>().swap(slots_);
}

}  // namespace gb28181
