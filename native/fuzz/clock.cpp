// Times of devices, as wild as they come.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/clock.hpp"
#include "../tests/support.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    StreamClock clock((input.byte() & 1) != 0 ? 8000 : 90000);
    const auto track_of = [](Codec codec, double fps, int rate) {
        Track track;
        track.codec = codec;
        track.kind = is_video(codec) ? TrackKind::video : TrackKind::audio;
        track.fps = fps;
        track.sample_rate = rate;
        if (codec == Codec::h264) track.parameter_sets = {test::h264_sps(64, 48), test::h264_pps()};
        if (codec == Codec::h265) track.parameter_sets = {test::h265_vps(), test::h265_sps(64, 48), test::h265_pps()};
        return std::make_shared<const Track>(std::move(track));
    };
    static const std::array<TrackPtr, 5> tracks = {track_of(Codec::h264, 25, 0), track_of(Codec::h265, 0, 0),
                                                   track_of(Codec::svac, 0, 0), track_of(Codec::aac, 0, 7350),
                                                   track_of(Codec::pcma, 0, 8000)};
    std::array<std::int64_t, 2> last = {-1, -1};
    double arrival = 0.0;
    std::int64_t pts = static_cast<std::int64_t>(input.large() % pts_modulus);
    while (!input.done()) {
        const std::uint8_t choice = input.byte();
        if (choice == 0xFF) {
            clock.restart();
            continue;
        }
        arrival += 0.01 * (input.byte() & 0x3F);
        pts = floor_mod(pts + static_cast<std::int16_t>(input.word()) * std::int64_t{(choice & 1) != 0 ? 100 : 1},
                        pts_modulus);
        EsUnit unit;
        unit.track = tracks[static_cast<std::size_t>(choice >> 1 & 7) % tracks.size()];
        if ((choice & 0x10) == 0) unit.pts_90k = pts;
        if ((choice & 0x20) != 0) unit.dts_90k = floor_mod(pts - input.word(), pts_modulus);
        if ((choice & 0x40) != 0) unit.rtp_timestamp = input.number();
        unit.key = (choice & 0x80) != 0;
        unit.arrival = arrival;
        unit.payload = Buffer::copy_of(input.piece(24));
        const StreamClock::Stamp stamp = clock.stamp(unit);
        const auto kind = static_cast<std::size_t>(unit.track->kind);
        REQUIRE(stamp.dts_90k > last[kind]);
        REQUIRE(stamp.pts_90k >= stamp.dts_90k);
        last[kind] = stamp.dts_90k;
    }
    return 0;
}
