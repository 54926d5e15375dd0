// Drives any demuxer with what the fuzzer chose: sizes, markers, losses, pauses.
#pragma once

#include <optional>
#include <vector>

#include "fuzz.hpp"
#include "gb28181/clock.hpp"
#include "gb28181/demuxer.hpp"
#include "gb28181/es_packetiser.hpp"
#include "gb28181/flv.hpp"
#include "gb28181/fmp4.hpp"
#include "gb28181/ps_mux.hpp"
#include "gb28181/ts_mux.hpp"

namespace gb28181::fuzz {

/// Units go through a clock and the writers of the containers, as in a stream.
class Consumer {
public:
    void take(std::vector<EsUnit>& units) {
        for (EsUnit& unit : units) {
            check_unit(unit);
            const auto kind = static_cast<std::size_t>(unit.track->kind);
            const Frame frame = clock_.frame(std::move(unit));
            REQUIRE(frame.dts_90k > last_dts_[kind]);
            REQUIRE(frame.pts_90k >= frame.dts_90k);
            last_dts_[kind] = frame.dts_90k;
            ByteBuilder tag;
            muxer_.mux(frame, tag);
            REQUIRE(tag.empty() == !FlvMuxer::carries(frame.track->codec));
            check_boxes(frame);
            check_packets(frame);
            ByteBuilder packets;
            ts_.mux(frame, packets);
            REQUIRE(packets.size() % TsMuxer::packet_size == 0);
            for (std::size_t place = 0; place < packets.size(); place += TsMuxer::packet_size) {
                REQUIRE(packets[place] == 0x47);
            }
        }
        units.clear();
    }

private:
    /// Fragments and initialisation segments fill what was written, box by box.
    void check_boxes(const Frame& frame) {
        if (!fmp4_ || !fmp4_->fits(std::span(&frame.track, 1))) fmp4_.emplace(std::span(&frame.track, 1));
        ByteBuilder boxes;
        fmp4_->header({}, std::nullopt, boxes);
        fmp4_->mux(frame, boxes);
        std::size_t place = 0;
        while (place < boxes.size()) {
            const std::size_t size = boxes.view().u32(place);
            REQUIRE(size >= 8 && size <= boxes.size() - place);
            place += size;
        }
    }

    /// Packets of both packings are within their size, and the last one of a pack or picture has the marker.
    void check_packets(const Frame& frame) {
        const bool video = is_video(frame.track->codec);
        const auto codec = std::optional(frame.track->codec);
        const Buffer pack = PsMuxer(video ? codec : std::nullopt, video ? std::nullopt : codec).mux(frame);
        std::size_t size = 0;
        cut(pack, 0, [&](const RtpPiece& piece) {
            size += piece.body.size();
            REQUIRE(piece.body.size() <= max_rtp_payload && piece.marker == (size == pack.size()));
        });
        REQUIRE(size == pack.size());
        if (!is_packable(*codec)) return;
        std::size_t markers = 0;
        bool ends = false;
        packetiser_.packetise(frame, {}, [&](const RtpPiece& piece) {
            REQUIRE(piece.prefix_size + piece.body.size() <= max_rtp_payload);
            markers += piece.marker ? 1 : 0;
            ends = piece.marker;
        });
        REQUIRE(!video || (markers == 1 && ends));
    }

    StreamClock clock_;
    EsPacketiser packetiser_;
    FlvMuxer muxer_;
    std::optional<Fmp4Muxer> fmp4_;
    TsMuxer ts_;
    std::array<std::int64_t, 2> last_dts_ = {-1, -1};
};

/// The first byte of each step says what happens, and how many bytes come.
inline void drive(Demuxer& demuxer, Input& input) {
    Consumer consumer;
    std::vector<EsUnit> units;
    std::uint32_t timestamp = 0;
    double now = 0.0;
    while (!input.done()) {
        const std::uint8_t choice = input.byte();
        now += 0.001;
        if (choice >= 0xFC) {
            demuxer.gap();
            continue;
        }
        if (choice >= 0xF8) {
            now += 0.04 * (choice & 3);
            demuxer.flush_after(now, units);
            consumer.take(units);
            continue;
        }
        const std::size_t size = (choice & 0x40) != 0 ? std::size_t{1400} : std::size_t{1} + (choice & 0x3F) * 4U;
        const bool marker = (choice & 0x80) != 0;
        demuxer.feed(input.piece(size), timestamp, marker, now, units);
        if (marker) timestamp += 3600;
        consumer.take(units);
        static_cast<void>(demuxer.deadline());
    }
    demuxer.flush(units);
    consumer.take(units);
    REQUIRE(demuxer.tracks().size() <= 2);
}

}  // namespace gb28181::fuzz
