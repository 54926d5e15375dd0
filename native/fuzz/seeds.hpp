// The seeds, made by hand in the form that the harnesses read.
#pragma once

#include <string>
#include <vector>

#include "../tests/support.hpp"

namespace gb28181::fuzz {

struct Seed {
    std::string harness;
    std::string name;
    Bytes bytes;
};

namespace made {

/// `first`, then the data in pieces of 1,400 bytes, each behind its choice; the last has the marker.
inline Bytes steps(std::uint8_t first, const std::vector<Bytes>& payloads, bool marker = true) {
    Bytes out = {first};
    for (const Bytes& payload : payloads) {
        for (std::size_t start = 0; start < payload.size(); start += 1400) {
            const bool last = start + 1400 >= payload.size();
            const ByteView piece = ByteView(payload).slice(start, start + 1400);
            if (piece.size() == 1400) {
                out.push_back(static_cast<std::uint8_t>(last && marker ? 0xC0 : 0x40));
                test::add(out, piece);
                continue;
            }
            // Smaller pieces are told in units of four.
            for (std::size_t place = 0; place < piece.size();) {
                const std::size_t left = piece.size() - place;
                const std::size_t count = std::min<std::size_t>((left - 1) / 4, 0x3F);
                const std::size_t taken = std::min<std::size_t>(1 + count * 4, left);
                const bool end = last && marker && place + taken >= piece.size();
                out.push_back(static_cast<std::uint8_t>(count | (end ? 0x80 : 0)));
                test::add(out, piece.slice(place, place + taken));
                place += taken;
            }
        }
    }
    return out;
}

inline std::vector<Bytes> packs(unsigned count, std::size_t size) {
    std::vector<Bytes> out;
    for (unsigned number = 0; number < count; ++number) out.push_back(test::camera_pack(number, size, number % 4 == 0));
    return out;
}

inline Bytes adts(std::size_t size) {
    const std::size_t whole = size + 7;
    Bytes out = {0xFF, 0xF1, 0x6C, static_cast<std::uint8_t>(0x40 | whole >> 11), static_cast<std::uint8_t>(whole >> 3),
                 static_cast<std::uint8_t>((whole & 7) << 5 | 0x1F), 0xFC};
    out.insert(out.end(), size, 0x21);
    return out;
}

inline std::vector<Bytes> h264_payloads() {
    std::vector<Bytes> out;
    for (unsigned number = 0; number < 6; ++number) {
        if (number % 3 == 0) {
            const Bytes sps = test::h264_sps(64, 48);
            const Bytes pps = test::h264_pps();
            Bytes aggregate = {24, 0, static_cast<std::uint8_t>(sps.size())};
            test::add(aggregate, sps);
            test::add(aggregate, Bytes{0, static_cast<std::uint8_t>(pps.size())});
            test::add(aggregate, pps);
            out.push_back(aggregate);
        }
        const Bytes slice = test::h264_slice(number % 3 == 0, number, 120);
        const auto header = static_cast<std::uint8_t>((slice[0] & 0xE0) | 28);
        Bytes first = {header, static_cast<std::uint8_t>(0x80 | (slice[0] & 0x1F))};
        test::add(first, ByteView(slice).slice(1, 60));
        Bytes second = {header, static_cast<std::uint8_t>(0x40 | (slice[0] & 0x1F))};
        test::add(second, ByteView(slice).from(60));
        out.push_back(first);
        out.push_back(second);
    }
    return out;
}

inline std::vector<Bytes> h265_payloads() {
    std::vector<Bytes> out;
    for (unsigned number = 0; number < 4; ++number) {
        if (number % 2 == 0) {
            out.push_back(test::h265_vps());
            out.push_back(test::h265_sps(64, 48));
            out.push_back(test::h265_pps());
        }
        out.push_back(test::h265_slice(number % 2 == 0, 60));
        const Bytes unit = test::h265_slice(false, 40);
        Bytes whole = {0x62, 0x01, static_cast<std::uint8_t>(0xC0 | (unit[0] >> 1 & 0x3F))};
        test::add(whole, ByteView(unit).from(2));
        out.push_back(whole);
    }
    return out;
}

inline Bytes interlaced() {
    const Bytes sps = test::BitWriter()
                          .u(77, 8).u(0, 8).u(31, 8).ue(0).ue(0).ue(2).ue(1).u(0, 1)
                          .ue(3).ue(1).u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1)
                          .unit({0x67});
    const auto field = [](bool idr, unsigned number, bool bottom) {
        Bytes out = test::BitWriter().ue(0).ue(idr ? 7 : 5).ue(0).u(number, 4).u(1, 1).u(bottom ? 1 : 0, 1).u(0xAAAA, 16).unit(
            {static_cast<std::uint8_t>(idr ? 0x65 : 0x41)});
        out.insert(out.end(), 30, 0xAA);
        return out;
    };
    Bytes out;
    for (unsigned number = 0; number < 4; ++number) {
        std::vector<Bytes> units;
        if (number == 0) units = {sps, test::h264_pps()};
        units.push_back(field(number == 0, number, false));
        units.push_back(field(false, number, true));
        test::add(out, test::pack_header(number * 3600));
        if (number == 0) test::add(out, test::stream_map({{0xE0, 0x1B}}));
        test::add(out, test::pes(0xE0, number * 3600, test::annexb(units)));
    }
    return out;
}

/// Packets behind choices, as the harness of the receiver's chain reads them.
inline Bytes receiver(const std::vector<Bytes>& payloads, int payload_type) {
    Bytes out = {0};
    std::uint16_t sequence_number = 65530;
    for (const Bytes& payload : payloads) {
        for (std::size_t start = 0; start < payload.size(); start += 1400) {
            Bytes packet = test::rtp(sequence_number++, 3600, start + 1400 >= payload.size(),
                                     ByteView(payload).slice(start, start + 1400), payload_type, 7);
            const bool large = packet.size() > 40;
            if (!large) packet.resize(40);
            out.push_back(static_cast<std::uint8_t>(large ? 0x82 : 0x02));
            test::add(out, packet);
            if (large && packet.size() < 1412) out.insert(out.end(), 1412 - packet.size(), 0);
        }
    }
    return out;
}

inline Bytes framed(const std::vector<Bytes>& packets, std::uint8_t choice, bool interleaved) {
    Bytes stream;
    for (const Bytes& packet : packets) {
        if (interleaved) test::add(stream, Bytes{0x24, 0});
        test::add(stream, Bytes{static_cast<std::uint8_t>(packet.size() >> 8), static_cast<std::uint8_t>(packet.size())});
        test::add(stream, packet);
    }
    Bytes out = {choice};
    for (std::size_t start = 0; start < stream.size(); start += 1448) {
        out.push_back(0x80);
        test::add(out, ByteView(stream).slice(start, start + 1448));
    }
    return out;
}

}  // namespace made

