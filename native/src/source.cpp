#include "gb28181/source.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

namespace gb28181 {
namespace {

constexpr int latch_packets = 2;
constexpr int switch_packets = 8;
constexpr unsigned forward_limit = 2000;
/// A packet that is older than this belongs to another sequence and not to a reordering of this one.
constexpr unsigned backward_limit = 512;
/// Consecutive, seen from a network that reorders.
constexpr unsigned near = 16;
/// Packets that may be lost within a run that shall take the stream over.
constexpr unsigned run_gap = 256;
constexpr double refused_s = 10.0;
constexpr std::size_t max_candidates = 4;
constexpr double candidate_idle_s = 1.0;
constexpr std::size_t max_refused = 256;
constexpr std::size_t max_held = 64;
constexpr std::size_t max_held_bytes = std::size_t{1} << 20;
constexpr int conflict_per_s = 10;
constexpr std::size_t max_agreed = 4;
constexpr std::size_t max_mismatches = 16;
constexpr std::array<std::uint8_t, 12> mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

unsigned step_of(std::uint16_t later, std::uint16_t earlier) noexcept {
    return (static_cast<unsigned>(later) - earlier) & 0xFFFF;
}

bool same_bits(const IpAddress& one, const IpAddress& other, int count) noexcept {
    const auto whole = static_cast<std::size_t>(count / 8);
    if (std::memcmp(one.bytes.data(), other.bytes.data(), whole) != 0) return false;
    const int rest = count % 8;
    if (rest == 0) return true;
    const unsigned mask = 0xFF00U >> rest & 0xFFU;
    return ((one.bytes[whole] ^ other.bytes[whole]) & mask) == 0;
}

/// The address as it is written: a mapped one stays IPv6.
std::optional<IpAddress> read_address(std::string_view text) {
    const std::string terminated(text);
    in_addr four{};
    if (inet_pton(AF_INET, terminated.c_str(), &four) == 1) return IpAddress::v4(ntohl(four.s_addr));
    in6_addr six{};
    if (inet_pton(AF_INET6, terminated.c_str(), &six) != 1) return std::nullopt;
    IpAddress address;
    address.is_v6 = true;
    std::memcpy(address.bytes.data(), &six, address.bytes.size());
    return address;
}

/// The length of a network's prefix, written as a number or as a mask of IPv4; -1 for anything else.
int read_prefix(std::string_view text, bool is_v6) {
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char one) { return one >= '0' && one <= '9'; });
    if (digits) {
        int prefix = -1;
        const auto read = std::from_chars(text.data(), text.data() + text.size(), prefix);
        return read.ec == std::errc{} && prefix <= (is_v6 ? 128 : 32) ? prefix : -1;
    }
    const std::optional<IpAddress> mask = is_v6 ? std::nullopt : read_address(text);
    if (!mask || mask->is_v6) return -1;
    std::uint32_t bits = 0;
    for (std::size_t index = 0; index < 4; ++index) bits = bits << 8 | mask->bytes[index];
    if (std::countl_one(bits) + std::countr_zero(bits) == 32) return std::countl_one(bits);
    if (bits == 0) return 0;
    if (bits == 0xFFFFFFFF) return 32;
    // The mask of the hosts.
    return std::countl_zero(bits) + std::countr_one(bits) == 32 ? std::countl_zero(bits) : -1;
}

}  // namespace

// -------------------------------------------------------------- addresses

IpAddress IpAddress::v4(std::uint32_t host_order) noexcept {
    IpAddress address;
    for (std::size_t index = 0; index < 4; ++index) {
        address.bytes[index] = static_cast<std::uint8_t>(host_order >> (24 - 8 * index));
    }
    return address;
}

IpAddress IpAddress::v6(const std::array<std::uint8_t, 16>& bytes, std::uint32_t scope) noexcept {
    IpAddress address;
    if (std::equal(mapped.begin(), mapped.end(), bytes.begin())) {
        std::copy(bytes.begin() + 12, bytes.end(), address.bytes.begin());
        return address;
    }
    address.bytes = bytes;
    address.is_v6 = true;
    address.scope = scope;
    return address;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
    const std::optional<IpAddress> address = read_address(text);
    return address && address->is_v6 ? v6(address->bytes) : address;
}

