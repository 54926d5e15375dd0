// What a packet costs on its way from the socket to a shared FLV tag, on one core, without sockets.
//
//   build/bench/tests/codec_bench [seconds]
//
// The stream is that of the project's figures: H.264 of 25 pictures a second and G.711 at about 4.1 Mbit/s in packets
// of at most 1,400 bytes of payload, many streams by turns so that caches see what a server's see.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "gb28181/clock.hpp"
#include "gb28181/flv.hpp"
#include "gb28181/ps_demux.hpp"
#include "gb28181/reorder.hpp"
#include "gb28181/rtp.hpp"
#include "support.hpp"

namespace {

std::uint64_t allocations = 0;

}  // namespace

// The standard's replaceable functions, counted.
void* operator new(std::size_t size) {
    ++allocations;
    void* const memory = std::malloc(size);  // NOLINT(cppcoreguidelines-no-malloc)
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }               // NOLINT
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }  // NOLINT

namespace {

using namespace gb28181;  // NOLINT(google-build-using-namespace)

struct Chain {
    ReorderBuffer reorder;
    PsDemuxer demuxer;
    StreamClock clock;
    FlvMuxer muxer{FlvHevc::enhanced, 0};
    std::uint16_t sequence_number = 0;
    std::size_t next = 0;
};

enum class Depth { parse, reorder, demux, clock, flv };

struct Result {
    double ns_per_packet;
    double allocations_per_packet;
    std::uint64_t frames;
};

Result run(const std::vector<Bytes>& packets, Depth depth, std::size_t streams, double seconds) {
    std::vector<std::unique_ptr<Chain>> chains;
    for (std::size_t index = 0; index < streams; ++index) {
        chains.push_back(std::make_unique<Chain>());
        chains.back()->next = index * 37 % packets.size();
    }
    std::vector<EsUnit> units;
    ByteBuilder tag;
    Bytes datagram;
    std::uint64_t count = 0;
    std::uint64_t frames = 0;
    double now = 0.0;
    std::uint64_t first_allocation = 0;
    std::uint64_t first_count = 0;
    auto start = std::chrono::steady_clock::now();
    auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    bool warm = false;
    while (!warm || elapsed() < seconds) {
        for (const auto& chain : chains) {
            for (int burst = 0; burst < 8; ++burst) {
                const Bytes& packet = packets[chain->next];
                chain->next = (chain->next + 1) % packets.size();
                datagram.assign(packet.begin(), packet.end());  // as recvmmsg does
                datagram[2] = static_cast<std::uint8_t>(chain->sequence_number >> 8);
                datagram[3] = static_cast<std::uint8_t>(chain->sequence_number);
                ++chain->sequence_number;
                ++count;
                const auto read = RtpPacket::parse(datagram);
                if (!read) std::abort();
                if (depth == Depth::parse) continue;
                if (!chain->reorder.pass(*read)) {
                    std::vector<Ordered> ordered;
                    chain->reorder.push(*read, now, ordered);
                }
                if (depth == Depth::reorder) continue;
                chain->demuxer.feed(read->payload, read->timestamp, read->marker, now, units);
                for (EsUnit& unit : units) {
                    ++frames;
                    if (depth == Depth::demux) continue;
                    const Frame frame = chain->clock.frame(std::move(unit));
                    if (depth == Depth::clock) continue;
                    tag.reserve(chain->muxer.bound(frame));
                    chain->muxer.mux(frame, tag);
                    const Buffer whole = tag.finish();
                    if (whole.empty()) std::abort();
                }
                units.clear();
            }
        }
        now += 0.001;
        if (!warm && count > packets.size() * streams) {
            warm = true;
            start = std::chrono::steady_clock::now();
            first_allocation = allocations;
            first_count = count;
            frames = 0;
        }
    }
    const auto packets_done = static_cast<double>(count - first_count);
    return {elapsed() * 1e9 / packets_done, static_cast<double>(allocations - first_allocation) / packets_done, frames};
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
    const std::vector<Bytes> packets = test::camera_packets(100);
    std::size_t bytes = 0;
    for (const Bytes& packet : packets) bytes += packet.size();
    std::printf("%zu packets of %zu bytes in the mean\n", packets.size(), bytes / packets.size());
    struct Row {
        const char* name;
        Depth depth;
    };
    for (const Row& row : {Row{"copy in + RTP header", Depth::parse}, Row{"+ reorder", Depth::reorder},
                           Row{"+ PS demux", Depth::demux}, Row{"+ stream clock", Depth::clock},
                           Row{"+ FLV tag", Depth::flv}}) {
        for (const std::size_t streams : {std::size_t{1}, std::size_t{200}}) {
            const Result result = run(packets, row.depth, streams, seconds);
            std::printf("%-22s %4zu streams: %7.1f ns a packet, %.4f allocations a packet, %llu frames\n", row.name,
                        streams, result.ns_per_packet, result.allocations_per_packet,
                        static_cast<unsigned long long>(result.frames));
        }
    }
    return 0;
}
