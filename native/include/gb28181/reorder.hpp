// Puts the packets of one SSRC back into order (MED-23, MED-24).
//
// A packet that comes early waits for the missing ones, for at most the window and 512 packets; then the missing are
// given up and a gap stands in the result. The window begins at 200 ms and grows to 500 when packets come just too
// late, and shrinks again after half a minute in which the path kept order. Order is by sequence number alone;
// timestamps prove nothing (MED-20). For UDP: bytes that come over one TCP connection are in order already (a window
// of 0 then turns a missing number into a gap at once).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/rtp.hpp"

namespace gb28181 {

/// What may go on: a packet, or the news that packets are missing here.
struct Ordered {
    bool is_gap = false;
    /// Of a gap: how many are missing; 0 where the device began a new sequence and nobody knows.
    int lost = 0;
    /// Of a gap: the sequence numbers begin anew (MED-23), a new epoch of the same source.
    bool restart = false;
    RtpPacket packet;
    /// Keeps the bytes of a packet that waited; empty for the one just pushed, whose bytes are the caller's.
    Buffer storage;
};

/// Packets in, packets and gaps in order out. One per SSRC. Packets that must wait are copied.
class ReorderBuffer {
public:
    explicit ReorderBuffer(double window_s = 0.2, double max_window_s = 0.5, std::size_t max_packets = 512);

    /// Take a packet that arrived at `now`; appends what can go on.
    void push(const RtpPacket& packet, double now, std::vector<Ordered>& out);
    /// The packet is the next one and nothing waits: taken, and the caller goes on with it. Else nothing happened
    /// and it must be pushed. Spares the ordinary packet the way through `out`.
    [[nodiscard]] bool pass(const RtpPacket& packet) noexcept {
        if (held_ != 0 || packet.sequence_number != expected_) return false;
        expected_ = (expected_ + 1) & 0xFFFF;
        has_suspect_ = false;
        return true;
    }
    /// Give up what has been missing for longer than the window.
    void poll(double now, std::vector<Ordered>& out);
    /// Everything that waits, in order, with its gaps.
    void flush(std::vector<Ordered>& out);
    /// When `poll` will give something up; empty: nothing waits.
    [[nodiscard]] std::optional<double> deadline() const noexcept;

    /// Packets that wait.
    [[nodiscard]] std::size_t held() const noexcept { return held_; }
    /// Now in force.
    [[nodiscard]] double window_s() const noexcept { return window_s_; }
    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_; }
    /// Packets that came early or out of turn and were put right.
    [[nodiscard]] std::uint64_t reordered() const noexcept { return reordered_; }
    [[nodiscard]] std::uint64_t duplicated() const noexcept { return duplicated_; }
    /// Packets that came after they had been given up; they count as lost as well.
    [[nodiscard]] std::uint64_t late() const noexcept { return late_; }
    [[nodiscard]] std::uint64_t restarts() const noexcept { return restarts_; }

private:
    struct Held {
        RtpPacket packet;
        Buffer storage;
        double at = 0.0;
        std::int32_t before = -1;  // slots, in order of arrival
        std::int32_t behind = -1;
        bool used = false;
    };
    struct GivenUp {
        int first = 0;
        int count = 0;
        double when = 0.0;
    };

    /// Old numbers in a row, while nothing else came.
    struct OldRun {
        std::int32_t expected = 0;  // when it began; a new packet changes that and thereby ends the run
        int following = 0;
        int packets = 0;
        double since = 0.0;
    };

    void out_of_turn(const RtpPacket& packet, double now, std::vector<Ordered>& out);
    void confirm(const RtpPacket& packet, std::vector<Ordered>& out);
    void behind(int sequence_number, double now);
    void restarted_behind(const RtpPacket& packet, double now, std::vector<Ordered>& out);
    void drain(std::vector<Ordered>& out);
    void expire(double now, std::vector<Ordered>& out);
    void skip(std::vector<Ordered>& out, std::optional<double> now);
    void hold(const RtpPacket& packet, double now, std::size_t ahead);
    void place(Held&& held);
    void grow(std::size_t slot_count);
    [[nodiscard]] bool is_held(int sequence_number) const noexcept;
    void release(std::size_t slot, std::vector<Ordered>& out);
    void give_up(int first, int count, double when);
    [[nodiscard]] std::size_t slot_of(int sequence_number) const noexcept {
        return static_cast<std::size_t>(sequence_number) & (slots_.size() - 1);
    }

    double window_s_;
    double least_window_s_;
    double max_window_s_;
    std::size_t max_packets_;
    std::int32_t expected_ = -1;
    std::size_t held_ = 0;
    std::int32_t oldest_ = -1;
    std::int32_t newest_ = -1;
    bool has_suspect_ = false;
    double last_trouble_ = 0.0;
    std::vector<Held> slots_;  // a power of two of them, as many as were needed
    std::vector<GivenUp> given_up_;
    std::optional<OldRun> old_run_;
    RtpPacket suspect_;
    Buffer suspect_storage_;
    std::uint64_t lost_ = 0;
    std::uint64_t reordered_ = 0;
    std::uint64_t duplicated_ = 0;
    std::uint64_t late_ = 0;
    std::uint64_t restarts_ = 0;
};

}  // namespace gb28181
