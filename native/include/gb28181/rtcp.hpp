// RTCP (RFC 3550 6): a receiver reads sender reports and writes a receiver report with SDES (devices stop without one,
// MED-31); a sender reads what receivers report of it and writes sender reports.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "gb28181/bytes.hpp"

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

/// What others report of `ssrc` in the sender and receiver reports of a compound packet: the last block, if any.
/// `readable` false: a part of the packet could not be read, and nothing of it is believed.
struct ReportOf {
    bool readable = false;
    std::optional<ReportBlock> block;
};
[[nodiscard]] ReportOf parse_report_of(std::span<const std::uint8_t> data, std::uint32_t ssrc);

/// What a sender says of itself (RFC 3550 6.4.1).
struct SenderFacts {
    std::uint32_t ssrc = 0;
    /// 64 bits, 32.32 fixed point since 1900.
    std::uint64_t ntp_time = 0;
    std::uint32_t rtp_timestamp = 0;
    std::uint32_t packet_count = 0;
    std::uint32_t octet_count = 0;
};

/// 64-bit NTP time of a Unix time.
[[nodiscard]] std::uint64_t ntp_time(double wall_s) noexcept;

/// Compound of a sender report without blocks and an SDES CNAME.
[[nodiscard]] std::vector<std::uint8_t> build_sender_report(const SenderFacts& facts, std::string_view cname);

/// Compound that ends a source: an empty receiver report, SDES and BYE (RFC 3550 6.6).
[[nodiscard]] std::vector<std::uint8_t> build_goodbye(std::uint32_t ssrc, std::string_view cname);

/// Compound of a receiver report with one block and an SDES CNAME (RFC 3550 6.1).
[[nodiscard]] std::vector<std::uint8_t> build_receiver_report(std::uint32_t ssrc, const ReportBlock& block,
                                                              std::string_view cname);

}  // namespace gb28181
