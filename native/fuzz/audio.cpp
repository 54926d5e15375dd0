// Audio of program streams: AAC in all its wrappings, and what only looks like it.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/aac.hpp"
#include "gb28181/audio.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    DemuxHealth health;
    AudioAssembler assembler(0xC0, health);
    std::vector<EsUnit> units;
    double now = 0.0;
    while (!input.done()) {
        const std::uint8_t choice = input.byte();
        if (choice >= 0xF8) {
            constexpr std::array<int, 4> types = {0x0F, 0x1C, 0x90, 0x55};
            assembler.declare(types[choice & 3]);
            continue;
        }
        if (choice >= 0xF4) {
            assembler.gap();
            continue;
        }
        now += 0.04;
        if ((choice & 0x80) != 0) {
            assembler.start((choice & 0x40) != 0 ? std::optional<std::int64_t>(choice * 3600) : std::nullopt, choice);
        }
        const ByteView piece = input.piece(static_cast<std::size_t>(choice & 0x3F) * 8);
        static_cast<void>(is_mpeg_audio(piece));
        static_cast<void>(aac::is_adts_chain(piece));
        static_cast<void>(aac::parse_audio_specific_config(piece));
        assembler.append(piece, now);
        if ((choice & 1) != 0) assembler.finish();
        assembler.take(units);
        for (const EsUnit& unit : units) {
            fuzz::check_unit(unit);
            REQUIRE(unit.track->kind == TrackKind::audio);
        }
        units.clear();
    }
    return 0;
}
