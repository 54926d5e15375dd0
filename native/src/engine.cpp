#include "gb28181/engine.hpp"

#include <sched.h>

#include <algorithm>
#include <string>
#include <utility>

#include "gb28181/socket_sink.hpp"
#include "gb28181/variant.hpp"

namespace gb28181 {
namespace {

unsigned usable_cores() noexcept {
    cpu_set_t cores;
    if (::sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&cores)));
}

Outcome<BoundSockets> bind_sockets(const ReceiverSpec& spec, bool gro) {
    BoundSockets bound;
    if (spec.port == 0) return {.value = std::move(bound)};
    // Both where both are possible: devices send over the other one than they agreed to (INV-24).
    Outcome<UdpPair> udp = bind_udp_pair(spec.host, spec.port, gro);
    if (udp.error != 0 && spec.transport == Transport::udp) return {.error = udp.error};
    if (udp.error == 0) bound.udp = std::make_shared<const UdpPair>(std::move(udp.value));
    // UDP alone until the answer says otherwise: a listener for each camera would be a third descriptor.
    if (spec.transport == Transport::udp) return {.value = std::move(bound)};
    Outcome<UniqueFd> tcp = listen_tcp(spec.host, spec.port);
    if (tcp.error != 0 && spec.transport == Transport::tcp_passive) return {.error = tcp.error};
    bound.tcp = std::move(tcp.value);
    return {.value = std::move(bound)};
}

Outcome<SinkSockets> bind_sink(const RtpSinkSpec& spec) {
    SinkSockets bound;
    if (spec.transport == Transport::udp) {
        Outcome<UdpPair> udp = bind_udp_pair(spec.host, spec.port, false);
        if (udp.error != 0) return {.error = udp.error};
        bound.udp = std::move(udp.value);
    } else if (spec.transport == Transport::tcp_passive || spec.port != 0) {
        Outcome<UniqueFd> tcp = spec.transport == Transport::tcp_passive ? listen_tcp(spec.host, spec.port)
                                                                         : hold_tcp(spec.host, spec.port);
        if (tcp.error != 0) return {.error = tcp.error};
        bound.tcp = std::move(tcp.value);
    }
    return {.value = std::move(bound)};
}

}  // namespace

Engine::Engine(unsigned workers, bool freeze_on_loss) {
    shared_.has_gro = probe_udp_gro();
    shared_.has_gso = probe_udp_gso();
    shared_.freeze_on_loss = freeze_on_loss;
    const unsigned count = workers != 0 ? workers : usable_cores();
    for (unsigned index = 0; index < count; ++index) {
        workers_.push_back(std::make_unique<Worker>(index, shared_));
    }
    loads_.resize(count);
    for (const auto& made : workers_) made->start();
}

Engine::~Engine() { stop(); }

// ---- receivers

Outcome<ReceiverId> Engine::open_receiver(ReceiverSpec spec) {
    Outcome<BoundSockets> bound;
    std::vector<std::uint32_t> shared_ssrcs;
    if (spec.shared) {
        if (!shared_udp_) return {.error = ENOTCONN};
        const bool is_taken = std::any_of(receivers_.begin(), receivers_.end(), [&spec](const auto& entry) {
            const auto& agreed = entry.second.shared_ssrcs;
            return std::find(agreed.begin(), agreed.end(), spec.ssrc) != agreed.end();
        });
        if (is_taken) return {.error = EEXIST};
        shared_ssrcs = {spec.ssrc};
        bound.value.udp = shared_udp_;
        bound.value.shared = &worker(0);
    } else {
        bound = bind_sockets(spec, shared_.has_gro);
        if (bound.error != 0) return {.error = bound.error};
    }
    const bool spec_is_shared = spec.shared;
    const ReceiverId id = ++last_id_;
    const std::size_t place = least_loaded();
    auto board = std::make_shared<ReceiverBoard>();
    auto receiver = std::make_unique<Receiver>(id, std::move(spec), std::move(bound.value), board);
    give(place, [receiver = std::move(receiver)](Worker& owner) mutable { owner.adopt(std::move(receiver)); },
         spec_is_shared);
    receivers_.emplace(id, ReceiverPlace{.worker = place, .board = std::move(board), .shared_ssrcs = std::move(shared_ssrcs)});
    ++loads_[place];
    return {.value = id};
}

int Engine::open_shared_port(const std::string& host, std::uint16_t port) {
    Outcome<UdpPair> udp = bind_udp_pair(host, port, shared_.has_gro);
    if (udp.error != 0) return udp.error;
    Outcome<UniqueFd> tcp = listen_tcp(host, port);
    if (tcp.error != 0) return tcp.error;
    enlarge_receive_buffer(udp.value.rtp.get());
    shared_udp_ = std::make_shared<const UdpPair>(std::move(udp.value));
    worker(0).post([udp = shared_udp_, listener = std::move(tcp.value)](Worker& owner) mutable {
        owner.open_shared_port(std::move(udp), std::move(listener));
    });
    return 0;
}

