// What else comes from the network: RTCP, and the frames of a WebSocket client.
#include <vector>

#include "fuzz.hpp"
#include "gb28181/rtcp.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/websocket.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gb28181;  // NOLINT(google-build-using-namespace)
    fuzz::Input input(data, size);
    if ((input.byte() & 1) != 0) {
        const ByteView all = input.rest();
        static_cast<void>(is_rtcp(all));
        static_cast<void>(RtpPacket::parse(all));
        if (const auto reports = parse_sender_reports(all.span())) REQUIRE(reports->size() <= all.size() / 28);
        const ReportOf report = parse_report_of(all.span(), 7);
        REQUIRE(report.readable == parse_sender_reports(all.span()).has_value());
        REQUIRE(!report.block || (report.readable && report.block->ssrc == 7));
        return 0;
    }
    websocket::ClientFrames frames;
    std::vector<websocket::Control> controls;
    while (!input.done()) {
        if (!frames.feed(input.piece(std::size_t{1} + input.byte()).span(), controls)) break;
        for (const websocket::Control& control : controls) REQUIRE(control.payload.size() <= 125);
        controls.clear();
    }
    return 0;
}
