// Sequence numbers in any order.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/reorder.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    const std::uint8_t choice = input.byte();
    const std::size_t most = (choice & 1) != 0 ? 512 : std::size_t{1} + (choice >> 1 & 15);
    ReorderBuffer buffer((choice & 0x20) != 0 ? 0.0 : 0.2, 0.5, most);
    std::vector<Ordered> out;
    std::array<std::uint8_t, 14> datagram{};
    std::uint64_t pushed = 0;
    std::uint64_t given = 0;
    double now = 0.0;
    const auto take = [&] {
        for (const Ordered& next : out) {
            if (next.is_gap) {
                REQUIRE(next.lost >= 0 && next.lost < 65536);
                continue;
            }
            ++given;
            REQUIRE(next.packet.datagram.size() == datagram.size());
            REQUIRE(next.packet.datagram.u16(2) == next.packet.sequence_number);
            REQUIRE(next.packet.payload.u16(0) == next.packet.sequence_number);
        }
        out.clear();
    };
    std::uint16_t sequence = 65500;
    while (!input.done()) {
        const std::uint8_t step = input.byte();
        now += 0.01 * (step & 3);
        if ((step & 0x0C) == 0x0C) {
            sequence = static_cast<std::uint16_t>(sequence + input.word());
        } else {
            sequence = static_cast<std::uint16_t>(sequence + (step >> 4));
        }
        const auto high = static_cast<std::uint8_t>(sequence >> 8);
        const auto low = static_cast<std::uint8_t>(sequence);
        datagram = {0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 7, high, low};
        const auto packet = RtpPacket::parse(datagram);
        REQUIRE(packet.has_value());
        ++pushed;
        if (buffer.pass(*packet)) {
            ++given;
        } else {
            buffer.push(*packet, now, out);
        }
        take();
        if ((step & 0x04) != 0) buffer.poll(now, out);
        take();
        REQUIRE(buffer.held() <= most);
        REQUIRE(buffer.deadline().has_value() == (buffer.held() != 0));
        REQUIRE(given + buffer.held() <= pushed);
    }
    buffer.flush(out);
    take();
    REQUIRE(buffer.held() == 0);
    return 0;
}
