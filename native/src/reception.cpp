#include "gb28181/reception.hpp"

#include <algorithm>
#include <cmath>

namespace gb28181 {
namespace {

constexpr std::int64_t max_dropout = 3000;
constexpr std::int64_t max_misorder = 100;
constexpr std::int64_t modulus = 1 << 16;

}  // namespace

void ReceptionStatistics::update(std::uint16_t sequence_number, std::uint32_t timestamp, double arrival) noexcept {
    if (epoch_received_ == 0) {
        restart(sequence_number);
    } else {
        const std::int64_t step = (sequence_number - highest_ + modulus) % modulus;
        if (step > 0 && step < max_dropout) {
            if (sequence_number < highest_) {
                cycles_ += modulus;
            }
            highest_ = sequence_number;
            suspect_ = -1;
        } else if (step == 0 || step > modulus - max_misorder) {
            // doubled or late
        } else if (sequence_number == suspect_) {
            restart(sequence_number);
        } else {
            suspect_ = (sequence_number + 1) % static_cast<std::int32_t>(modulus);
            return;
        }
    }
    ++epoch_received_;
    // A.8, in units of the timestamp; a jump of the device's clock must not stay in the average for long.
    const double transit = arrival * clock_rate_ - timestamp;
    if (has_transit_) {
        constexpr double wrap = 4294967296.0;
        double difference = std::fmod(std::fabs(transit - transit_), wrap);
        difference = std::min(difference, wrap - difference);
        if (difference < clock_rate_) {
            jitter_ += (difference - jitter_) / 16;
        }
    }
    transit_ = transit;
    has_transit_ = true;
}

void ReceptionStatistics::restart(std::uint16_t sequence_number) noexcept {
    base_ = highest_ = sequence_number;
    cycles_ = 0;
    epoch_received_ = 0;
    suspect_ = -1;
    expected_before_ = 0;
    received_before_ = 0;
    has_transit_ = false;
}

void ReceptionStatistics::sender_report(std::uint32_t middle_ntp, double arrival) noexcept {
    report_middle_ = middle_ntp;
    report_arrival_ = arrival;
}

ReportBlock ReceptionStatistics::report_block(std::uint32_t ssrc, double now) noexcept {
    const std::int64_t interval = expected() - expected_before_;
    const std::int64_t lost = interval - (epoch_received_ - received_before_);
    expected_before_ = expected();
    received_before_ = epoch_received_;
    ReportBlock block;
    block.ssrc = ssrc;
    if (interval > 0 && lost > 0) {
        block.fraction_lost = static_cast<std::uint8_t>(std::min<std::int64_t>(255, lost * 256 / interval));
    }
    block.cumulative_lost =
            static_cast<std::int32_t>(std::clamp<std::int64_t>(expected() - epoch_received_, -0x800000, 0x7FFFFF));
    block.extended_highest_sequence_number = static_cast<std::uint32_t>(cycles_ + highest_);
    block.interarrival_jitter = static_cast<std::uint32_t>(std::min(jitter_, 4294967295.0));
    block.last_sender_report = report_middle_;
    if (report_middle_ != 0) {
        const double delay = std::round((now - report_arrival_) * 65536);
        block.delay_since_last_sender_report = static_cast<std::uint32_t>(std::clamp(delay, 0.0, 4294967295.0));
    }
    return block;
}

}  // namespace gb28181