std::string IpAddress::text() const {
    std::array<char, INET6_ADDRSTRLEN + 1> text{};
    if (inet_ntop(is_v6 ? AF_INET6 : AF_INET, bytes.data(), text.data(), text.size()) == nullptr) return {};
    return scope != 0 ? std::string(text.data()) + "%" + std::to_string(scope) : std::string(text.data());
}

std::string Source::text() const {
    const std::string address = host.text();
    return (host.is_v6 ? "[" + address + "]:" : address + ":") + std::to_string(port);
}

// Mapped addresses stay what they are here: a network of all mapped ones is not a network of all IPv4 ones.
HostSet::HostSet(const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
        const std::size_t slash = text.find('/');
        const std::optional<IpAddress> address = read_address(std::string_view(text).substr(0, slash));
        if (!address) continue;
        if (slash == std::string::npos) {
            hosts_.push_back(*address);
            continue;
        }
        const int prefix = read_prefix(std::string_view(text).substr(slash + 1), address->is_v6);
        if (prefix >= 0) networks_.push_back({*address, prefix});
    }
}

bool HostSet::contains(const IpAddress& host) const noexcept {
    const auto is_host = [&](const IpAddress& known) { return known.is_v6 == host.is_v6 && known.bytes == host.bytes; };
    if (std::any_of(hosts_.begin(), hosts_.end(), is_host)) return true;
    return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
        return network.address.is_v6 == host.is_v6 && same_bits(network.address, host, network.prefix);
    });
}

std::string_view ssrc_variant(std::uint32_t seen, const std::vector<std::uint32_t>& agreed) {
    if (seen == 0) return "zero";
    for (const std::uint32_t value : agreed) {
        if (seen == __builtin_bswap32(value)) return "byte_swapped";
        std::uint32_t as_hex = 0;  // the decimal digits read as hexadecimal ones
        std::uint32_t rest = value;
        for (unsigned place = 0; place < 8; ++place) {
            as_hex |= rest % 10 << 4 * place;
            rest /= 10;
        }
        if (seen == as_hex) return "read_as_hex";
    }
    return "other";
}

// ------------------------------------------------------------------- runs

SourceRule::Run::Run(const Arrival& packet)
    : ssrc(packet.ssrc),
      payload_type(packet.payload_type),
      sequence(packet.sequence),
      at(packet.now),
      recognised(packet.looks == Looks::recognised),
      held_bytes(packet.data.size()) {
    held.push_back(Buffer::copy_of(packet.data));
}

bool SourceRule::Run::goes_on(std::uint32_t other_ssrc, std::uint16_t other_sequence) const noexcept {
    if (other_ssrc != ssrc) return false;
    const unsigned step = step_of(other_sequence, sequence);
    return step <= near || step >= 0x10000 - near;
}

void SourceRule::Run::add(const Arrival& packet) {
    at = packet.now;
    const unsigned step = step_of(packet.sequence, sequence);
    if (step == 0) return;  // the network doubled it
    if (step < 0x8000) sequence = packet.sequence;
    ++count;
    recognised = recognised || packet.looks == Looks::recognised;
    held.push_back(Buffer::copy_of(packet.data));
    held_bytes += packet.data.size();
    std::size_t gone = 0;
    while (held.size() - gone > max_held || held_bytes > max_held_bytes) held_bytes -= held[gone++].size();
    held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(gone));
}

// ------------------------------------------- what the control plane tells

SourceRule::SourceRule(std::uint32_t ssrc, std::vector<int> payload_types, HostSet expected, bool strict)
    : agreed_{ssrc}, payload_types_(std::move(payload_types)), expected_(std::move(expected)), strict_(strict) {}

void SourceRule::agree(std::uint32_t ssrc) {
    if (agreed_.size() >= max_agreed) {
        agreed_ = {ssrc};
    } else if (!is_agreed(ssrc)) {
        agreed_.push_back(ssrc);
    }
}

void SourceRule::acknowledged(double now) {
    if (!acknowledged_at_) acknowledged_at_ = now;
}

void SourceRule::unlatch() {
    source_.reset();
    ssrc_.reset();
    by_grace_ = false;
    epoch_run_.reset();
    candidates_.clear();
    types_.clear();
}

void SourceRule::forget(const Source& source) { drop_candidate(source); }

bool SourceRule::expects(const Source& source) const noexcept {
    if (expected_.empty()) return !strict_;
    return expected_.contains(source.host);
}

