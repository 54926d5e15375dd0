// Which reader takes a payload apart: by what the bytes are, not by what was agreed (MED-18, MED-19).
//
// One program stream reader serves all payload types that carry PS; elementary streams have a reader for each payload
// type. What cannot be read is dropped, counted and named. Same decisions as media/reference/intake.py.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "gb28181/demuxer.hpp"
#include "gb28181/ps_demux.hpp"
#include "gb28181/rtp.hpp"
#include "gb28181/source.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/units.hpp"

namespace gb28181 {

/// Of the RTP timestamp, for jitter.
[[nodiscard]] std::uint32_t rtp_clock_rate(std::string_view encoding);

/// NAL units without start codes.
using ParameterSets = std::shared_ptr<const std::vector<Bytes>>;

/// Owner of the readers of one epoch of one receiver.
class Intake {
public:
    /// `payloads` belongs to the receiver and may change (`agree`); readers that run stay.
    /// `sets` too, and may be null.
    explicit Intake(std::shared_ptr<const Payloads> payloads, ParameterSets sets = nullptr)
        : payloads_(std::move(payloads)), sets_(std::move(sets)) {}

    void agree(std::shared_ptr<const Payloads> payloads) { payloads_ = std::move(payloads); }

    /// Parameter sets of the SDP: used until the stream has its own (MED-35).
    void preset(ParameterSets sets);

    /// What a payload of a source that is not accepted yet looks like.
    [[nodiscard]] Looks looks(const RtpPacket& packet) const;
    /// A packet in order; appends the units that it completed.
    void push(const RtpPacket& packet, double now, std::vector<EsUnit>& out);
    /// Packets of this type are known to be pieces of a program stream.
    [[nodiscard]] bool carries_program(std::uint8_t payload_type) const noexcept {
        for (const Reader& reader : readers_) {
            if (reader.payload_type == payload_type) return program_ && reader.demuxer == program_.get();
        }
        return false;
    }
    /// Some payload type carries a program stream, as far as is known.
    [[nodiscard]] bool has_program() const noexcept { return program_ != nullptr; }
    /// Packets were lost before the next one.
    void gap();
    /// The source has ended.
    void flush(std::vector<EsUnit>& out);
    /// When `flush_after` may give something out.
    [[nodiscard]] double deadline() const;
    void flush_after(double now, std::vector<EsUnit>& out);

    /// Tolerances that fired so far.
    [[nodiscard]] QuirkSet quirks() const;
    [[nodiscard]] std::uint64_t errors() const;
    /// Video was declared, or nothing was declared and it may still come.
    [[nodiscard]] bool video_expected() const;
    /// Audio was declared, whether or not it has come (MED-16).
    [[nodiscard]] bool audio_expected() const;

private:
    static constexpr std::size_t max_readers = 8;

    struct Reader {
        std::uint8_t payload_type = 0;
        Demuxer* demuxer = nullptr;  // the program's, one of `elementary_`, or none
    };

    [[nodiscard]] Reader* find(std::uint8_t payload_type) noexcept;
    Demuxer* open(std::uint8_t payload_type, ByteView payload);
    Demuxer* reconsider(std::uint8_t payload_type, ByteView payload, Demuxer* reader);
    template <class Action>
    void each(Action&& action) const;
    void hand_over(Demuxer& reader) const;

    std::shared_ptr<const Payloads> payloads_;
    ParameterSets sets_;
    std::unique_ptr<PsDemuxer> program_;
    std::vector<std::unique_ptr<Demuxer>> elementary_;
    std::vector<Reader> readers_;
    unsigned probed_ = 0;
    std::optional<double> began_at_;
    double now_ = 0;
    std::uint64_t dropped_ = 0;
    QuirkSet told_;
};

}  // namespace gb28181
