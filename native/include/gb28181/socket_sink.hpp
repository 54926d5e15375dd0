// One consumer on a socket: a bounded queue of shared buffers, written when the kernel takes them.
//
// Theory of operation. The bytes are made once for all consumers of a variant, so a queue holds references and not
// copies. What a turn of the worker queued is written at its end in one call, or what `merge_s` brought. Nothing a consumer does costs the others
// anything: writes never block; when its queue is over the limit it skips to the next key frame; when nothing could be
// written for `stall_s` it is dropped (fault row F-10). What it sends is read and thrown away, except WebSocket control
// frames; the end of its sending is the end of the consumer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gb28181/buffer.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/spec.hpp"
#include "gb28181/websocket.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

class Stream;

class SocketSink final : public EpollHandler {
public:
    SocketSink(SinkId id, UniqueFd fd, const SocketSinkSpec& spec, std::string terminator);
    ~SocketSink() override;

    /// The worker that owns it begins to watch the socket.
    void open(Worker& worker, std::shared_ptr<Stream> stream);
    /// The container's head and the kept group of pictures; from then on frames follow without a break.
    void start(const Buffer& head, const std::vector<Buffer>& group);
    /// One frame. `key`: a consumer can begin here; one that skipped gets the `configuration` first.
    void write(const Buffer& data, bool key, const Buffer& configuration);
    /// Offer the kernel what waits; the worker calls it at the end of a turn.
    void flush();
    /// Called several times a second: write what was held back, drop a consumer that takes nothing.
    void check(double now);
    /// End the consumer: what waits is offered to the kernel once. Idempotent.
    void close(std::string_view reason);

    /// What the consumer sent.
    void take_input(ByteView data);
    void ready(std::uint32_t events) override;

    [[nodiscard]] SinkId id() const noexcept { return id_; }
    [[nodiscard]] const std::shared_ptr<Stream>& stream() const noexcept { return stream_; }
    [[nodiscard]] const VariantKey& variant() const noexcept { return variant_; }
    [[nodiscard]] bool closed() const noexcept { return closed_; }
    [[nodiscard]] bool skipping() const noexcept { return skipping_; }
    [[nodiscard]] std::size_t queued_bytes() const noexcept { return queued_bytes_; }
    [[nodiscard]] std::uint64_t bytes_out() const noexcept { return bytes_out_; }
    [[nodiscard]] std::uint64_t frames_dropped() const noexcept { return frames_dropped_; }

    /// Waits to be flushed; the worker's mark.
    bool marked = false;

private:
    void append(const Buffer& piece);
    /// Append, and have it written at the end of the turn.
    void enqueue(const Buffer& piece);
    /// Is it too early to write what was appended?
    [[nodiscard]] bool holds() noexcept;
    void enqueue_text(std::string_view text);
    void offer();
    void sent(std::size_t count);
    void watch_writable(bool wanted);
    [[nodiscard]] bool over_limit(std::size_t size) const noexcept;

    const SinkId id_;
    UniqueFd fd_;
    const VariantKey variant_;
    std::string terminator_;
    const std::size_t limit_;
    const double stall_s_;
    const double merge_s_;
    double held_until_ = 0;  // 0: nothing is held back
    Worker* worker_ = nullptr;
    std::shared_ptr<Stream> stream_;
    std::optional<websocket::ClientFrames> frames_;
    std::deque<Buffer> queue_;
    std::size_t offset_ = 0;  // bytes of the first entry that are written already
    std::size_t queued_bytes_ = 0;
    std::size_t exempt_ = 0;  // of the kept group, still queued: shared, and useless when cut
    bool writing_ = false;    // waits for the kernel
    bool broken_ = false;     // the kernel refused
    bool skipping_ = true;    // waits for a key frame
    bool closed_ = false;
    double progress_at_ = 0;
    std::uint64_t bytes_out_ = 0;
    std::uint64_t frames_dropped_ = 0;
};

}  // namespace gb28181
