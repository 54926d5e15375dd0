// Whom to believe: the media source rule 4.2 as a pure state machine.
//
// Fed with what an RTP packet says and where it came from, it answers with a `Verdict`. It never looks at clocks or
// sockets and does not know what the packets carry; `looks` is the caller's opinion of the payload.
//
// The rule, in short (the numbers are those of the rule):
//
// 1. *Latch* on the first source whose two consecutive packets fit the SSRC and the payload type. Expected addresses
//    may latch at once; others, in mode nat only, when no expected one sent within 2 s of the ACK, and an expected one
//    that sends later takes over. Mode strict: expected addresses and SSRCs only.
// 2. An SSRC that was not agreed is accepted from an expected address once the payload was recognised (INV-03).
// 3. Other sources of a latched stream are dropped.
// 4. The source moves (REG-18, MED-33, fault row F-07) when the same SSRC and payload type go on elsewhere, forward by
//    at most 2,000 for 8 packets, after the old source fell silent.
// 5. A new SSRC or a jump of the sequence *from the latched source* begins a new epoch after 8 packets (MED-23).
//
// Beyond the rule, against injection during silence (threat S-06): an address whose first packet does not continue the
// sequence is refused for ten seconds, so sweeping through all sequence numbers does not find the window.
//
// Packets that are not decided yet are held, a bounded number of them, and come back with the verdict that accepts
// them: the first pack of a stream carries the first key frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/bytes.hpp"

namespace gb28181 {

/// An IPv4 or IPv6 address; an IPv4 address mapped into IPv6 is the IPv4 address.
struct IpAddress {
    std::array<std::uint8_t, 16> bytes{};  // IPv4 in the first four
    bool is_v6 = false;
    std::uint32_t scope = 0;

    bool operator==(const IpAddress&) const = default;

    [[nodiscard]] static IpAddress v4(std::uint32_t host_order) noexcept;
    /// Network order. Mapped IPv4 becomes IPv4.
    [[nodiscard]] static IpAddress v6(const std::array<std::uint8_t, 16>& bytes, std::uint32_t scope = 0) noexcept;
    /// A numeric address; nothing for anything else.
    [[nodiscard]] static std::optional<IpAddress> parse(std::string_view text);
    [[nodiscard]] std::string text() const;
};

/// Where a packet came from. Those of datagrams and of connections never compare equal.
struct Source {
    IpAddress host;
    std::uint16_t port = 0;
    /// 0: a datagram; else the number of the TCP connection.
    std::uint64_t connection = 0;

    bool operator==(const Source&) const = default;
    /// `ip:port`, for people.
    [[nodiscard]] std::string text() const;
};

/// Addresses, or networks in CIDR form; what is neither is left out.
class HostSet {
public:
    HostSet() = default;
    explicit HostSet(const std::vector<std::string>& texts);
    [[nodiscard]] bool empty() const noexcept { return hosts_.empty() && networks_.empty(); }
    [[nodiscard]] bool contains(const IpAddress& host) const noexcept;

private:
    struct Network {
        IpAddress address;
        int prefix;
    };
    std::vector<IpAddress> hosts_;
    std::vector<Network> networks_;
};

/// What becomes of a packet.
enum class Verdict : std::uint8_t {
    drop,
    /// Not decided; it comes back from `take_held` if its source is accepted.
    hold,
    accept,
    /// The source is believed now; `take_held` has its packets, this one included.
    latched,
    /// The same stream goes on from another address; `take_held` as above.
    switched,
    /// A new sequence or SSRC of the same source: flush, then `take_held`.
    epoch,
    /// An expected address replaces one that latched by grace: a new generation, then `take_held`.
    taken_over,
};

/// The caller's opinion of a payload.
enum class Looks : std::uint8_t {
    /// Empty, or no RTP of media.
    nothing,
    /// Could be the middle of anything.
    plausible,
    /// Begins as a pack, a PES or a NAL unit begins.
    recognised,
};

/// How an SSRC that was not agreed came about, as far as it is known (INV-03): "zero", "byte_swapped",
/// "read_as_hex", "other".
[[nodiscard]] std::string_view ssrc_variant(std::uint32_t seen, const std::vector<std::uint32_t>& agreed);

/// The decision for one receiver (rule 4.2). Owns no sockets and no time.
class SourceRule {
public:
    static constexpr double silent_same_host_s = 0.2;
    static constexpr double silent_other_host_s = 2.0;
    static constexpr double grace_s = 2.0;

    SourceRule(std::uint32_t ssrc, std::vector<int> payload_types, HostSet expected, bool strict);

    // What the control plane tells

    [[nodiscard]] const std::vector<std::uint32_t>& agreed() const noexcept { return agreed_; }
    /// The answer's `y=` (INV-02); the offered one stays good: some answer one and use the other.
    void agree(std::uint32_t ssrc);
    void expect(HostSet expected) { expected_ = std::move(expected); }
    void accept_payloads(std::vector<int> payload_types) { payload_types_ = std::move(payload_types); }
    /// The ACK was sent: the 2 s of rule 1 begin. Later calls change nothing.
    void acknowledged(double now);
    /// The latched TCP connection ended: the next source latches as the first one did.
    void unlatch();
    /// A source that cannot come back (a closed connection).
    void forget(const Source& source);