void Engine::update_receiver(ReceiverId id, ReceiverUpdate update) {
    const auto found = receivers_.find(id);
    if (found == receivers_.end()) return;
    if (update.ssrc && !found->second.shared_ssrcs.empty()) found->second.shared_ssrcs.push_back(*update.ssrc);
    give(found->second.worker,
         [id, update = std::move(update)](Worker& owner) {
             if (Receiver* const receiver = owner.receiver(id)) receiver->update(update);
         },
         !found->second.shared_ssrcs.empty());
}

bool Engine::attach(ReceiverId id, StreamKey stream) {
    const auto receiver = receivers_.find(id);
    const auto target = streams_.find(stream);
    if (receiver == receivers_.end() || target == streams_.end()) return false;
    const std::size_t to = target->second.worker;
    const std::size_t from = receiver->second.worker;
    if (from != to) {
        auto moved = worker(from).call([id](Worker& owner) { return owner.detach(id); });
        give(to, [moved = std::move(moved)](Worker& owner) mutable { owner.adopt(std::move(moved)); },
             !receiver->second.shared_ssrcs.empty());
        receiver->second.worker = to;
        for (const auto& [sink, place] : sinks_) {
            if (place.through != id) continue;
            worker(place.worker).post([sink, home = &worker(to)](Worker& owner) {
                if (RtpSink* const talks = owner.rtp_sink(sink)) talks->outlet().rehome(*home);
            });
        }
        --loads_[from];
        ++loads_[to];
    }
    worker(to).post([id, stream](Worker& owner) {
        Receiver* const fed_by = owner.receiver(id);
        const auto fed = owner.stream(stream);
        if (fed_by != nullptr && fed) fed_by->attach(fed);
    });
    return true;
}

void Engine::close_receiver(ReceiverId id) {
    const auto found = receivers_.find(id);
    if (found == receivers_.end()) return;
    const std::size_t place = found->second.worker;
    receivers_.erase(found);
    --loads_[place];
    worker(place).call([id](Worker& owner) { owner.close_receiver(id); });
}

std::optional<ReceiverFacts> Engine::receiver_facts(ReceiverId id) const {
    const auto found = receivers_.find(id);
    if (found == receivers_.end()) return std::nullopt;
    return found->second.board->facts.load();
}

// ---- streams

StreamKey Engine::create_stream() {
    const StreamKey key = ++last_id_;
    const std::size_t place = least_loaded();
    auto board = std::make_shared<StreamBoard>();
    auto stream = std::make_shared<Stream>(key, board);
    worker(place).post([stream = std::move(stream)](Worker& owner) mutable { owner.adopt(std::move(stream)); });
    streams_.emplace(key, StreamPlace{.worker = place, .board = std::move(board)});
    ++loads_[place];
    return key;
}

void Engine::push(StreamKey stream, Frame frame) {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    frame.arrival = monotonic_s();
    worker(found->second.worker).post([stream, frame = std::move(frame)](Worker& owner) {
        if (const auto fed = owner.stream(stream)) fed->push(frame);
    });
}

void Engine::close_stream(StreamKey stream, std::string reason) {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    const std::size_t place = found->second.worker;
    streams_.erase(found);
    --loads_[place];
    std::erase_if(sinks_, [stream](const auto& entry) { return entry.second.stream == stream; });
    worker(place).post(
        [stream, reason = std::move(reason)](Worker& owner) { owner.close_stream(stream, reason); });
}

std::vector<TrackPtr> Engine::tracks(StreamKey stream) const {
    const auto found = streams_.find(stream);
    return found != streams_.end() ? found->second.board->tracks() : std::vector<TrackPtr>();
}

std::optional<StreamCounters> Engine::stream_counters(StreamKey stream) const {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return std::nullopt;
    return found->second.board->counters.load();
}

// ---- sinks

SinkId Engine::add_socket_sink(StreamKey stream, int fd, SocketSinkSpec spec) {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return 0;
    const SinkId id = ++last_id_;
    std::string received = std::move(spec.received);
    auto sink = std::make_unique<SocketSink>(id, UniqueFd(fd), spec, terminator_of(spec.variant.wrapping));
    worker(found->second.worker)
        .post([stream, sink = std::move(sink), received = std::move(received)](Worker& owner) mutable {
            SocketSink& added = *sink;
            // The control thread posts nothing to a stream that it closed, so the stream is there.
            const auto fed = owner.stream(stream);
            owner.adopt(std::move(sink));
            try {
                added.open(owner, fed);
                fed->add_socket_sink(added);
            } catch (...) {
                added.close("viewer_gone");  // a descriptor that cannot be waited for: its end is told all the same
                throw;
            }
            if (!received.empty()) {
                added.take_input({reinterpret_cast<const std::uint8_t*>(received.data()), received.size()});
            }
        });
    sinks_.emplace(id, SinkPlace{.worker = found->second.worker, .stream = stream, .kind = SinkKind::socket, .board = {}, .through = 0});
    return id;
}