// ---------------------------------------------------------------- packets

Verdict SourceRule::receive(double now, const Source& source, std::uint32_t ssrc, int payload_type,
                            std::uint16_t sequence, Looks looks, ByteView data) {
    const Arrival packet{now, source, ssrc, payload_type, sequence, looks, data};
    if (source_ && source == *source_) return from_latched(packet);
    if (looks == Looks::nothing) return drop(now);
    return source_ ? from_other(packet) : before_latch(packet);
}

Verdict SourceRule::from_latched(const Arrival& packet) {
    const unsigned step = step_of(packet.sequence, sequence_);
    if (packet.ssrc == ssrc_ && (step <= forward_limit || step >= 0x10000 - backward_limit)) {
        if (step <= forward_limit) sequence_ = packet.sequence;
        last_accepted_ = packet.now;
        if (epoch_run_ && (is_agreed(packet.ssrc) || !is_agreed(epoch_run_->ssrc))) epoch_run_.reset();
        candidates_.clear();
        return Verdict::accept;
    }
    if (packet.looks == Looks::nothing) return drop(packet.now);
    if (epoch_run_ && epoch_run_->goes_on(packet.ssrc, packet.sequence)) {
        epoch_run_->add(packet);
    } else {
        // Two SSRCs from one address are two senders behind one NAT, or an old session (MED-30): the locked one ends
        // the other's run by going on, unless the other is the one that was agreed.
        if (packet.ssrc != ssrc_) note_mismatch(packet.ssrc);
        epoch_run_.emplace(packet);
    }
    if (epoch_run_->count < switch_packets) return Verdict::hold;
    if (strict_ && !is_agreed(packet.ssrc)) {
        epoch_run_.reset();
        return drop(packet.now);
    }
    Run run = std::move(*epoch_run_);
    lock(packet.now, *source_, run);
    return Verdict::epoch;
}

Verdict SourceRule::before_latch(const Arrival& packet) {
    const bool expected = expects(packet.source);
    const bool fits = is_agreed(packet.ssrc);
    if (!fits) note_mismatch(packet.ssrc);
    if (!(strict_ ? expected && fits : expected || fits)) return drop(packet.now);
    Run* const run = candidate(packet);
    if (run == nullptr) return drop(packet.now);
    const bool known_type = is_payload_type(run->payload_type);
    if (run->count < latch_packets || !(run->recognised || (fits && known_type))) return Verdict::hold;
    if (!expected && !grace_is_over(packet.now)) return Verdict::hold;
    by_grace_ = !expected;
    Run chosen = std::move(*run);
    lock(packet.now, packet.source, chosen);
    return Verdict::latched;
}

Verdict SourceRule::from_other(const Arrival& packet) {
    count_foreign(packet.now);
    if (by_grace_ && is_agreed(packet.ssrc) && expects(packet.source)) {
        Run* const run = candidate(packet);
        if (run == nullptr) return Verdict::drop;
        if (run->count < latch_packets || !(run->recognised || is_payload_type(run->payload_type))) {
            return Verdict::hold;
        }
        by_grace_ = false;
        foreign_ -= run->count;
        Run chosen = std::move(*run);
        lock(packet.now, packet.source, chosen);
        return Verdict::taken_over;
    }
    if (strict_ && !expects(packet.source)) return Verdict::drop;
    return may_switch(packet);
}

/// Rule 4.
Verdict SourceRule::may_switch(const Arrival& packet) {
    const bool same_host = packet.source.host == source_->host;
    const RefusedKey key{packet.source.host, same_host ? packet.source.port : -1};
    const auto refused =
        std::find_if(refused_.begin(), refused_.end(), [&](const Refused& entry) { return entry.key == key; });
    if (refused != refused_.end()) {
        if (packet.now < refused->until) return Verdict::drop;
        refused_.erase(refused);
    }
    const double silent = packet.now - last_accepted_.value_or(0.0);
    Run* run = find_candidate(packet.source);
    const unsigned step = step_of(packet.sequence, run != nullptr ? run->sequence : sequence_);
    const bool is_type = std::find(types_.begin(), types_.end(), packet.payload_type) != types_.end();
    const bool goes_on = packet.ssrc == ssrc_ && is_type;
    if (goes_on && (step == 0 || step >= 0x10000 - near)) {
        return Verdict::drop;  // reordered or doubled on the way: tells nothing
    }
    if (!goes_on || step > (run == nullptr ? forward_limit : run_gap)) {
        drop_candidate(packet.source);
        refuse(packet.now, key);
        return Verdict::drop;
    }
    if (run == nullptr) {
        run = candidate(packet);
        if (run == nullptr) return Verdict::drop;
    } else {
        run->add(packet);
    }
    const bool is_near = same_host || (!expected_.empty() && expects(packet.source));
    if (run->count < switch_packets || silent < (is_near ? silent_same_host_s : silent_other_host_s)) {
        return Verdict::hold;
    }
    by_grace_ = by_grace_ && !expects(packet.source);
    foreign_ -= run->count;
    Run chosen = std::move(*run);
    lock(packet.now, packet.source, chosen);
    return Verdict::switched;
}