inline std::vector<Seed> seeds() {
    using namespace made;  // NOLINT(google-build-using-namespace)
    std::vector<Seed> out;
    out.push_back({"ps_demux", "camera", steps(0, packs(6, 300))});
    out.push_back({"ps_demux", "camera_large", steps(0, packs(5, 3000))});
    out.push_back({"ps_demux", "bounded", steps(1, packs(6, 500))});
    out.push_back({"ps_demux", "interlaced", steps(0, {interlaced()})});
    const Bytes h265 = test::annexb({test::h265_vps(), test::h265_sps(64, 48), test::h265_pps(), test::h265_slice(true, 90)});
    const Bytes inter = test::annexb({test::h265_slice(false, 50)});
    out.push_back({"ps_demux", "h265",
                   steps(0, {test::joined({test::pack_header(), test::stream_map({{0xE0, 0x24}, {0xC0, 0x0F}}),
                                           test::pes(0xE0, 0, h265), test::pes(0xC0, 0, adts(40)),
                                           test::pes(0xC0, std::nullopt, adts(50)), test::pes(0xE0, 3600, inter),
                                           test::pes(0xE0, 7200, inter)})})});
    out.push_back({"ps_demux", "length_zero",
                   steps(0, {test::joined({test::pack_header(), test::pes(0xE0, 0, h265, 0), test::pack_header(),
                                           test::pes(0xE0, 3600, inter, 0), test::pack_header()})})});
    out.push_back({"ps_demux", "svac",
                   steps(0, {test::joined({test::pack_header(), test::stream_map({{0xE0, 0x80}, {0xC0, 0x9B}}),
                                           test::pes(0xE0, 0, Bytes(60, 7)), test::pes(0xC0, 0, Bytes(20, 8)),
                                           test::pes(0xE0, 3600, Bytes(50, 7)), test::pes(0xE0, 7200, Bytes(50, 9))})})});
    out.push_back({"ps_demux", "mpeg1",
                   steps(0, {test::joined({Bytes{0, 0, 1, 0xBA, 0x21, 0, 1, 0, 1, 0x80, 0, 1},
                                           Bytes{0, 0, 1, 0xE0, 0, 14, 0xFF, 0x40, 0x20, 0x21, 0, 1, 0, 1, 0, 0, 1, 0x67, 0x42, 1},
                                           Bytes(30, 0)})})});
    out.push_back({"es_depacketiser", "h264", steps(0, h264_payloads())});
    out.push_back({"es_depacketiser", "h265", steps(1, h265_payloads())});
    Bytes hbr = {0, 0x10, 0, 0x50};
    hbr.insert(hbr.end(), 10, 0x21);
    out.push_back({"es_depacketiser", "aac", steps(2, {hbr, hbr, adts(30)})});
    out.push_back({"es_depacketiser", "pcma", steps(3, {Bytes(160, 0xD5), Bytes(160, 0x55)})});
    out.push_back({"intake", "ps", receiver(packs(4, 900), 96)});
    out.push_back({"intake", "h264", receiver(h264_payloads(), 98)});
    out.push_back({"intake", "h264_as_ps", receiver(h264_payloads(), 96)});
    out.push_back({"intake", "h265", receiver(h265_payloads(), 100)});
    std::vector<Bytes> packets;
    for (std::uint16_t number = 0; number < 12; ++number) packets.push_back(test::rtp(number, 0, true, Bytes(100, 0x11)));
    packets.insert(packets.begin() + 3, Bytes{0x80, 0xC8, 0, 6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    out.push_back({"rfc4571", "length", framed(packets, 0, false)});
    out.push_back({"rfc4571", "known_ssrc", framed(packets, 1, false)});
    out.push_back({"rfc4571", "interleaved", framed(packets, 0, true)});
    for (const std::uint8_t setting : {0x00, 0x01, 0x11}) {
        Bytes kept = {setting};
        for (unsigned number = 0; number < 4; ++number) {
            const Bytes pack = test::camera_pack(number, 2000, number % 2 == 0);
            for (std::size_t start = 0; start < pack.size(); start += 1400) {
                kept.push_back(static_cast<std::uint8_t>(0x80 | number));
                test::add(kept, ByteView(pack).slice(start, start + 1400));
                if (pack.size() - start < 1400) kept.insert(kept.end(), 1400 - (pack.size() - start), 0);
            }
        }
        out.push_back({"raw_group", "camera_" + std::to_string(setting), kept});
    }
    out.push_back({"reorder", "plain", Bytes(60, 0x10)});
    out.push_back({"reorder", "holes", {1, 0x10, 0x20, 0x10, 0x0C, 0xFF, 0xFE, 0x10, 0x34, 0x10, 0x10, 0x0C, 0x00, 0x30, 0x10}});
    out.push_back({"nal", "h264", test::joined({Bytes{0}, test::annexb({test::h264_sps(1920, 1088), test::h264_pps(), test::h264_slice(true, 1, 30)})})});
    out.push_back({"nal", "h265", test::joined({Bytes{1}, h265})});
    const Bytes frame = adts(56);
    Bytes audio = {0xF8};
    for (int number = 0; number < 4; ++number) {
        audio.push_back(0xC0 | 7);
        test::add(audio, ByteView(frame).slice(0, 56));
        audio.push_back(1);
        test::add(audio, ByteView(frame).slice(56, 64));
    }
    out.push_back({"audio", "adts", audio});
    out.push_back({"audio", "pcma", test::joined({Bytes{0xFA, 0xC5}, Bytes(40, 0xD5), Bytes{0xC5}, Bytes(40, 0x55)})});
    Bytes times = {0, 0, 0, 0, 0, 0, 0, 0, 9};
    for (int number = 0; number < 10; ++number) {
        test::add(times, Bytes{0x00, 4, 0x0E, 0x10});
        times.insert(times.end(), 24, static_cast<std::uint8_t>(number));
    }
    out.push_back({"clock", "steady", times});
    out.push_back({"control", "rtcp", test::joined({Bytes{1}, packets[3]})});
    out.push_back({"control", "websocket", {0, 11, 0x89, 0x85, 1, 2, 3, 4, 0x69, 0x67, 0x6F, 0x68, 0x6E, 5, 0x88, 0x80, 0, 0, 0, 0}});
    return out;
}

}  // namespace gb28181::fuzz
