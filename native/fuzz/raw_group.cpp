// Packets that are kept as they came: where a group begins, and that what is kept is a run of what came.
#include <optional>
#include <vector>

#include "fuzz.hpp"
#include "gb28181/pack_start.hpp"
#include "gb28181/raw_group.hpp"
#include "gb28181/rtp.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    constexpr std::array<std::optional<Codec>, 4> codecs = {std::nullopt, Codec::h264, Codec::h265, Codec::svac};
    const std::uint8_t setting = input.byte();
    PictureHint hint;
    hint.codec = codecs[setting & 3];
    hint.sound_only = (setting & 0x0C) == 0x0C;
    hint.key_seen = (setting & 0x10) != 0;
    RawGroup group;
    std::vector<Bytes> came;
    while (!input.done()) {
        const std::uint8_t choice = input.byte();
        if ((choice & 0x0F) == 0x0F) group.gap();
        const ByteView payload = input.piece((choice & 0x80) != 0 ? 1400 : (choice & 0x70));
        if (hint.codec) {
            const ByteView set = first_parameter_set(payload, hint.codec);
            REQUIRE(set.empty() || find(payload, set, 0) != npos);
        }
        Bytes datagram(rtp_header_size, 0);
        datagram[0] = 0x80;
        datagram[4] = static_cast<std::uint8_t>(choice & 3);  // packs share timestamps, or do not
        datagram.insert(datagram.end(), payload.begin(), payload.end());
        came.push_back(std::move(datagram));
        const auto packet = RtpPacket::parse(ByteView(came.back()));
        REQUIRE(packet.has_value());
        const RawGroup::Place place = group.add(*packet, 0.0, hint);
        const auto& kept = group.entries();
        REQUIRE(place != RawGroup::Place::beginning || !kept.empty());
        REQUIRE(kept.size() <= came.size());
        for (std::size_t index = 0; index < kept.size(); index += index < 3 ? 1 : 29) {
            // A gap takes the beginning of a pack away that was being looked at; what is kept stays a run.
            REQUIRE(kept[kept.size() - 1 - index].datagram.view() == ByteView(came[came.size() - 1 - index]));
        }
        REQUIRE(group.last().view() == ByteView(came.back()));
    }
    return 0;
}
