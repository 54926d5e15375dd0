// Connecting to a peer that listens: 3 tries, 1 s apart (GB/T 28181-2022 Annex D), 3 s each.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "gb28181/sockets.hpp"
#include "gb28181/worker.hpp"

namespace gb28181 {

class Dialler final : public EpollHandler {
public:
    /// A connection, or an empty descriptor and why there is none. Called once, perhaps from within `start`; the owner
    /// then buries the dialler.
    using Done = std::function<void(UniqueFd connection, std::string reason)>;

    /// `local`: the address to dial from, with port 0 for any; nullptr: whatever the host takes.
    Dialler(const SocketAddress& peer, const SocketAddress* local, Done done);

    /// The first try.
    void start(Worker& worker);
    /// Watched by another worker from now on.
    void enter(Worker& worker);
    void leave();
    /// Called several times a second.
    void tick(double now);
    void ready(std::uint32_t events) override;

    [[nodiscard]] const SocketAddress& peer() const noexcept { return peer_; }

private:
    void try_next(double now);
    void tried(int error);

    SocketAddress peer_;
    SocketAddress local_;
    Done done_;
    Worker* worker_ = nullptr;
    UniqueFd fd_;     // empty: pauses
    int tries_ = 0;
    double due_ = 0;  // the next try, or the end of this one
};

}  // namespace gb28181
