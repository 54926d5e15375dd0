// From the workers to the control plane: events, frames and complaints in order, woken by one descriptor.
//
// A worker collects what it has to say during a turn and puts it here once at the turn's end; the lock is taken once
// a turn and never per packet. Frames for a consumer that does not take them are bounded by its `FrameLink`.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "gb28181/frame.hpp"
#include "gb28181/sockets.hpp"
#include "gb28181/spec.hpp"

namespace gb28181 {

/// What a frame sink and its consumer share.
struct FrameLink {
    /// Payload bytes on their way; the worker adds, the consumer takes off.
    std::atomic<std::size_t> pending_bytes{0};
};

struct FrameNotice {
    SinkId sink = 0;
    Frame frame;
    std::shared_ptr<FrameLink> link;
};

/// A mistake of ours that was survived.
struct Complaint {
    std::string text;
};

using Notice = std::variant<Event, FrameNotice, Complaint>;

class Outbox {
public:
    Outbox();

    /// Readable while there is something to take.
    [[nodiscard]] int fd() const noexcept { return wake_.get(); }
    /// Takes all of `batch`, which is empty afterwards. Any thread.
    void put(std::vector<Notice>& batch);
    /// Everything so far, appended to `out`. The control thread.
    void take(std::vector<Notice>& out);

private:
    UniqueFd wake_;
    std::mutex lock_;
    std::vector<Notice> notices_;
};

}  // namespace gb28181
