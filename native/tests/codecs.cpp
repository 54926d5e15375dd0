// What the differential tests against the Python codecs cannot see: memory, bounds, sharing, and the small types under
// the codecs. What the codecs make of a stream is compared in tests/unit/media/native.
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "check.hpp"
#include "gb28181/buffer.hpp"
#include "gb28181/clock.hpp"
#include "gb28181/es_depacketiser.hpp"
#include "gb28181/flv.hpp"
#include "gb28181/nal.hpp"
#include "gb28181/ps_demux.hpp"
#include "gb28181/reorder.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/source.hpp"
#include "support.hpp"

namespace gb28181::test {
namespace {

void views_never_reach_outside() {
    const Bytes bytes = {1, 2, 3, 0, 0};
    const ByteView view(bytes);
    CHECK(view[4] == 0 && view[5] == 0 && view[npos] == 0);
    CHECK(view.u16(1) == 0x0203 && view.u16(2) == 0x0300 && view.u32(2) == 0x03000000);
    CHECK(view.slice(1, 3) == ByteView(Bytes{2, 3}));
    CHECK(view.slice(4, 99).size() == 1 && view.slice(5, 9).empty() && view.slice(9, 3).empty());
    CHECK(view.from(2).size() == 3 && view.from(6).empty());
    CHECK(view.without_trailing_zeros().size() == 3);
    CHECK(ByteView{}.without_trailing_zeros().empty() && ByteView{} == ByteView{});
    CHECK(view.starts_with(Bytes{1, 2}) && !view.slice(0, 1).starts_with(Bytes{1, 2}));
}

void a_cursor_says_when_something_was_missing() {
    const Bytes bytes = {1, 2, 3, 4, 5, 6, 7};
    Cursor cursor(bytes);
    CHECK(cursor.u8() == 1 && cursor.u16() == 0x0203 && cursor.u24() == 0x040506 && cursor.left() == 1);
    CHECK(cursor.ok());
    CHECK(cursor.u32() == 0 && !cursor.ok() && cursor.left() == 0);
    CHECK(cursor.take(1).empty() && cursor.u64() == 0 && !cursor.ok());
}

void start_codes_are_found_at_every_place() {
    for (std::size_t size = 0; size < 70; ++size) {
        for (std::size_t place = 0; place + 3 <= size; ++place) {
            Bytes bytes(size, 0xFF);
            bytes[place] = bytes[place + 1] = 0;
            bytes[place + 2] = 1;
            CHECK(find_start_code(bytes, 0) == place);
            CHECK(find_start_code(bytes, place) == place);
            CHECK(find_start_code(bytes, place + 1) == npos);
        }
        CHECK(find_start_code(Bytes(size, 0), 0) == npos);
        CHECK(find_start_code(Bytes(size, 1), 0) == npos);
        CHECK(find_start_code(Bytes(size, 0), size + 5) == npos);
    }
}

void floor_division_rounds_down() {
    CHECK(floor_div(7, 2) == 3 && floor_div(-7, 2) == -4 && floor_div(-8, 2) == -4);
    CHECK(floor_mod(-1, 8) == 7 && floor_mod(8, 8) == 0);
}

void buffers_are_shared_and_sliced() {
    Buffer slice;
    {
        const Buffer whole = Buffer::copy_of(Bytes{1, 2, 3, 4});
        const Buffer same = whole;
        CHECK(same.data() == whole.data());
        slice = whole.slice(1, 3);
        CHECK(slice.data() == whole.data() + 1);
    }
    CHECK(slice.view() == ByteView(Bytes{2, 3}));
    const Buffer& alias = slice;
    slice = alias;  // to itself
    CHECK(slice.size() == 2);
    CHECK(Buffer::copy_of({}).empty() && Buffer{}.slice(0, 4).empty());
    Buffer moved = std::move(slice);
    CHECK(moved.size() == 2 && moved.slice(2, 9).empty());
}

void a_buffer_wastes_little() {
    for (std::size_t size = 1; size < 3'000'000; size = size * 5 / 4 + 1) {
        const Buffer buffer = Buffer::copy_of(Bytes(size, 7));
        CHECK(buffer.size() == size);
        CHECK(buffer.footprint() <= size + size / 8 + 128);
    }
}

void a_builder_grows_and_loses_its_front() {
    ByteBuilder builder;
    Bytes expected;
    for (unsigned number = 0; number < 3000; ++number) {
        builder.append_u32(number * 77777);
        builder.append_u24(number);
        builder.append_u16(number);
        builder.append(static_cast<std::uint8_t>(number));
    }
    CHECK(builder.size() == 30000 && builder.view().u32(10) == 77777 && builder[29999] == (2999 & 0xFF));
    builder.overwrite(29999, Bytes{1, 2});  // would stand outside: left out
    CHECK(builder[29999] == (2999 & 0xFF));
    builder.overwrite(29998, Bytes{1, 2});
    CHECK(builder.view().u16(29998) == 0x0102);
    builder.erase_front(29990);
    CHECK(builder.size() == 10);
    builder.truncate(3);
    CHECK(builder.size() == 3);
    const Buffer whole = builder.finish();
    CHECK(whole.size() == 3 && builder.empty() && builder.capacity() == 0);
    builder.erase_front(5);
    CHECK(builder.finish().empty());
}

void buffers_may_be_dropped_by_any_thread() {
    // Under TSan this says whether the references are counted right.
    for (int round = 0; round < 200; ++round) {
        const Buffer whole = Buffer::copy_of(Bytes(1000, static_cast<std::uint8_t>(round)));
        std::vector<std::thread> threads;
        for (int thread = 0; thread < 3; ++thread) {
            threads.emplace_back([copy = whole, round] {
                Buffer own = copy.slice(1, 999);
                CHECK(own.view()[0] == static_cast<std::uint8_t>(round));
            });
        }
        for (std::thread& thread : threads) thread.join();
    }
}

void quirks_have_names() {
    std::set<std::string_view> names;
    for (std::size_t index = 0; index < quirk_count; ++index) {
        const std::string_view name = quirk_name(static_cast<Quirk>(index));
        CHECK(!name.empty() && names.insert(name).second);
    }
    QuirkCounts counts;
    counts.add(Quirk::ps_pts_jump);
    counts.add(Quirk::ps_pts_jump);
    counts.add(Quirk::rtp_ssrc_mismatch);
    CHECK(counts.count(Quirk::ps_pts_jump) == 2);
    QuirkSet told;
    told.add(Quirk::ps_pts_jump);
    std::vector<Quirk> fresh;
    counts.set().without(told).each([&](Quirk quirk) { fresh.push_back(quirk); });
    CHECK(fresh == std::vector<Quirk>{Quirk::rtp_ssrc_mismatch});
}

/// Feeds a demuxer with the payloads of packets.
std::vector<EsUnit> units_of(Demuxer& demuxer, const std::vector<Bytes>& packets) {
    std::vector<EsUnit> units;
    double now = 0.0;
    for (const Bytes& packet : packets) {
        const auto read = RtpPacket::parse(packet);
        CHECK(read.has_value());
        demuxer.feed(read->payload, read->timestamp, read->marker, now += 0.003, units);
    }
    return units;
}

void a_camera_is_demuxed() {
    PsDemuxer demuxer;
    std::vector<EsUnit> units = units_of(demuxer, camera_packets(100));
    demuxer.flush(units);
    std::size_t pictures = 0;
    std::size_t keys = 0;
    for (const EsUnit& unit : units) {
        CHECK(!unit.damaged || !unit.key);
        if (unit.track->kind != TrackKind::video) {
            CHECK(unit.track->codec == Codec::pcma && unit.payload.size() == 320);
            continue;
        }
        CHECK(unit.pts_90k == 90000 + static_cast<std::int64_t>(pictures) * 3600);
        CHECK(unit.payload.view().u32(0) == 1);
        CHECK(unit.payload.footprint() <= unit.payload.size() * 9 / 8 + 128);
        ++pictures;
        keys += unit.key ? 1 : 0;
    }
    CHECK(pictures == 100 && keys == 2);
    CHECK(demuxer.tracks().size() == 2 && demuxer.tracks()[0]->width == 1920);
    CHECK(demuxer.counters().errors() == 0 && demuxer.quirks().set().empty());
}

void frames_outlive_their_demuxer() {
    std::vector<EsUnit> units;
    {
        PsDemuxer demuxer;
        units = units_of(demuxer, camera_packets(5));
    }
    CHECK(units.size() >= 8);
    std::size_t bytes = 0;
    for (const EsUnit& unit : units) {
        for (const std::uint8_t byte : unit.payload.view().span()) bytes += byte != 0 ? 1U : 0U;
        CHECK(!unit.track->parameter_sets.empty() || unit.track->kind == TrackKind::audio);
    }
    CHECK(bytes > 100000);
}

void waiting_packets_keep_their_own_bytes() {
    ReorderBuffer buffer;
    std::vector<Ordered> out;
    const auto push = [&](std::uint16_t number, double now) {
        Bytes datagram = rtp(number, 0, false, Bytes{static_cast<std::uint8_t>(number), 9});
        const auto packet = RtpPacket::parse(datagram);
        CHECK(packet.has_value());
        buffer.push(*packet, now, out);
        datagram.assign(datagram.size(), 0xEE);  // as the next datagram does
    };
    push(10, 0.0);
    CHECK(out.size() == 1 && out[0].storage.empty());
    out.clear();
    for (std::uint16_t number = 12; number < 400; ++number) push(number, 0.01);
    CHECK(out.empty() && buffer.held() == 388);
    CHECK(buffer.deadline().has_value() && *buffer.deadline() > 0.2);
    buffer.poll(0.3, out);
    CHECK(out.size() == 389 && out[0].is_gap && out[0].lost == 1);
    for (std::size_t index = 1; index < out.size(); ++index) {
        CHECK(out[index].packet.sequence_number == index + 11);
        CHECK(out[index].packet.payload.size() == 2);
        CHECK(out[index].packet.payload[0] == static_cast<std::uint8_t>(index + 11));
    }
    const Bytes next = rtp(400, 0, false, Bytes{1});
    CHECK(buffer.pass(*RtpPacket::parse(next)) && !buffer.pass(*RtpPacket::parse(next)));
}

void a_framer_gives_memory_back() {
    Bytes stream;
    for (std::uint16_t number = 0; number < 50; ++number) {
        const Bytes packet = rtp(number, 0, true, Bytes(1000, 3));
        stream.push_back(static_cast<std::uint8_t>(packet.size() >> 8));
        stream.push_back(static_cast<std::uint8_t>(packet.size()));
        add(stream, packet);
    }
    Framer framer;
    std::vector<Framed> framed;
    CHECK(framer.feed(ByteView(stream).slice(0, 700), framed) && framed.empty() && framer.buffered() == 700);
    CHECK(framer.feed(ByteView(stream).slice(700, stream.size() - 1), framed) && framed.size() == 49);
    for (std::size_t index = 0; index < framed.size(); ++index) CHECK(framed[index].packet.u16(2) == index);
    framed.clear();
    framer.settle();
    CHECK(framer.buffered() == 1013);
    CHECK(framer.feed(ByteView(stream).from(stream.size() - 1), framed) && framed.size() == 1);
    CHECK(framed[0].packet.u16(2) == 49 && framer.buffered() == 0);
}

void flv_tags_tell_their_size() {
    FlvMuxer muxer(FlvHevc::enhanced, 0);
    Track track;
    track.codec = Codec::h265;
    track.parameter_sets = {h265_vps(), h265_sps(64, 48), h265_pps()};
    Frame frame;
    frame.track = std::make_shared<const Track>(track);
    frame.key = true;
    frame.pts_90k = frame.dts_90k = 3600;
    frame.payload = Buffer::copy_of(annexb({h265_slice(true, 500)}));
    ByteBuilder out;
    const std::array<TrackPtr, 1> tracks = {frame.track};
    muxer.header(tracks, 3600, out);
    CHECK(out.size() > 13);
    std::size_t place = 13;
    const std::size_t bound = muxer.bound(frame);
    const std::size_t before = out.size();
    muxer.mux(frame, out);
    CHECK(out.size() - before <= bound && bound <= out.size() - before + 16);
    std::vector<int> kinds;
    const ByteView view = out.view();
    while (place < view.size()) {
        Cursor cursor(view.from(place));
        kinds.push_back(cursor.u8());
        const std::size_t size = cursor.u24();
        CHECK(cursor.u24() == 40);
        cursor.skip(4 + size);
        CHECK(cursor.u32() == size + 11 && cursor.ok());
        place += size + 15;
    }
    CHECK((kinds == std::vector<int>{18, 9, 9}));
    // The same track in another object is announced already.
    frame.track = std::make_shared<const Track>(track);
    const std::size_t second = out.size();
    muxer.mux(frame, out);
    CHECK(out.view()[second] == 9 && out.view()[second + 11] == 0x93);
}

void a_large_frame_is_no_flv_tag() {
    FlvMuxer muxer;
    Track track;
    track.kind = TrackKind::audio;
    track.codec = Codec::pcma;
    Frame frame;
    frame.track = std::make_shared<const Track>(track);
    frame.payload = Buffer::copy_of(Bytes(0x1000000, 1));
    ByteBuilder out;
    muxer.mux(frame, out);
    CHECK(out.empty());
}

void addresses_are_read_and_told() {
    CHECK(IpAddress::parse("192.0.2.7")->text() == "192.0.2.7");
    CHECK(IpAddress::parse("2001:db8::1")->text() == "2001:db8::1");
    CHECK(IpAddress::parse("::ffff:192.0.2.7") == IpAddress::parse("192.0.2.7"));
    CHECK(!IpAddress::parse("example.org") && !IpAddress::parse("") && !IpAddress::parse("1.2.3"));
    CHECK((Source{*IpAddress::parse("2001:db8::1"), 5000, 0}.text() == "[2001:db8::1]:5000"));
    CHECK((Source{*IpAddress::parse("192.0.2.7"), 5000, 4}.text() == "192.0.2.7:5000"));
    const HostSet hosts({"192.0.2.0/25", "2001:db8::/33", "198.51.100.9", "300.0.0.1", "10.0.0.0/33"});
    CHECK(hosts.contains(*IpAddress::parse("192.0.2.127")) && !hosts.contains(*IpAddress::parse("192.0.2.128")));
    CHECK(hosts.contains(*IpAddress::parse("2001:db8:7fff::1")) && !hosts.contains(*IpAddress::parse("2001:db8:8000::1")));
    CHECK(hosts.contains(*IpAddress::parse("198.51.100.9")) && !hosts.contains(*IpAddress::parse("10.0.0.1")));
    CHECK(HostSet({"nonsense"}).empty());
}

void strangers_are_counted_and_their_number_is_bounded() {
    SourceRule rule(7, {96}, HostSet({"192.0.2.1"}), false);
    const Source camera{*IpAddress::parse("192.0.2.1"), 5000, 0};
    const Bytes packet = rtp(1, 0, false, Bytes(20, 1), 96, 7);
    CHECK(rule.receive(0.0, camera, 7, 96, 1, Looks::plausible, packet) == Verdict::hold);
    CHECK(rule.receive(0.0, camera, 7, 96, 2, Looks::plausible, packet) == Verdict::latched);
    CHECK(rule.take_held().size() == 2 && rule.take_held().empty());
    for (std::uint32_t number = 0; number < 10000; ++number) {
        const Source stranger{IpAddress::v4(0x0A000000 + number), 6000, 0};
        const Verdict verdict = rule.receive(0.1, stranger, 7, 96, static_cast<std::uint16_t>(number * 7),
                                             Looks::recognised, packet);
        CHECK(verdict == Verdict::drop || verdict == Verdict::hold);
        CHECK(rule.receive(0.1, camera, 7, 96, static_cast<std::uint16_t>(3 + number), Looks::plausible, packet) ==
              Verdict::accept);
    }
    CHECK(rule.foreign() == 10000 && rule.take_conflict() && rule.source() == camera);
}

}  // namespace
}  // namespace gb28181::test

int main() {
    using namespace gb28181::test;  // NOLINT(google-build-using-namespace)
    views_never_reach_outside();
    a_cursor_says_when_something_was_missing();
    start_codes_are_found_at_every_place();
    floor_division_rounds_down();
    buffers_are_shared_and_sliced();
    a_buffer_wastes_little();
    a_builder_grows_and_loses_its_front();
    buffers_may_be_dropped_by_any_thread();
    quirks_have_names();
    a_camera_is_demuxed();
    frames_outlive_their_demuxer();
    waiting_packets_keep_their_own_bytes();
    a_framer_gives_memory_back();
    flv_tags_tell_their_size();
    a_large_frame_is_no_flv_tag();
    addresses_are_read_and_told();
    strangers_are_counted_and_their_number_is_bounded();
    return 0;
}
