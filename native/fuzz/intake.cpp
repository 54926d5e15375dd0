// RTP packets through the whole chain of a receiver: source rule, reordering, choice of the reader.
#include <memory>
#include <vector>

#include "demux.hpp"
#include "gb28181/intake.hpp"
#include "gb28181/reorder.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    const auto payloads = std::make_shared<const Payloads>(
        Payloads{{96, "PS"}, {97, "MPEG4-GENERIC"}, {98, "H264"}, {100, "H265"}, {8, "PCMA"}});
    Intake intake(payloads);
    SourceRule rule(7, {96, 97, 98, 100, 8}, HostSet({"192.0.2.1", "192.0.2.128/25"}), (input.byte() & 1) != 0);
    ReorderBuffer reorder;
    fuzz::Consumer consumer;
    std::vector<Ordered> ordered;
    std::vector<EsUnit> units;
    double now = 0.0;
    const auto go_on = [&] {
        for (const Ordered& next : ordered) {
            if (next.is_gap) {
                intake.gap();
            } else {
                intake.push(next.packet, now, units);
            }
        }
        ordered.clear();
        consumer.take(units);
    };
    while (!input.done()) {
        const std::uint8_t choice = input.byte();
        now += 0.001 * (1 << (choice & 7));
        Source source;
        source.host = IpAddress::v4(0xC0000201U + (choice >> 3 & 3));
        source.port = 5000;
        const auto packet = RtpPacket::parse(input.piece((choice & 0x80) != 0 ? 1412 : 40));
        if (!packet) continue;
        const Looks looks = intake.looks(*packet);
        switch (rule.receive(now, source, packet->ssrc, packet->payload_type, packet->sequence_number, looks,
                             packet->datagram)) {
            case Verdict::drop:
            case Verdict::hold: continue;
            case Verdict::accept:
                reorder.push(*packet, now, ordered);
                go_on();
                break;
            case Verdict::latched:
            case Verdict::switched:
            case Verdict::epoch:
            case Verdict::taken_over:
                for (const Buffer& held : rule.take_held()) {
                    const auto read = RtpPacket::parse(held);
                    REQUIRE(read.has_value());
                    reorder.push(*read, now, ordered);
                    go_on();
                }
                break;
        }
        reorder.poll(now, ordered);
        go_on();
        REQUIRE(reorder.held() <= 512);
    }
    reorder.flush(ordered);
    go_on();
    intake.flush(units);
    consumer.take(units);
    return 0;
}
