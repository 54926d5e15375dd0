// Elementary streams in RTP: H.264 (RFC 6184), H.265 (RFC 7798), AAC (RFC 3640), G.711 and the like (RFC 3551).
//
// The payload formats are taken apart into NAL units or samples and handed to the same assemblers as a program stream's
// PES, so pictures end, codecs are found and damage is told in the same way. "Joined in the middle of a fragment" and
// "more packets are needed" are ordinary outcomes, not errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gb28181/audio.hpp"
#include "gb28181/demuxer.hpp"
#include "gb28181/video.hpp"

namespace gb28181 {

/// 33-bit PTS on 90 kHz of the 32-bit timestamps of a payload's clock.
class RtpPts {
public:
    explicit RtpPts(int clock_rate) noexcept : clock_rate_(clock_rate) {}
    [[nodiscard]] std::optional<std::int64_t> of(std::optional<std::uint32_t> rtp_timestamp) noexcept;

private:
    int clock_rate_;
    std::optional<std::int64_t> last_;  // unwrapped
};

/// What H.264 and H.265 share: single units, aggregates and fragments.
class VideoDepacketiser : public Demuxer {
public:
    void feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
              std::vector<EsUnit>& out) override;
    void gap() override;
    [[nodiscard]] std::optional<double> deadline() const override;
    void flush_after(double now, std::vector<EsUnit>& out) override;
    void flush(std::vector<EsUnit>& out) override;
    [[nodiscard]] std::vector<TrackPtr> tracks() const override;
    [[nodiscard]] std::uint64_t tracks_version() const override { return assembler_.version(); }
    void preset(Codec codec, const std::vector<Bytes>& parameter_sets) override {
        if (codec == codec_) assembler_.preset(codec, parameter_sets);
    }

protected:
    /// One packet as `feed` got it.
    struct Packet {
        double now;
        std::optional<std::uint32_t> rtp_timestamp;
    };

    VideoDepacketiser(Codec codec, int payload_type, std::size_t max_unit);

    virtual void take(ByteView payload, const Packet& packet) = 0;
    void unit(ByteView unit, const Packet& packet);
    void annexb(ByteView payload, const Packet& packet);
    void aggregate(ByteView payload, std::size_t position, const Packet& packet);
    /// FU of either format: `flags` has S in bit 7 and E in bit 6, `header` is the unit's own.
    void fragment(ByteView header, std::uint8_t flags, ByteView data, const Packet& packet);

private:
    void end_fragment();

    Codec codec_;
    RtpPts clock_{90000};
    VideoAssembler assembler_;
    std::optional<std::uint32_t> marked_;
    bool in_fragment_ = false;
};

/// RFC 6184: single NAL unit, STAP-A, FU-A. STAP-B, MTAP and FU-B (interleaved mode) are counted and dropped.
class H264Depacketiser final : public VideoDepacketiser {
public:
    explicit H264Depacketiser(int payload_type, std::size_t max_unit = VideoAssembler::default_max_unit)
        : VideoDepacketiser(Codec::h264, payload_type, max_unit) {}

protected:
    void take(ByteView payload, const Packet& packet) override;
};

/// RFC 7798 without DONL: single NAL unit, AP (48), FU (49).
class H265Depacketiser final : public VideoDepacketiser {
public:
    explicit H265Depacketiser(int payload_type, std::size_t max_unit = VideoAssembler::default_max_unit)
        : VideoDepacketiser(Codec::h265, payload_type, max_unit) {}

protected:
    void take(ByteView payload, const Packet& packet) override;
};

/// G.711, G.722.1, G.723.1, G.729, SVAC audio: a payload is a packet of samples (RFC 3551).
class AudioDepacketiser final : public Demuxer {
public:
    AudioDepacketiser(int payload_type, Codec codec, int clock_rate = 8000);
    void feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
              std::vector<EsUnit>& out) override;
    void gap() override;
    void flush(std::vector<EsUnit>& out) override { static_cast<void>(out); }
    [[nodiscard]] std::vector<TrackPtr> tracks() const override;
    [[nodiscard]] std::uint64_t tracks_version() const override { return assembler_.version(); }

private:
    RtpPts clock_;
    AudioAssembler assembler_;
};

/// RFC 3640 mode AAC-hbr (13 bits size, 3 bits index), with fragments; ADTS frames as they are also read.
class AacDepacketiser final : public Demuxer {
public:
    /// `clock_rate` 0: the sampling rate of `config`. A `config` that cannot be read is replaced by the default.
    explicit AacDepacketiser(int payload_type, ByteView config = aac::default_config(), int clock_rate = 0);
    void feed(ByteView payload, std::optional<std::uint32_t> rtp_timestamp, bool marker, double now,
              std::vector<EsUnit>& out) override;
    void gap() override;
    void flush(std::vector<EsUnit>& out) override { static_cast<void>(out); }
    [[nodiscard]] std::vector<TrackPtr> tracks() const override;
    [[nodiscard]] std::uint64_t tracks_version() const override { return assembler_.version(); }

private:
    [[nodiscard]] ByteView join(ByteView payload);

    RtpPts clock_;
    AudioAssembler assembler_;
    Bytes fragment_;  // with the AU header of the whole in front
    std::size_t fragment_size_ = 0;
};

}  // namespace gb28181
