#include "gb28181/es_packetiser.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "gb28181/nal.hpp"

namespace gb28181 {
namespace {

constexpr std::size_t g711_samples = 160;  // 20 ms a packet, as 9.12 and RFC 3551 4.2 have it
constexpr std::uint32_t g711_clock = 8000;
constexpr std::uint8_t h264_fragment = 28;
constexpr std::uint8_t h265_fragment = 49;

/// FU-A (RFC 6184 5.8) or FU (RFC 7798 4.4.3): the unit's header is told in the fragment's two or three bytes.
void fragment(const Buffer& unit, bool is_end, Codec codec, std::uint32_t timestamp,
              const EsPacketiser::OnPiece& on_piece) {
    RtpPiece piece;
    piece.timestamp = timestamp;
    const std::uint8_t first = unit.data()[0];
    std::size_t own = 1;
    std::uint8_t kind = first & 0x1F;
    if (codec == Codec::h264) {
        piece.prefix[0] = static_cast<std::uint8_t>((first & 0xE0) | h264_fragment);
    } else {
        own = 2;
        kind = first >> 1 & 0x3F;
        piece.prefix[0] = static_cast<std::uint8_t>((first & 0x81) | h265_fragment << 1);
        piece.prefix[1] = unit.data()[1];
    }
    piece.prefix_size = static_cast<std::uint8_t>(own + 1);
    const std::size_t step = max_rtp_payload - piece.prefix_size;
    for (std::size_t start = own; start < unit.size(); start += step) {
        const bool is_last = start + step >= unit.size();
        piece.prefix[own] = static_cast<std::uint8_t>(kind | (start == own ? 0x80 : 0) | (is_last ? 0x40 : 0));
        piece.marker = is_last && is_end;
        piece.body = unit.slice(start, start + step);
        on_piece(piece);
    }
}

}  // namespace

bool is_packable(Codec codec) noexcept {
    return codec == Codec::h264 || codec == Codec::h265 || codec == Codec::aac || codec == Codec::pcma ||
           codec == Codec::pcmu;
}

std::uint32_t payload_clock(const Track& track) noexcept {
    if (is_video(track.codec)) return 90'000;
    return track.sample_rate > 0 ? static_cast<std::uint32_t>(track.sample_rate) : g711_clock;
}

void EsPacketiser::packetise(const Frame& frame, const Buffer& head, const OnPiece& on_piece) {
    const auto clock = static_cast<std::int64_t>(payload_clock(*frame.track));
    std::int64_t ticks = frame.pts_90k * clock / 90'000;
    if (frame.pts_90k < 0 && frame.pts_90k * clock % 90'000 != 0) --ticks;
    const auto timestamp = static_cast<std::uint32_t>(ticks);
    const Codec codec = frame.track->codec;
    if (is_video(codec)) {
        if (!head.empty()) video(head, false, codec, timestamp, on_piece);
        video(frame.payload, true, codec, timestamp, on_piece);
        return;
    }
    RtpPiece piece;
    piece.timestamp = timestamp;
    const std::size_t size = frame.payload.size();
    if (codec == Codec::aac) {
        // Mode AAC-hbr: one access unit a packet; a larger one in fragments with the header of the whole (3.2.3).
        const auto bits = static_cast<std::uint16_t>(size << 3);
        piece.prefix = {0x00, 0x10, static_cast<std::uint8_t>(bits >> 8), static_cast<std::uint8_t>(bits)};
        piece.prefix_size = 4;
        constexpr std::size_t step = max_rtp_payload - 4;
        for (std::size_t start = 0; start < size; start += step) {
            piece.marker = start + step >= size;
            piece.body = frame.payload.slice(start, start + step);
            on_piece(piece);
        }
        return;
    }
    for (std::size_t start = 0; start < size; start += g711_samples) {
        piece.timestamp = timestamp + static_cast<std::uint32_t>(start);
        piece.marker = !std::exchange(talking_, true);  // begins a talkspurt (RFC 3551 4.1): here the first packet
        piece.body = frame.payload.slice(start, start + g711_samples);
        on_piece(piece);
    }
}

void EsPacketiser::video(const Buffer& stream, bool is_end, Codec codec, std::uint32_t timestamp,
                         const OnPiece& on_piece) {
    std::vector<Buffer> units;
    nal::each_unit(stream.view(), [&](ByteView unit) {
        const auto start = static_cast<std::size_t>(unit.data() - stream.data());
        units.push_back(stream.slice(start, start + unit.size()));
        return true;
    });
    for (std::size_t index = 0; index < units.size(); ++index) {
        const Buffer& unit = units[index];
        const bool ends = is_end && index + 1 == units.size();
        if (unit.size() > max_rtp_payload) {
            fragment(unit, ends, codec, timestamp, on_piece);
            continue;
        }
        RtpPiece piece;
        piece.timestamp = timestamp;
        piece.marker = ends;
        piece.body = unit;
        on_piece(std::move(piece));
    }
}

void cut(const Buffer& data, std::uint32_t timestamp, const EsPacketiser::OnPiece& on_piece) {
    for (std::size_t start = 0; start < data.size(); start += max_rtp_payload) {
        RtpPiece piece;
        piece.timestamp = timestamp;
        piece.marker = start + max_rtp_payload >= data.size();
        piece.body = data.slice(start, start + max_rtp_payload);
        on_piece(std::move(piece));
    }
}

}  // namespace gb28181
