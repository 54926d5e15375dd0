#include "gb28181/websocket.hpp"

#include <algorithm>

namespace gb28181::websocket {
namespace {

constexpr std::uint64_t max_control = 125;
constexpr std::uint64_t max_data = 1U << 20U;

std::uint8_t byte_at(const std::string& text, std::size_t index) { return static_cast<std::uint8_t>(text[index]); }

}  // namespace

std::size_t head_size(std::uint64_t size) noexcept {
    if (size < 126) {
        return 2;
    }
    return size < 65536 ? 4 : 10;
}

void append_head(std::string& out, Opcode opcode, std::uint64_t size) {
    out.push_back(static_cast<char>(0x80U | static_cast<unsigned>(opcode)));
    int bytes = 0;
    if (size < 126) {
        out.push_back(static_cast<char>(size));
    } else if (size < 65536) {
        out.push_back(static_cast<char>(126));
        bytes = 2;
    } else {
        out.push_back(static_cast<char>(127));
        bytes = 8;
    }
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
        out.push_back(static_cast<char>(size >> static_cast<unsigned>(shift) & 0xFFU));
    }
}

std::string close_frame(std::uint16_t code) {
    std::string out;
    append_head(out, Opcode::close, 2);
    out.push_back(static_cast<char>(code >> 8U));
    out.push_back(static_cast<char>(code & 0xFFU));
    return out;
}

bool ClientFrames::feed(std::span<const std::uint8_t> data, std::vector<Control>& out) {
    buffer_.append(reinterpret_cast<const char*>(data.data()), data.size());
    std::size_t at = 0;
    bool well = true;
    while (at < buffer_.size()) {
        const std::size_t left = buffer_.size() - at;
        if (skip_ > 0) {
            const auto taken = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, left));
            at += taken;
            skip_ -= taken;
            continue;
        }
        if (left < 2) {
            break;
        }
        const unsigned first = byte_at(buffer_, at);
        const unsigned second = byte_at(buffer_, at + 1);
        if ((first & 0x70U) != 0 || (second & 0x80U) == 0) {
            well = false;  // reserved bits without an extension, or a frame that is not masked
            break;
        }
        std::uint64_t size = second & 0x7FU;
        const std::size_t head = size == 126 ? 4 : size == 127 ? 10 : 2;
        if (left < head + 4) {
            break;
        }
        if (head > 2) {
            size = 0;
            for (std::size_t index = 2; index < head; ++index) {
                size = size << 8U | byte_at(buffer_, at + index);
            }
        }
        const unsigned opcode = first & 0x0FU;
        if ((opcode & 0x8U) != 0) {
            if (size > max_control || (first & 0x80U) == 0) {
                well = false;
                break;
            }
            if (left < head + 4 + size) {
                break;
            }
            Control control{.opcode = static_cast<std::uint8_t>(opcode), .payload = {}};
            for (std::size_t index = 0; index < size; ++index) {
                const unsigned mask = byte_at(buffer_, at + head + (index & 3U));
                control.payload.push_back(static_cast<char>(byte_at(buffer_, at + head + 4 + index) ^ mask));
            }
            out.push_back(std::move(control));
            at += head + 4 + static_cast<std::size_t>(size);
        } else {
            if (size > max_data) {
                well = false;
                break;
            }
            at += head + 4;
            skip_ = size;
        }
    }
    buffer_.erase(0, at);
    return well;
}

}  // namespace gb28181::websocket
