// Writes the seeds of every harness: small right inputs, from which a fuzzer goes further than from nothing.
//   seeds DIRECTORY      makes DIRECTORY/<harness>/<name>
#include "seeds.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: seeds DIRECTORY\n");
        return 2;
    }
    for (const gb28181::fuzz::Seed& seed : gb28181::fuzz::seeds()) {
        const std::filesystem::path directory = std::filesystem::path(argv[1]) / seed.harness;
        std::filesystem::create_directories(directory);
        std::ofstream file(directory / seed.name, std::ios::binary);
        file.write(reinterpret_cast<const char*>(seed.bytes.data()), static_cast<std::streamsize>(seed.bytes.size()));
        if (!file) return 1;
    }
    return 0;
}
