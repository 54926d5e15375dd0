// The bytes of a TCP connection.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/rfc4571.hpp"
#include "gb28181/rtp.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    const std::uint8_t choice = input.byte();
    Framer framer((choice & 1) != 0 ? std::optional<std::uint32_t>(0x0BEBC201) : std::nullopt);
    std::vector<Framed> framed;
    std::size_t fed = 0;
    while (!input.done()) {
        const std::uint8_t step = input.byte();
        const ByteView piece = input.piece((step & 0x80) != 0 ? 1448 : std::size_t{1} + (step & 0x7F));
        fed += piece.size();
        const bool good = framer.feed(piece, framed);
        for (const Framed& next : framed) {
            if (next.is_lost()) continue;
            REQUIRE(next.packet.size() >= 8 && next.packet[0] >> 6 == 2);
            std::uint32_t sum = 0;  // every byte can be read
            for (const std::uint8_t byte : next.packet.span()) sum += byte;
            REQUIRE(sum <= next.packet.size() * 255);
            static_cast<void>(RtpPacket::parse(next.packet));
        }
        framed.clear();
        if (!good) return 0;
        REQUIRE(framer.buffered() <= 2 * 65536 + 1448);
        REQUIRE(framer.skipped_bytes() <= fed);
        if ((step & 1) != 0) framer.settle();
    }
    return 0;
}