    // Packets

    /// Decide one RTP packet (RTCP is filtered before). What is held is copied.
    [[nodiscard]] Verdict receive(double now, const Source& source, std::uint32_t ssrc, int payload_type,
                                  std::uint16_t sequence, Looks looks, ByteView data);
    /// The packets that the last verdict accepted, in order of arrival.
    [[nodiscard]] std::vector<Buffer> take_held() { return std::exchange(held_, {}); }
    /// More than ten foreign packets came within a second since the last call.
    [[nodiscard]] bool take_conflict() noexcept { return std::exchange(conflict_, false); }
    /// An SSRC to report; each value once.
    [[nodiscard]] std::optional<std::uint32_t> take_mismatch() noexcept { return std::exchange(mismatch_, {}); }
    [[nodiscard]] bool has_conflict() const noexcept { return conflict_; }
    [[nodiscard]] bool has_mismatch() const noexcept { return mismatch_.has_value(); }
    /// May this address latch at once? With nothing known every address may, except in strict.
    [[nodiscard]] bool expects(const Source& source) const noexcept;
    [[nodiscard]] const HostSet& expected() const noexcept { return expected_; }
    [[nodiscard]] bool strict() const noexcept { return strict_; }
    /// A packet of an SSRC that cannot be told to belong here, on a port that several share.
    void refuse(double now, std::uint32_t ssrc) {
        note_mismatch(ssrc);
        count_foreign(now);
    }
    /// Something is known of where it will come from.
    [[nodiscard]] bool expects_some() const noexcept { return !expected_.empty(); }

    // Facts

    /// The latched source.
    [[nodiscard]] const std::optional<Source>& source() const noexcept { return source_; }
    /// The SSRC that is accepted now.
    [[nodiscard]] std::optional<std::uint32_t> ssrc() const noexcept { return ssrc_; }
    [[nodiscard]] std::optional<double> last_accepted() const noexcept { return last_accepted_; }
    /// Latched on an address that was not expected (rule 1, mode nat).
    [[nodiscard]] bool by_grace() const noexcept { return by_grace_; }
    [[nodiscard]] std::uint64_t foreign() const noexcept { return static_cast<std::uint64_t>(foreign_); }
    /// The highest sequence number accepted, modulo 2^16.
    [[nodiscard]] std::uint16_t sequence() const noexcept { return sequence_; }

private:
    /// One RTP packet as `receive` got it.
    struct Arrival {
        double now;
        const Source& source;
        std::uint32_t ssrc;
        int payload_type;
        std::uint16_t sequence;
        Looks looks;
        ByteView data;
    };
    /// Consecutive packets of one source and SSRC which are not accepted yet.
    struct Run {
        std::uint32_t ssrc = 0;
        int payload_type = 0;
        std::uint16_t sequence = 0;
        double at = 0.0;
        int count = 1;
        bool recognised = false;
        std::vector<Buffer> held;
        std::size_t held_bytes = 0;

        explicit Run(const Arrival& packet);
        [[nodiscard]] bool goes_on(std::uint32_t ssrc, std::uint16_t sequence) const noexcept;
        void add(const Arrival& packet);
    };
    struct Candidate {
        Source source;
        Run run;
    };
    /// A host, or one of its ports.
    struct RefusedKey {
        IpAddress host;
        std::int32_t port;  // -1: all
        bool operator==(const RefusedKey&) const = default;
    };
    struct Refused {
        RefusedKey key;
        double until;
    };

    [[nodiscard]] Verdict from_latched(const Arrival& packet);
    [[nodiscard]] Verdict before_latch(const Arrival& packet);
    [[nodiscard]] Verdict from_other(const Arrival& packet);
    [[nodiscard]] Verdict may_switch(const Arrival& packet);
    [[nodiscard]] Run* candidate(const Arrival& packet);
    [[nodiscard]] Run* find_candidate(const Source& source) noexcept;
    void drop_candidate(const Source& source);
    [[nodiscard]] bool grace_is_over(double now) const;
    void lock(double now, const Source& source, Run& run);
    void refuse(double now, const RefusedKey& key);
    void note_mismatch(std::uint32_t ssrc);
    [[nodiscard]] bool is_agreed(std::uint32_t ssrc) const noexcept;
    [[nodiscard]] bool is_payload_type(int payload_type) const noexcept;
    [[nodiscard]] Verdict drop(double now);
    void count_foreign(double now);

    std::vector<std::uint32_t> agreed_;
    std::vector<int> payload_types_;
    HostSet expected_;
    bool strict_;
    bool by_grace_ = false;
    bool conflict_ = false;
    std::uint16_t sequence_ = 0;
    std::optional<double> acknowledged_at_;
    std::optional<Source> source_;
    std::optional<std::uint32_t> ssrc_;
    std::optional<double> last_accepted_;
    std::vector<int> types_;
    std::vector<Candidate> candidates_;
    std::optional<Run> epoch_run_;
    std::vector<Refused> refused_;
    std::vector<Buffer> held_;
    std::int64_t foreign_ = 0;
    std::int64_t conflict_second_ = 0;
    int conflict_count_ = 0;
    std::optional<std::uint32_t> mismatch_;
    std::vector<std::uint32_t> mismatch_told_;
};

}  // namespace gb28181
