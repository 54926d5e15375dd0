#include "gb28181/outbox.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <system_error>

namespace gb28181 {
namespace {

// Notices that wait for a control thread that stands still; then what only informs is left out.
constexpr std::size_t max_waiting = 65'536;

// Nothing goes wrong without it. All else begins or ends something.
bool only_informs(const Notice& notice) {
    if (std::holds_alternative<Complaint>(notice)) return true;
    const auto* const event = std::get_if<Event>(&notice);
    if (event == nullptr) return false;
    return event->kind == EventKind::connected || event->kind == EventKind::quirk ||
           event->kind == EventKind::source_conflict || event->kind == EventKind::ssrc_mismatch;
}

}  // namespace

Outbox::Outbox() : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (!wake_) throw std::system_error(errno, std::generic_category(), "eventfd");
}

void Outbox::put(std::vector<Notice>& batch) {
    if (batch.empty()) return;
    bool was_empty = false;
    {
        const std::lock_guard guard(lock_);
        was_empty = notices_.empty();
        if (was_empty) {
            notices_.swap(batch);
        } else {
            if (notices_.size() > max_waiting) std::erase_if(batch, only_informs);
            notices_.insert(notices_.end(), std::make_move_iterator(batch.begin()),
                            std::make_move_iterator(batch.end()));
        }
    }
    batch.clear();
    if (was_empty) {
        const std::uint64_t one = 1;
        // Fails only when the counter is full, and then the reader is awake already.
        [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
    }
}

void Outbox::take(std::vector<Notice>& out) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
    const std::lock_guard guard(lock_);
    if (out.empty()) {
        out.swap(notices_);
    } else {
        out.insert(out.end(), std::make_move_iterator(notices_.begin()), std::make_move_iterator(notices_.end()));
        notices_.clear();
    }
}

}  // namespace gb28181
