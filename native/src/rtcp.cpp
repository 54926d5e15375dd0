#include "gb28181/rtcp.hpp"

#include <algorithm>

namespace gb28181 {
namespace {

constexpr unsigned sender_report = 200;
constexpr unsigned receiver_report = 201;
constexpr unsigned source_description = 202;
constexpr unsigned goodbye = 203;
constexpr std::uint8_t cname_item = 1;
constexpr std::size_t block_size = 24;

std::uint32_t read_u32(std::span<const std::uint8_t> data, std::size_t at) {
    return static_cast<std::uint32_t>(data[at]) << 24U | static_cast<std::uint32_t>(data[at + 1]) << 16U |
                  static_cast<std::uint32_t>(data[at + 2]) << 8U | static_cast<std::uint32_t>(data[at + 3]);
}

void write_u32(std::vector<std::uint8_t>& out, std::uint32_t value) {
    for (unsigned shift = 32; shift > 0; shift -= 8) {
        out.push_back(static_cast<std::uint8_t>(value >> (shift - 8)));
    }
}

void write_head(std::vector<std::uint8_t>& out, unsigned count, unsigned type, std::size_t words) {
    out.push_back(static_cast<std::uint8_t>(0x80U | count));
    out.push_back(static_cast<std::uint8_t>(type));
    out.push_back(static_cast<std::uint8_t>(words >> 8U));
    out.push_back(static_cast<std::uint8_t>(words & 0xFFU));
}

bool descriptions_fit(std::span<const std::uint8_t> data, std::size_t position, unsigned count, std::size_t end) {
    for (unsigned index = 0; index < count; ++index) {
        if (position + 4 > end) {
            return false;
        }
        position += 4;
        while (position < end && data[position] != 0) {
            if (position + 2 > end || position + 2 + data[position + 1] > end) {
                return false;
            }
            position += 2U + data[position + 1];
        }
        position = (position / 4 + 1) * 4;  // the null item and padding to a 32-bit boundary
    }
    return true;
}

/// Calls `on_report(type, body, blocks, count)` for each sender and receiver report of a compound: where it begins
/// behind its head, where its blocks begin, how many. False: a part cannot be read.
template <class OnReport>
bool walk(std::span<const std::uint8_t> data, OnReport&& on_report) {
    std::size_t position = 0;
    while (position < data.size()) {
        if (position + 4 > data.size() || data[position] >> 6U != 2) return false;
        const unsigned first = data[position];
        const unsigned type = data[position + 1];
        const std::size_t words = static_cast<std::size_t>(data[position + 2]) << 8U | data[position + 3];
        std::size_t end = position + 4 * (words + 1);
        if (end > data.size()) return false;
        const std::size_t following = end;
        if ((first & 0x20U) != 0) {
            const std::size_t padding = data[end - 1];
            if (padding == 0 || padding > end - position - 4) return false;
            end -= padding;
        }
        const unsigned count = first & 0x1FU;
        const std::size_t body = position + 4;
        if (type == sender_report) {
            if (body + block_size > end || body + block_size + block_size * count > end) return false;
            on_report(type, body, body + block_size, count);
        } else if (type == receiver_report) {
            if (body + 4 > end || body + 4 + block_size * count > end) return false;
            on_report(type, body, body + 4, count);
        } else if (type == source_description) {
            if (!descriptions_fit(data, body, count, end)) return false;
        } else if (type == goodbye && body + 4U * count > end) {
            return false;
        }
        position = following;
    }
    return true;
}

void write_cname(std::vector<std::uint8_t>& out, std::uint32_t ssrc, std::string_view cname) {
    cname = cname.substr(0, 255);
    const std::size_t plain = 6 + cname.size();
    const std::size_t padded = plain + 4 - plain % 4;  // at least the null item
    write_head(out, 1, source_description, padded / 4);
    write_u32(out, ssrc);
    out.push_back(cname_item);
    out.push_back(static_cast<std::uint8_t>(cname.size()));
    out.insert(out.end(), cname.begin(), cname.end());
    out.insert(out.end(), padded - plain, 0);
}

}  // namespace

std::optional<std::vector<SenderReport>> parse_sender_reports(std::span<const std::uint8_t> data) {
    std::vector<SenderReport> found;
    const bool readable = walk(data, [&](unsigned type, std::size_t body, std::size_t, unsigned) {
        if (type != sender_report) return;
        SenderReport report;
        report.ssrc = read_u32(data, body);
        report.ntp_time = static_cast<std::uint64_t>(read_u32(data, body + 4)) << 32U | read_u32(data, body + 8);
        report.rtp_timestamp = read_u32(data, body + 12);
        found.push_back(report);
    });
    if (!readable) return std::nullopt;
    return found;
}

ReportOf parse_report_of(std::span<const std::uint8_t> data, std::uint32_t ssrc) {
    ReportOf found;
    found.readable = walk(data, [&](unsigned, std::size_t, std::size_t blocks, unsigned count) {
        for (unsigned index = 0; index < count; ++index) {
            const std::size_t at = blocks + block_size * index;
            if (read_u32(data, at) != ssrc) continue;
            const std::uint32_t loss = read_u32(data, at + 4);
            ReportBlock block;
            block.ssrc = ssrc;
            block.fraction_lost = static_cast<std::uint8_t>(loss >> 24U);
            block.cumulative_lost = static_cast<std::int32_t>(loss << 8U) >> 8;  // 24 bits with a sign
            block.extended_highest_sequence_number = read_u32(data, at + 8);
            block.interarrival_jitter = read_u32(data, at + 12);
            block.last_sender_report = read_u32(data, at + 16);
            block.delay_since_last_sender_report = read_u32(data, at + 20);
            found.block = block;
        }
    });
    if (!found.readable) found.block.reset();
    return found;
}

std::uint64_t ntp_time(double wall_s) noexcept {
    constexpr double epoch_s = 2'208'988'800.0;  // from 1900 to 1970
    return static_cast<std::uint64_t>((wall_s + epoch_s) * 4294967296.0);
}

std::vector<std::uint8_t> build_sender_report(const SenderFacts& facts, std::string_view cname) {
    std::vector<std::uint8_t> out;
    out.reserve(64);
    write_head(out, 0, sender_report, 6);
    write_u32(out, facts.ssrc);
    write_u32(out, static_cast<std::uint32_t>(facts.ntp_time >> 32U));
    write_u32(out, static_cast<std::uint32_t>(facts.ntp_time));
    write_u32(out, facts.rtp_timestamp);
    write_u32(out, facts.packet_count);
    write_u32(out, facts.octet_count);
    write_cname(out, facts.ssrc, cname);
    return out;
}

std::vector<std::uint8_t> build_receiver_report(std::uint32_t ssrc, const ReportBlock& block,
                                                                                                std::string_view cname) {
    std::vector<std::uint8_t> out;
    out.reserve(64);
    write_head(out, 1, receiver_report, 7);
    write_u32(out, ssrc);
    write_u32(out, block.ssrc);
    write_u32(out, static_cast<std::uint32_t>(block.fraction_lost) << 24U |
                                          (static_cast<std::uint32_t>(std::clamp(block.cumulative_lost, -0x800000, 0x7FFFFF)) & 0xFFFFFFU));
    write_u32(out, block.extended_highest_sequence_number);
    write_u32(out, block.interarrival_jitter);
    write_u32(out, block.last_sender_report);
    write_u32(out, block.delay_since_last_sender_report);
    write_cname(out, ssrc, cname);
    return out;
}

std::vector<std::uint8_t> build_goodbye(std::uint32_t ssrc, std::string_view cname) {
    std::vector<std::uint8_t> out;
    write_head(out, 0, receiver_report, 1);
    write_u32(out, ssrc);
    write_cname(out, ssrc, cname);
    write_head(out, 1, goodbye, 1);
    write_u32(out, ssrc);
    return out;
}

}  // namespace gb28181
