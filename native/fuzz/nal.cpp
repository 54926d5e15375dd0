// Parameter sets, slice headers and decoder configurations.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/nal.hpp"
#include "gb28181/picture_order.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    const Codec codec = (input.byte() & 1) != 0 ? Codec::h265 : Codec::h264;
    const ByteView all = input.rest();
    Track track;
    track.codec = codec;
    nal::each_unit(all, [&](ByteView unit) {
        REQUIRE(!unit.empty() && find_start_code(unit, 0) == npos && unit[unit.size() - 1] != 0);
        if (const auto info = nal::parse_sps(codec, unit)) {
            REQUIRE(info->width > 0 && info->width <= nal::max_dimension);
            REQUIRE(info->height > 0 && info->height <= nal::max_dimension);
            REQUIRE(info->fps >= 0 && info->fps <= 240);
            REQUIRE(info->order_bits >= 0 && info->order_bits <= 16);
        }
        REQUIRE(nal::unescape(unit).size() <= unit.size());
        track.parameter_sets.push_back(unit.copy());
        return track.parameter_sets.size() < 40;
    });
    static_cast<void>(nal::sniff_payload(all));
    static_cast<void>(nal::probe_sps(all));
    const Bytes configuration = codec == Codec::h264 ? nal::avcc(track.parameter_sets) : nal::hvcc(track.parameter_sets);
    REQUIRE(configuration.empty() || configuration[0] == 1);
    const PictureOrder order(track);
    static_cast<void>(order.frames_between(all, all));
    ByteBuilder prefixed;
    nal::append_length_prefixed(all, prefixed);
    REQUIRE(prefixed.size() <= all.size() * 2);
    return 0;
}
