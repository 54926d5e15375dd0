// RTCP (RFC 3550 6), as far as a receiver needs it: sender reports are read, a receiver report with SDES is written
// (devices stop without one, MED-31).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace gb28181 {

/// What a receiver says about one source (RFC 3550 6.4.1).
struct ReportBlock {
    std::uint32_t ssrc = 0;
    /// 1/256 of the packets expected since the last report.
    std::uint8_t fraction_lost = 0;
    /// Signed, 24 bits.
    std::int32_t cumulative_lost = 0;
    std::uint32_t extended_highest_sequence_number = 0;
    /// In units of the RTP timestamp.
    std::uint32_t interarrival_jitter = 0;
    /// Middle 32 bits of the NTP time of the last sender report; 0 none.
    std::uint32_t last_sender_report = 0;
    /// In 1/65536 s.
    std::uint32_t delay_since_last_sender_report = 0;
};

struct SenderReport {
    std::uint32_t ssrc = 0;
    /// 64 bits, 32.32 fixed point since 1900.
    std::uint64_t ntp_time = 0;
    std::uint32_t rtp_timestamp = 0;

    /// What a receiver returns as `last_sender_report`.
    [[nodiscard]] std::uint32_t middle_ntp() const noexcept { return static_cast<std::uint32_t>(ntp_time >> 16U); }
};

/// The sender reports of a compound packet; nothing when any part of it cannot be read.
[[nodiscard]] std::optional<std::vector<SenderReport>> parse_sender_reports(std::span<const std::uint8_t> data);

/// Compound of a receiver report with one block and an SDES CNAME (RFC 3550 6.1).
[[nodiscard]] std::vector<std::uint8_t> build_receiver_report(std::uint32_t ssrc, const ReportBlock& block,
                                                              std::string_view cname);

}  // namespace gb28181
