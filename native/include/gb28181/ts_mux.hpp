// Transport stream (ISO 13818-1 2.4), writer: one program with at most one video and one audio track.
//
// A frame is one PES, cut into packets of 188 bytes. The tables stand before each key frame, before the first frame of a
// track that the map does not name yet, and at least every half second. G.711 has the stream types that GB/T 28181 gives
// it in program streams (C.1); MPEG assigns it none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gb28181/container.hpp"
#include "gb28181/frame.hpp"

namespace gb28181 {

/// One transport stream. Its times count from a base, else from the first frame, and begin at one second.
class TsMuxer final : public ContainerMuxer {
public:
    explicit TsMuxer(std::span<const TrackPtr> tracks = {}, std::optional<std::int64_t> base_90k = std::nullopt);

    static constexpr std::size_t packet_size = 188;

    /// The container has this codec.
    [[nodiscard]] static bool carries(Codec codec) noexcept;

    /// Nothing: the tables stand before each key frame.
    void header(std::span<const TrackPtr> tracks, std::optional<std::int64_t> at_90k, ByteBuilder& out) override;
    /// For a consumer that gets the last frame next: the continuity counters go on with it (2.4.3.5). The arguments do
    /// not matter.
    void configuration(std::span<const TrackPtr> tracks, std::int64_t at_90k, ByteBuilder& out) override;
    /// The packets of a frame; nothing if the container has no such codec or an AAC packet no ADTS form.
    void mux(const Frame& frame, ByteBuilder& out) override;
    [[nodiscard]] std::size_t bound(const Frame& frame) const override;

private:
    /// What is in the streams of one packet identifier so far.
    struct Pid {
        std::uint16_t number;
        std::uint8_t continuity = 0;
        bool used = false;
        // As they were before the last frame
        std::uint8_t continuity_before = 0;
        bool used_before = false;
    };
    struct Elementary {
        Pid pid;
        int stream_type = 0;  // 0: no such track
        std::int64_t last_dts_90k = -1;
    };

    /// Packets of one unit, given in two pieces, behind the first one's adaptation field.
    void append(Pid& pid, ByteView head, ByteView body, ByteView adaptation, ByteBuilder& out);
    void append_table(Pid& pid, ByteView section, ByteBuilder& out);
    void make_tables();
    /// The PES header and what else stands before the payload goes to `head_`; what is left of the payload. False where
    /// the frame has no form here.
    [[nodiscard]] bool begin_unit(const Frame& frame, std::int64_t pts, std::int64_t dts, ByteView& payload);

    std::optional<std::int64_t> base_;
    Pid pat_{.number = 0x0000};
    Pid map_{.number = 0x1000};
    std::array<Elementary, 2> streams_{{{.pid = {.number = 0x0100}}, {.pid = {.number = 0x0101}}}};  // by TrackKind
    Bytes association_;
    Bytes map_section_;
    std::uint8_t version_ = 0;
    std::optional<std::int64_t> tables_at_;
    ByteBuilder head_;
};

}  // namespace gb28181