/// The run of a source with this packet added; nothing when too many sources try.
SourceRule::Run* SourceRule::candidate(const Arrival& packet) {
    Run* const run = find_candidate(packet.source);
    if (run != nullptr) {
        if (run->goes_on(packet.ssrc, packet.sequence)) {
            run->add(packet);
        } else {
            *run = Run(packet);
        }
        return run;
    }
    if (candidates_.size() >= max_candidates) {
        // Neither the dead nor strangers who came first may lock an expected address out.
        auto gone = std::find_if(candidates_.begin(), candidates_.end(), [&](const Candidate& other) {
            return packet.now - other.run.at > candidate_idle_s;
        });
        if (gone == candidates_.end() && expects(packet.source)) {
            gone = std::find_if(candidates_.begin(), candidates_.end(),
                                [&](const Candidate& other) { return !expects(other.source); });
        }
        if (gone == candidates_.end()) return nullptr;
        candidates_.erase(gone);
    }
    return &candidates_.emplace_back(Candidate{packet.source, Run(packet)}).run;
}

SourceRule::Run* SourceRule::find_candidate(const Source& source) noexcept {
    for (Candidate& candidate : candidates_) {
        if (candidate.source == source) return &candidate.run;
    }
    return nullptr;
}

void SourceRule::drop_candidate(const Source& source) {
    std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.source == source; });
}

/// Rule 1: the expected addresses had 2 s since the ACK and did not send anything that fits.
bool SourceRule::grace_is_over(double now) const {
    if (!acknowledged_at_ || now - *acknowledged_at_ < grace_s) return false;
    return std::none_of(candidates_.begin(), candidates_.end(),
                        [&](const Candidate& candidate) { return expects(candidate.source); });
}

void SourceRule::lock(double now, const Source& source, Run& run) {
    source_ = Source(source);
    ssrc_ = run.ssrc;
    sequence_ = run.sequence;
    last_accepted_ = now;
    types_ = payload_types_;
    if (!is_payload_type(run.payload_type)) types_.push_back(run.payload_type);
    held_ = std::move(run.held);
    epoch_run_.reset();
    candidates_.clear();
}

void SourceRule::refuse(double now, const RefusedKey& key) {
    if (refused_.size() >= max_refused) refused_.erase(refused_.begin());
    refused_.push_back({key, now + refused_s});
}

void SourceRule::note_mismatch(std::uint32_t ssrc) {
    if (is_agreed(ssrc) || mismatch_told_.size() >= max_mismatches) return;
    if (std::find(mismatch_told_.begin(), mismatch_told_.end(), ssrc) != mismatch_told_.end()) return;
    mismatch_told_.push_back(ssrc);
    mismatch_ = ssrc;
}

bool SourceRule::is_agreed(std::uint32_t ssrc) const noexcept {
    return std::find(agreed_.begin(), agreed_.end(), ssrc) != agreed_.end();
}

bool SourceRule::is_payload_type(int payload_type) const noexcept {
    return std::find(payload_types_.begin(), payload_types_.end(), payload_type) != payload_types_.end();
}

Verdict SourceRule::drop(double now) {
    count_foreign(now);
    return Verdict::drop;
}

void SourceRule::count_foreign(double now) {
    ++foreign_;
    const auto second = static_cast<std::int64_t>(now);
    if (second != conflict_second_) {
        conflict_second_ = second;
        conflict_count_ = 0;
    }
    ++conflict_count_;
    if (conflict_count_ == conflict_per_s + 1) conflict_ = true;
}

}  // namespace gb28181
