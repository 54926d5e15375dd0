#include "gb28181/aac.hpp"

#include <algorithm>

namespace gb28181::aac {
namespace {

constexpr std::array<std::uint8_t, 2> fallback_config = {0x15, 0x88};

}  // namespace

ByteView default_config() noexcept { return {fallback_config.data(), fallback_config.size()}; }

std::array<std::uint8_t, 2> AdtsHeader::config() const noexcept {
    const int value = object_type << 11 | sample_rate_index << 7 | channels << 3;
    return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
}

std::optional<AdtsHeader> parse_adts(ByteView data, std::size_t position) noexcept {
    if (position + 7 > data.size() || data[position] != 0xFF || (data[position + 1] & 0xF6) != 0xF0) {
        return std::nullopt;
    }
    const unsigned second = data[position + 2];
    const unsigned third = data[position + 3];
    AdtsHeader header;
    header.sample_rate_index = static_cast<int>(second >> 2 & 0x0F);
    header.header_size = (data[position + 1] & 1) != 0 ? 7 : 9;
    header.frame_size = (third & 3) << 11 | static_cast<unsigned>(data[position + 4]) << 3 | data[position + 5] >> 5;
    if (header.sample_rate_index >= static_cast<int>(sample_rates.size()) ||
        header.frame_size <= header.header_size) {
        return std::nullopt;
    }
    header.object_type = static_cast<int>(second >> 6) + 1;
    header.channels = static_cast<int>((second & 1) << 2 | third >> 6);
    header.blocks = (data[position + 6] & 3) + 1;
    return header;
}

bool is_adts_chain(ByteView data) noexcept {
    std::size_t position = 0;
    int frames = 0;
    while (const std::optional<AdtsHeader> header = parse_adts(data, position)) {
        position += header->frame_size;
        ++frames;
        if (position >= data.size()) return position == data.size() || frames > 2;
    }
    return false;
}

std::optional<AudioSpecificConfig> parse_audio_specific_config(ByteView config) noexcept {
    if (config.size() < 2) return std::nullopt;
    const std::uint64_t value = static_cast<std::uint64_t>(config.u32(0)) << 8 | config[4];
    const auto index = static_cast<std::size_t>(value >> 31 & 0xF);
    AudioSpecificConfig read;
    read.object_type = static_cast<int>(value >> 35);
    if (index == 0xF) {
        if (config.size() < 5) return std::nullopt;
        read.sample_rate = static_cast<int>(value >> 7 & 0xFFFFFF);
        read.channels = static_cast<int>(value >> 3 & 0xF);
        return read;
    }
    if (index >= sample_rates.size()) return std::nullopt;
    read.sample_rate = sample_rates[index];
    read.channels = static_cast<int>(value >> 27 & 0xF);
    return read;
}

std::optional<std::array<std::uint8_t, 7>> build_adts(ByteView config, std::size_t size) noexcept {
    const auto read = parse_audio_specific_config(config);
    if (!read || read->object_type < 1 || read->object_type > 4 || size > 0x1FFF - 7) return std::nullopt;
    const auto* const rate = std::find(sample_rates.begin(), sample_rates.end(), read->sample_rate);
    if (rate == sample_rates.end()) return std::nullopt;
    const auto profile = static_cast<unsigned>(read->object_type - 1);
    const auto index = static_cast<unsigned>(rate - sample_rates.begin());
    const auto channels = static_cast<unsigned>(read->channels);
    const auto frame_size = static_cast<unsigned>(size + 7);
    return std::array<std::uint8_t, 7>{0xFF,
                                       0xF1,
                                       static_cast<std::uint8_t>(profile << 6 | index << 2 | channels >> 2),
                                       static_cast<std::uint8_t>((channels & 3) << 6 | frame_size >> 11),
                                       static_cast<std::uint8_t>(frame_size >> 3),
                                       static_cast<std::uint8_t>((frame_size & 7) << 5 | 0x1F),
                                       0xFC};
}

bool split_au_headers(ByteView data, std::vector<ByteView>& units) {
    units.clear();
    if (data.size() < 4) return false;
    const std::size_t bits = data.u16(0);
    const std::size_t count = bits / 16;
    if (bits % 16 != 0 || count == 0 || 2 + 2 * count > data.size()) return false;
    std::size_t position = 2 + 2 * count;
    for (std::size_t index = 0; index < count; ++index) {
        const std::size_t size = data.u16(2 + 2 * index) >> 3;
        if (size == 0 || position + size > data.size()) return false;
        units.push_back(data.slice(position, position + size));
        position += size;
    }
    return position == data.size();
}

}  // namespace gb28181::aac
