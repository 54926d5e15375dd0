// The little of RFC 6455 that a server needs which only sends: data frames out, control frames in and out.
//
// The handshake is the listener's. A client of a media stream has nothing to say but ping, pong and close, so data
// frames from it are read over; control frames are at most 125 bytes (5.5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace gb28181::websocket {

enum class Opcode : std::uint8_t { binary = 0x2, close = 0x8, ping = 0x9, pong = 0xA };

inline constexpr std::uint16_t going_away = 1001;
inline constexpr std::uint16_t protocol_error = 1002;
inline constexpr std::size_t max_head = 10;

/// Header of an unmasked, final frame (RFC 6455 5.2) appended to `out`.
void append_head(std::string& out, Opcode opcode, std::uint64_t size);
/// Bytes that `append_head` makes.
[[nodiscard]] std::size_t head_size(std::uint64_t size) noexcept;
[[nodiscard]] std::string close_frame(std::uint16_t code);

struct Control {
    std::uint8_t opcode = 0;
    std::string payload;
};

/// Cuts what a client sends. Bounded: the payload of data frames is never kept.
class ClientFrames {
public:
    /// Control frames are appended to `out`. False: the client broke the protocol; close with `protocol_error`.
    [[nodiscard]] bool feed(std::span<const std::uint8_t> data, std::vector<Control>& out);

private:
    std::string buffer_;
    std::uint64_t skip_ = 0;
};

}  // namespace gb28181::websocket