SinkId Engine::add_frame_sink(StreamKey stream, const FrameSinkSpec& spec) {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return 0;
    const SinkId id = ++last_id_;
    worker(found->second.worker).post([stream, id, spec](Worker& owner) {
        owner.stream(stream)->add_frame_sink(id, spec, std::make_shared<FrameLink>());
    });
    sinks_.emplace(id, SinkPlace{.worker = found->second.worker, .stream = stream, .kind = SinkKind::frames, .board = {}, .through = 0});
    return id;
}

Outcome<SinkId> Engine::add_rtp_sink(StreamKey stream, RtpSinkSpec spec) {
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return {};
    const SinkId id = ++last_id_;
    const ReceiverId through = spec.through;
    Worker& owner = worker(found->second.worker);
    auto board = std::make_shared<RtpSinkBoard>();
    std::unique_ptr<RtpSink> sink;
    Worker* home = nullptr;
    if (through != 0) {
        const auto receiver = receivers_.find(through);
        if (receiver == receivers_.end()) return {.error = ENOENT};
        home = &worker(receiver->second.worker);
        sink = std::make_unique<RtpSink>(id, std::move(spec), *home, board);
    } else {
        Outcome<SinkSockets> bound = bind_sink(spec);
        if (bound.error != 0) return {.error = bound.error};
        sink = std::make_unique<RtpSink>(id, std::move(spec), std::move(bound.value), board);
    }
    owner.post([stream, sink = std::move(sink)](Worker& at) mutable {
        RtpSink& added = *sink;
        const auto fed = at.stream(stream);
        at.adopt(std::move(sink));
        fed->add_rtp_sink(added);
        added.open(at, fed);
    });
    if (home != nullptr) {
        // Behind the sink's arrival, so that it is there for whatever the receiver tells it from now on.
        home->call([through, id, &owner](Worker& at) {
            if (Receiver* const talks = at.receiver(through)) talks->add_talker(id, owner);
        });
    }
    sinks_.emplace(id, SinkPlace{.worker = found->second.worker,
                                 .stream = stream,
                                 .kind = SinkKind::rtp,
                                 .board = std::move(board),
                                 .through = through});
    return {.value = id};
}

void Engine::update_rtp_sink(SinkId id, RtpSinkUpdate update) {
    const auto found = sinks_.find(id);
    if (found == sinks_.end()) return;
    worker(found->second.worker).post([id, update = std::move(update)](Worker& owner) {
        if (RtpSink* const sink = owner.rtp_sink(id)) sink->update(update);
    });
}

std::optional<RtpSinkFacts> Engine::rtp_sink_facts(SinkId id) const {
    const auto found = sinks_.find(id);
    if (found == sinks_.end() || !found->second.board) return std::nullopt;
    return found->second.board->facts.load();
}

void Engine::close_sink(SinkId id) {
    const auto found = sinks_.find(id);
    if (found == sinks_.end()) return;
    const SinkPlace place = found->second;
    sinks_.erase(found);
    worker(place.worker).post([id, place](Worker& owner) {
        if (place.kind == SinkKind::frames) {
            if (const auto fed = owner.stream(place.stream)) fed->remove_frame_sink(id);
        } else if (SocketSink* const sink = owner.sink(id)) {
            sink->close("closed");
        } else if (RtpSink* const sender = owner.rtp_sink(id)) {
            sender->close("closed");
        }
    });
}

// ---- notices, end

void Engine::take_notices(std::vector<Notice>& out) {
    const std::size_t before = out.size();
    shared_.outbox.take(out);
    for (std::size_t index = before; index < out.size(); ++index) {
        if (const auto* const event = std::get_if<Event>(&out[index])) {
            if (event->kind == EventKind::sink_closed) sinks_.erase(event->id);
        } else if (auto* const notice = std::get_if<FrameNotice>(&out[index])) {
            notice->link->pending_bytes.fetch_sub(notice->frame.payload.size(), std::memory_order_relaxed);
        }
    }
}

void Engine::stop() {
    if (std::exchange(stopped_, true)) return;
    receivers_.clear();
    streams_.clear();
    for (const auto& made : workers_) made->stop();
    shared_udp_.reset();
}

template <class Order>
void Engine::give(std::size_t place, Order order, bool is_shared) {
    if (!is_shared) {
        worker(place).post(std::move(order));
        return;
    }
    worker(place).call(std::move(order));
    worker(0).call([](Worker&) {});  // has heard of it
}

std::size_t Engine::least_loaded() const noexcept {
    return static_cast<std::size_t>(std::min_element(loads_.begin(), loads_.end()) - loads_.begin());
}

}  // namespace gb28181
