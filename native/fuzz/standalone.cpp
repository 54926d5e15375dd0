// A harness without libFuzzer: its seeds, and mutations of them that depend on nothing but their number.
//   NAME_check HARNESS [RUNS]
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "fuzz.hpp"
#include "seeds.hpp"

namespace {

using gb28181::Bytes;

void mutate(Bytes& bytes, std::mt19937& random) {
    static const std::vector<Bytes> words = {
        {0, 0, 1}, {0, 0, 0, 1}, {0, 0, 1, 0xBA}, {0, 0, 1, 0xBC}, {0, 0, 1, 0xE0}, {0, 0, 1, 0xC0}, {0, 0, 1, 0xBD},
        {0x67, 0x42}, {0x42, 1, 1}, {0xFF, 0xF1}, {0, 0}, {0xFF, 0xFF}, {0x80}, {0x24, 0}};
    const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
    for (std::size_t count = 1 + below(8); count > 0; --count) {
        const std::size_t place = below(bytes.size() + 1);
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(place);
        const std::size_t left = bytes.size() - place;
        switch (below(5)) {
            case 0:
                if (left != 0) *at = static_cast<std::uint8_t>(random());
                break;
            case 1:
                bytes.erase(at, at + static_cast<std::ptrdiff_t>(below(left < 200 ? left + 1 : 200)));
                break;
            case 2: {
                const Bytes& word = words[below(words.size())];
                bytes.insert(at, word.begin(), word.end());
                break;
            }
            case 3: {
                const Bytes again(at, at + static_cast<std::ptrdiff_t>(below(left < 100 ? left + 1 : 100)));
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)), again.begin(), again.end());
                break;
            }
            default:
                if (left != 0) *at = static_cast<std::uint8_t>(*at ^ 1U << below(8));
                break;
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    const std::string harness = argv[1];
    const long runs = argc > 2 ? std::atol(argv[2]) : 2000;
    std::size_t used = 0;
    for (const gb28181::fuzz::Seed& seed : gb28181::fuzz::seeds()) {
        if (seed.harness != harness) continue;
        ++used;
        LLVMFuzzerTestOneInput(seed.bytes.data(), seed.bytes.size());
        for (long run = 0; run < runs; ++run) {
            std::mt19937 random(static_cast<std::mt19937::result_type>(run));
            Bytes bytes = seed.bytes;
            mutate(bytes, random);
            LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
        }
    }
    if (used == 0) {
        std::fprintf(stderr, "no seeds for %s\n", harness.c_str());
        return 1;
    }
    std::printf("%s: %zu seeds, %ld mutations of each\n", harness.c_str(), used, runs);
    return 0;
}
