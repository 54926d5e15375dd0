// Elementary streams in RTP payloads, and the choice of the reader.
#include "demux.hpp"
#include "gb28181/es_depacketiser.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    constexpr std::array<std::string_view, 8> names = {"H264", "H265", "AAC", "PCMA", "PCMU", "G723", "PS", "SVAC"};
    fuzz::Input input(data, size);
    const std::uint8_t choice = input.byte();
    const DemuxerChoice found = make_demuxer(names[choice & 7], 96, (choice & 8) != 0 ? input.piece(8) : ByteView{});
    if (found.demuxer != nullptr) fuzz::drive(*found.demuxer, input);
    return 0;
}
