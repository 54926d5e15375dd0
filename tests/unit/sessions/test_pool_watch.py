"""A pool that runs short is told before it is empty, once."""

from __future__ import annotations

from gb28181gw.media.ports import PortPool
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.sessions.pool_watch import PoolWatch
from tests.support.clock import FakeClock
from tests.support.devices import RecordingBus


def test_net05_f14_eighty_percent_are_told_once_each_time() -> None:
    clock, bus = FakeClock(), RecordingBus()
    ports = PortPool(20000, 20019, 30.0, clock)
    watch = PoolWatch({"media_ports": ports, "ssrcs": SsrcPool("20000", 30.0, clock)}, bus)
    leases = [ports.acquire("stream") for _ in range(7)]
    watch.look()
    assert bus.seen == []
    leases.append(ports.acquire("stream"))
    watch.look()
    watch.look()
    told = bus.of("limit.reached")
    assert [(one["limit"], one["value"]) for one in told] == [("media_ports", 10)]
    assert "8 by streams" in told[0]["detail"]
    for lease in leases:
        lease.release()
    watch.look()
    assert len(bus.of("limit.reached")) == 1  # they rest: still short
    clock.now += 31
    watch.look()
    leases = [ports.acquire("stream") for _ in range(8)]
    watch.look()
    assert len(bus.of("limit.reached")) == 2
