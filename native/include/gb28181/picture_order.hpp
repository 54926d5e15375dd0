// In which order pictures are shown, as far as their headers tell: for pictures whose PES carries no time (MED-37).
//
// H.264 8.2.1 and H.265 8.3.1: each picture has an order count, of which its slice headers carry the low bits. Two
// pictures of one coded video sequence that are near each other are shown as far apart as their counts differ.
#pragma once

#include <cstdint>
#include <optional>

#include "gb28181/bytes.hpp"
#include "gb28181/frame.hpp"
#include "gb28181/nal.hpp"

namespace gb28181 {

/// What the parameter sets of one track tell about the order of its pictures.
class PictureOrder {
public:
    explicit PictureOrder(const Track& track);

    /// Pictures that may be decoded before and shown after another one; 0 also where nothing is told.
    [[nodiscard]] std::int64_t delay() const noexcept { return delay_; }
    /// Pictures may be reordered and their headers say how.
    [[nodiscard]] bool is_coded() const noexcept { return is_coded_; }

    /// How many frames after `earlier` the access unit `later` is shown; negative: before it. Nothing when it cannot
    /// be read, or when `later` begins a sequence, whose counts begin anew.
    [[nodiscard]] std::optional<double> frames_between(ByteView earlier, ByteView later) const;

private:
    /// The low bits of a picture's order count, and whether counting begins with it.
    struct Count {
        std::int64_t low_bits;
        bool begins;
    };
    [[nodiscard]] std::optional<Count> count(ByteView access_unit) const;
    [[nodiscard]] std::optional<Count> count_h264(int kind, ByteView head) const;
    [[nodiscard]] std::optional<Count> count_h265(int kind, ByteView head) const;

    Codec codec_;
    std::optional<nal::SequenceInfo> info_;
    std::int64_t delay_ = 0;
    bool is_coded_ = false;
    bool output_flag_present_ = false;
    std::uint64_t extra_bits_ = 0;
};

}  // namespace gb28181
