// What a receiver counts about one RTP source (RFC 3550 A.1, A.3, A.8).
#pragma once

#include <cstdint>

#include "gb28181/rtcp.hpp"

namespace gb28181 {

/// Sequence, loss and jitter of one SSRC.
///
/// A jump that the next packet confirms restarts the counting (MED-23). The first packet is believed at once: a
/// receiver that waits for a second one loses the start of a key frame.
class ReceptionStatistics {
public:
    explicit ReceptionStatistics(int clock_rate = 90000) noexcept : clock_rate_(clock_rate) {}

    /// Count a packet; `arrival` in monotonic seconds.
    void update(std::uint16_t sequence_number, std::uint32_t timestamp, double arrival) noexcept;
    /// Note a sender report (`SenderReport::middle_ntp`), so that the next receiver report can answer it.
    void sender_report(std::uint32_t middle_ntp, double arrival) noexcept;
    /// The block of the next receiver report; ends the interval of `fraction_lost`.
    [[nodiscard]] ReportBlock report_block(std::uint32_t ssrc, double now) noexcept;

    [[nodiscard]] double jitter_ms() const noexcept { return jitter_ * 1000 / clock_rate_; }

private:
    void restart(std::uint16_t sequence_number) noexcept;
    /// Packets that the sequence numbers call for, since the last restart.
    [[nodiscard]] std::int64_t expected() const noexcept {
        return epoch_received_ != 0 ? cycles_ + highest_ - base_ + 1 : 0;
    }

    int clock_rate_;
    std::int32_t suspect_ = -1;
    std::int64_t base_ = 0;
    std::int64_t highest_ = 0;
    std::int64_t cycles_ = 0;
    std::int64_t epoch_received_ = 0;
    std::int64_t expected_before_ = 0;
    std::int64_t received_before_ = 0;
    bool has_transit_ = false;
    double transit_ = 0.0;
    double jitter_ = 0.0;
    std::uint32_t report_middle_ = 0;
    double report_arrival_ = 0.0;
};

}  // namespace gb28181
