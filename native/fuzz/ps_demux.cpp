// Program streams.
#include "demux.hpp"
#include "gb28181/ps_demux.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    gb28181::fuzz::Input input(data, size);
    // Small bounds are reached by small inputs.
    gb28181::PsDemuxer demuxer((input.byte() & 1) != 0 ? 600 : gb28181::VideoAssembler::default_max_unit);
    gb28181::fuzz::drive(demuxer, input);
    return 0;
}
