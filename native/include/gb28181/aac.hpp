// AAC: ADTS headers (ISO 13818-7 6.2) and AudioSpecificConfig (ISO 14496-3 1.6.2.1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/bytes.hpp"

namespace gb28181::aac {

inline constexpr int samples_per_frame = 1024;
inline constexpr std::array<int, 13> sample_rates = {96000, 88200, 64000, 48000, 44100, 32000, 24000,
                                                     22050, 16000, 12000, 11025, 8000,  7350};

/// AAC-LC, 8 kHz, mono: what GB/T 28181-2022 C.2.7 recommends, and the guess where nothing tells.
[[nodiscard]] ByteView default_config() noexcept;

struct AdtsHeader {
    /// Audio object type; 2 is LC.
    int object_type = 0;
    int sample_rate_index = 0;
    /// 0: told in the stream.
    int channels = 0;
    /// 7, or 9 with a checksum.
    std::size_t header_size = 0;
    /// With the header.
    std::size_t frame_size = 0;
    /// Raw data blocks in the frame.
    int blocks = 0;

    [[nodiscard]] int sample_rate() const noexcept {
        return sample_rates[static_cast<std::size_t>(sample_rate_index)];
    }
    /// The AudioSpecificConfig that says the same.
    [[nodiscard]] std::array<std::uint8_t, 2> config() const noexcept;
};

/// The ADTS header at `position`; nothing where there is none or it is cut off. Layer 0 tells AAC from MP2.
[[nodiscard]] std::optional<AdtsHeader> parse_adts(ByteView data, std::size_t position = 0) noexcept;

/// `data` is a whole number of ADTS frames, or at least two and the start of another.
[[nodiscard]] bool is_adts_chain(ByteView data) noexcept;

struct AudioSpecificConfig {
    int object_type = 0;
    int sample_rate = 0;
    int channels = 0;
};

/// Nothing when it cannot be read.
[[nodiscard]] std::optional<AudioSpecificConfig> parse_audio_specific_config(ByteView config) noexcept;

/// Header of seven bytes for a raw data block of `size` bytes; nothing where the configuration or the size has none.
[[nodiscard]] std::optional<std::array<std::uint8_t, 7>> build_adts(ByteView config, std::size_t size) noexcept;

/// Access units behind AU headers of 13 bits size and 3 bits index (RFC 3640 3.3.6, AAC-hbr). False where the
/// lengths do not add up to the payload exactly.
[[nodiscard]] bool split_au_headers(ByteView data, std::vector<ByteView>& units);

}  // namespace gb28181::aac
