#include "gb28181/rfc4571.hpp"

#include <algorithm>
#include <array>

#include "gb28181/rtp.hpp"

namespace gb28181 {
namespace {

/// RFC 3550 A.1 MAX_DROPOUT: how far a sequence number may be from the last to be believed.
constexpr unsigned max_sequence_step = 3000;
constexpr std::size_t ehome_header = 256;
constexpr std::size_t rtcp_minimum = 8;
constexpr std::uint8_t dollar = 0x24;

bool is_rtcp_type(std::uint8_t second) noexcept { return second >= 200 && second <= 204; }

bool plausible_head(ByteView buffer, std::size_t start, std::size_t length) noexcept {
    if (buffer[start] >> 6 != 2) return false;
    return length >= (is_rtcp_type(buffer[start + 1]) ? rtcp_minimum : rtp_header_size);
}

/// An RTP or RTCP packet may start here; its length stands in the two bytes before.
bool plausible(ByteView buffer, std::size_t start) noexcept {
    return plausible_head(buffer, start, buffer.u16(start - 2));
}

}  // namespace

bool Framer::feed(ByteView data, std::vector<Framed>& out) {
    ByteView buffer = data;
    const bool joined = buffered() != 0;
    if (joined) {
        // What waits is moved at most once, however small the pieces are in which the rest comes.
        if (consumed_ != 0) settle();
        buffer_.append(data);
        buffer = buffer_.view();
    } else {
        buffer_.release();
    }
    consumed_ = 0;

    std::size_t position = 0;
    bool waiting = false;
    if (framing_ == Framing::unknown) {
        const std::optional<std::size_t> start = sniff(buffer);
        waiting = !start;
        position = start.value_or(0);
    }
    while (!waiting) {
        if (searching_) {
            const Found found = search(buffer, position);
            const std::size_t passed = found.position - position;
            skipped_bytes_ += passed;
            searched_ += passed;
            position = found.position;
            if (searched_ > resync_limit) return false;
            if (!found.found) break;
            searching_ = false;
            searched_ = 0;
            out.emplace_back();
        }
        const std::optional<std::size_t> following = take(buffer, position, out);
        if (following) {
            position = *following;
        } else if (!searching_) {
            break;
        }
    }
    if (joined) {
        consumed_ = position;
    } else if (position < buffer.size()) {
        buffer_.append(buffer.from(position));
    }
    return true;
}

void Framer::settle() {
    if (buffered() == 0) {
        buffer_.release();
        consumed_ = 0;
        return;
    }
    if (consumed_ == 0) return;
    ByteBuilder rest(buffered());
    rest.append(buffer_.view().from(consumed_));
    buffer_ = std::move(rest);
    consumed_ = 0;
}

/// Decide the dialect; answers where the first frame starts, nothing for more bytes.
std::optional<std::size_t> Framer::sniff(ByteView buffer) {
    std::size_t start = 0;
    if (buffer.size() < 16) return std::nullopt;
    if (buffer[0] == 1 && buffer[1] == 0 && !plausible(buffer, 2)) {
        // MED-28: the vendor's own stream header, 256 bytes, then the packets.
        if (buffer.size() < ehome_header + 16) return std::nullopt;
        quirks_.add(Quirk::rtp_ehome_header);
        start = ehome_header;
    }
    if (buffer[start] == dollar && !plausible(buffer, start + 2) && plausible(buffer, start + 4)) {
        framing_ = Framing::interleaved;
        quirks_.add(Quirk::rtp_interleaved_framing);  // MED-26
        header_ = 4;
    } else {
        framing_ = Framing::length;
    }
    return start;
}

/// May a frame start at `position`?
Framer::Judgement Framer::judge(ByteView buffer, std::size_t position) const {
    const std::size_t start = position + header_;
    const std::size_t size = buffer.size();
    if (start > size) return Judgement::more;
    if (header_ == 4 && buffer[position] != dollar) return Judgement::no;
    const std::size_t length = buffer.u16(start - 2);
    if (length == 0) return Judgement::yes;  // RFC 4571 2: a null packet
    if (start + 2 > size) return Judgement::more;
    if (!plausible_head(buffer, start, length)) return Judgement::no;
    if (is_rtcp_type(buffer[start + 1])) return Judgement::yes;
    if (start + rtp_header_size > size) return Judgement::more;
    const std::uint32_t ssrc = buffer.u32(start + 8);
    const std::optional<std::uint32_t> known = known_ssrc();
    if (!known || ssrc == *known) return Judgement::yes;
    // Another SSRC: a new source, or bytes that only look like a header. The frame after it tells.
    const std::size_t following = start + length + header_;
    if (following + rtp_header_size > size) return Judgement::more;
    const std::uint32_t next = buffer.u32(following + 8);
    return buffer[following] >> 6 == 2 && (next == ssrc || next == *known) ? Judgement::yes : Judgement::no;
}

/// Deliver the frame at `position`; answers where the next starts. Nothing: more bytes are needed, or (`searching_`
/// set) the framing is lost from `position` on.
std::optional<std::size_t> Framer::take(ByteView buffer, std::size_t position, std::vector<Framed>& out) {
    const Judgement judgement = judge(buffer, position);
    if (judgement == Judgement::more) return std::nullopt;
    if (judgement == Judgement::yes) {
        const std::size_t start = position + header_;
        const std::size_t length = buffer.u16(start - 2);
        const std::size_t end = start + length;
        // A wrong length may hide here for up to 64 kB; what follows it tells when it is there.
        if (end > buffer.size()) return std::nullopt;
        if (length == 0) return end;
        if (judge(buffer, end) != Judgement::no) {
            const ByteView packet = buffer.slice(start, end);
            if (!is_rtcp_type(packet[1])) {
                ssrc_ = packet.u32(8);
                sequence_number_ = packet.u16(2);
            }
            out.push_back({packet});
            return end;
        }
    }
    searching_ = true;
    searched_ = 0;
    ++resyncs_;
    quirks_.add(Quirk::rtp_framing_lost);
    return std::nullopt;
}

/// Find the next frame behind `position`; not found: search again from the place given with more bytes.
Framer::Found Framer::search(ByteView buffer, std::size_t position) const {
    const std::optional<std::uint32_t> ssrc = known_ssrc();
    const std::size_t size = buffer.size();
    const std::size_t tail = header_ + rtp_header_size;
    const std::array<std::uint8_t, 4> wanted = {
        static_cast<std::uint8_t>(ssrc.value_or(0) >> 24), static_cast<std::uint8_t>(ssrc.value_or(0) >> 16),
        static_cast<std::uint8_t>(ssrc.value_or(0) >> 8), static_cast<std::uint8_t>(ssrc.value_or(0))};
    std::size_t candidate = position + 1;
    while (true) {
        // A frame's SSRC stands 8 bytes behind its length. Without a known SSRC look for version 2 alone.
        const std::size_t lead = ssrc ? header_ + 8 : header_;
        const std::size_t found = ssrc ? find(buffer, ByteView{wanted.data(), wanted.size()}, candidate + lead)
                                       : find_byte(buffer, 0x80, candidate + lead);
        if (found == npos) return {false, std::max(position, size > tail ? size - tail : 0)};
        candidate = found - lead;
        const std::size_t start = candidate + header_;
        if (start + rtp_header_size > size) return {false, candidate - 1};
        const std::size_t length = buffer.u16(start - 2);
        if ((header_ == 2 || buffer[candidate] == dollar) && length >= rtp_header_size &&
            plausible_head(buffer, start, length) && is_near(buffer, start)) {
            switch (judge(buffer, start + length)) {
                case Judgement::more: return {false, candidate - 1};  // the frame after it must confirm it
                case Judgement::yes: return {true, candidate};
                case Judgement::no: break;
            }
        }
        ++candidate;
    }
}

/// Sequence number within `max_sequence_step` of the last packet, if there was one.
bool Framer::is_near(ByteView buffer, std::size_t start) const {
    if (!ssrc_) return true;
    const unsigned step = (static_cast<unsigned>(buffer.u16(start + 2)) - sequence_number_) & 0xFFFF;
    return step <= max_sequence_step || step >= 0x10000 - max_sequence_step;
}

}  // namespace gb28181
