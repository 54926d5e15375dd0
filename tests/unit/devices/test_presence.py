"""The presence state machine, the learnt interval and the wheel."""

from __future__ import annotations

import random

import pytest

from gb28181gw.devices.models import Device, Presence
from gb28181gw.devices.presence import (
    CONNECTION_GRACE_S,
    REVIVE_AFTER_EXPIRY_S,
    PresenceKeeper,
    PresenceRules,
    Wheel,
    interval_of,
    learn_gap,
)
from gb28181gw.devices.registry import Registry
from tests.support.devices import Calls, FakeClock, RecordingBus, binding, make_device, tcp, udp
from tests.support.stores import MemoryDeviceStore


class World:
    """A presence keeper whose clock and probes the test owns."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.registry = Registry(store=MemoryDeviceStore(), bus=self.bus, clock=self.clock)
        self.probes: list[Device] = []
        self.presence = PresenceKeeper(
            registry=self.registry,
            bus=self.bus,
            clock=self.clock,
            rules=PresenceRules(keepalive_s=60, misses=3),
            probe=self.probes.append,
        )

    def device(self, number: int = 1, path=None, expires_s: float = 3600.0) -> Device:  # type: ignore[no-untyped-def]
        device = make_device(number)
        self.registry.enrol(device)
        where = path or udp(5000 + number)
        device.binding = binding(where)
        self.registry.bind(device, where)
        self.presence.registered(device, expires_s)
        return device

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass with a tick a second."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            self.presence.tick()

    def beat(self, device: Device, every: float, times: int) -> None:
        for _ in range(times):
            self.run(every)
            self.presence.keepalive(device)


@pytest.fixture
def world() -> World:
    return World()


def reasons(world: World, name: str) -> list[str]:
    return [fields["reason"] for fields in world.bus.of(name)]


def test_registered_is_online_once(world: World) -> None:
    device = world.device()
    world.presence.registered(device, 3600)
    assert device.online
    assert reasons(world, "device.online") == ["registered"]


def test_f03_silence_is_probed_once_before_offline(world: World) -> None:
    device = world.device()
    world.run(179)
    assert device.presence is Presence.ONLINE
    world.run(3)
    assert device.presence is Presence.SUSPECT
    assert device.online
    assert world.probes == [device]
    world.run(30)
    assert world.probes == [device]
    world.presence.unanswered(device)
    assert not device.online
    assert reasons(world, "device.offline") == ["keepalive"]


def test_f03_an_answer_to_the_probe_keeps_it_online(world: World) -> None:
    device = world.device()
    world.run(182)
    world.presence.seen(device, "answer")
    world.presence.unanswered(device)
    assert device.presence is Presence.ONLINE
    assert world.bus.of("device.offline") == []
    world.run(182)
    assert world.probes == [device, device]


def test_ka04_any_message_counts_as_life(world: World) -> None:
    device = world.device()
    for _ in range(10):
        world.run(170)
        world.presence.seen(device, "message")
    assert device.online
    assert world.probes == []


def test_ka01_the_interval_is_learnt_from_the_gaps(world: World) -> None:
    device = world.device(expires_s=86_400)
    world.beat(device, 300, 1)
    assert world.probes == [device]
    world.beat(device, 300, 3)
    assert device.keepalive_s == 300
    world.probes.clear()
    world.beat(device, 300, 5)
    assert world.probes == []
    assert world.presence.window(device) == 900


def test_ka01_a_short_interval_shortens_the_window_at_once(world: World) -> None:
    device = world.device()
    world.beat(device, 10, 6)
    assert device.keepalive_s == 10
    world.run(32)
    assert device.presence is Presence.SUSPECT


@pytest.mark.parametrize(
    ("gap", "interval"), [(0.5, 0.0), (1.0, 5.0), (5.0, 5.0), (65.0, 65.0), (65535.0, 3600.0)]
)
def test_ka02_the_interval_is_clamped(gap: float, interval: float) -> None:
    gaps: tuple[int, ...] = ()
    for _ in range(6):
        gaps = learn_gap(gaps, gap)
    assert interval_of(gaps) == interval


def test_f02_jitter_of_20_s_is_not_offline() -> None:
    world = World()
    device = world.device(expires_s=86_400)
    chance = random.Random(28181)
    for _ in range(200):
        world.run(round(60 + chance.uniform(-20, 20)))
        world.presence.keepalive(device)
    assert 40 <= device.keepalive_s <= 80
    assert world.probes == []


def test_f03_one_lost_keepalive_in_five_does_not_move_the_median() -> None:
    gaps: tuple[int, ...] = ()
    for gap in (60, 60, 120, 60, 60, 60):
        gaps = learn_gap(gaps, gap)
    assert interval_of(gaps) == 60


def test_ka03_expiry_alone_is_not_offline_while_it_beats(world: World) -> None:
    device = world.device(expires_s=60)
    world.beat(device, 60, 10)
    assert device.online
    assert world.bus.of("device.offline") == []


def test_ka03_expired_and_silent_is_offline_without_a_probe(world: World) -> None:
    device = world.device(expires_s=60)
    world.run(182)
    assert not device.online
    assert world.probes == []
    assert reasons(world, "device.offline") == ["expired"]


def test_a_device_without_keepalives_stays_online_by_its_answers(world: World) -> None:
    device = world.device(expires_s=86_400)
    for _ in range(20):
        world.run(60)
        while world.probes:
            world.presence.seen(world.probes.pop(), "answer")
    assert device.online


def test_reg23_a_keepalive_revives(world: World) -> None:
    device = world.device(expires_s=60)
    world.run(182)
    assert not device.online
    assert world.presence.may_revive(device)
    world.presence.keepalive(device)
    assert device.online
    assert reasons(world, "device.online") == ["registered", "keepalive"]


def test_reg23_a_registration_long_expired_is_not_revived(world: World) -> None:
    device = world.device(expires_s=60)
    world.run(182)
    world.clock.advance(REVIVE_AFTER_EXPIRY_S)
    assert not world.presence.may_revive(device)


def test_reg11_unregistering_is_offline_after_a_grace(world: World) -> None:
    device = world.device()
    gone = Calls()
    world.presence.on_forgotten(gone)
    world.presence.unregistered(device)
    assert gone.calls == [(device,)]
    assert device.online
    world.presence.keepalive(device)
    world.run(5)
    assert not device.online
    assert device.path is None
    assert reasons(world, "device.offline") == ["unregistered"]


def test_reg11_a_registration_within_the_grace_keeps_it_online(world: World) -> None:
    device = world.device()
    world.presence.unregistered(device)
    world.run(1)
    world.presence.registered(device, 3600)
    world.run(30)
    assert device.online
    assert world.bus.of("device.offline") == []


def test_unregistering_while_suspect_or_offline(world: World) -> None:
    suspect, offline = world.device(1), world.device(2, expires_s=10)
    world.run(182)
    assert (suspect.presence, offline.presence) == (Presence.SUSPECT, Presence.OFFLINE)
    world.presence.unregistered(suspect)
    world.presence.unregistered(offline)
    world.run(5)
    assert not suspect.online
    assert offline.path is None
    assert reasons(world, "device.offline") == ["expired", "unregistered"]


def test_a_tcp_device_is_offline_30_s_after_its_connection(world: World) -> None:
    device = world.device(path=tcp(7))
    world.presence.connection_lost(tcp(7))
    assert device.path is None
    world.run(CONNECTION_GRACE_S - 2)
    assert device.online
    world.run(4)
    assert reasons(world, "device.offline") == ["connection_lost"]


def test_a_tcp_device_that_comes_back_in_time_stays_online(world: World) -> None:
    device = world.device(path=tcp(7))
    world.presence.connection_lost(tcp(7))
    world.run(20)
    world.registry.bind(device, tcp(8))
    world.presence.registered(device, 3600)
    world.presence.connection_lost(tcp(7))
    world.run(60)
    assert device.online
    assert device.path == tcp(8)


def test_f20_a_stopped_process_takes_nobody_offline(world: World) -> None:
    device = world.device(expires_s=86_400)
    world.run(100)
    world.clock.advance(400)
    world.presence.tick()
    assert device.presence is Presence.ONLINE
    world.run(70)
    assert device.presence is Presence.ONLINE
    world.run(15)
    assert device.presence is Presence.SUSPECT


def test_f20_a_pause_before_the_last_sign_of_life_is_no_grace(world: World) -> None:
    device = world.device(expires_s=86_400)
    world.clock.advance(400)
    world.presence.tick()
    world.presence.keepalive(device)
    world.run(182)
    assert device.presence is Presence.SUSPECT


def test_f19_wall_clock_jumps_change_nothing(world: World) -> None:
    device = world.device(expires_s=3600)
    world.clock.date += 86_400
    world.beat(device, 60, 3)
    world.clock.date -= 2 * 86_400
    world.beat(device, 60, 3)
    assert device.online
    assert world.bus.of("device.offline") == []


async def test_f17_after_a_start_bindings_count_for_one_window(world: World) -> None:
    alive, gone, off = make_device(1), make_device(2), make_device(3)
    wall = world.clock.wall()
    for device, seen in ((alive, wall - 400), (gone, wall - 5000), (off, wall - 400)):
        device.binding = binding(udp(6000), expires_at=wall + 100, active=device is not off)
        device.seen_wall = seen
        world.registry.enrol(device)
        if device is not off:
            world.registry.bind(device, udp(6000))
    assert world.presence.restore() == 1
    assert (alive.online, gone.online, off.online) == (True, False, False)
    assert reasons(world, "device.online") == ["restored"]
    world.run(182)
    assert not alive.online
    world.presence.keepalive(gone)
    assert gone.online


def test_ka05_a_restored_tcp_device_has_30_s_to_come_back(world: World) -> None:
    device = make_device(1, seen_wall=world.clock.wall())
    device.binding = binding(tcp(0), expires_at=world.clock.wall() + 1000)
    world.registry.enrol(device)
    world.presence.restore()
    assert device.online
    world.run(32)
    assert reasons(world, "device.offline") == ["connection_lost"]


def test_removing_a_device_tells_offline(world: World) -> None:
    device = world.device()
    world.registry.drop(device)
    assert reasons(world, "device.offline") == ["removed"]
    world.run(300)
    assert world.probes == []


def test_listeners_hear_both_changes(world: World) -> None:
    online, offline = Calls(), Calls()
    world.presence.on_online(online)
    world.presence.on_offline(offline)
    device = world.device(expires_s=10)
    world.run(182)
    assert online.calls == [(device, "registered")]
    assert offline.calls == [(device, "expired")]
    assert world.presence.flaps == 1


def test_counts_by_state(world: World) -> None:
    world.device(1)
    world.device(2, expires_s=10)
    world.run(182)
    assert world.presence.counts() == {"offline": 1, "online": 0, "suspect": 1}


def test_i10_the_wheel_forgets_moved_entries() -> None:
    wheel = Wheel()
    device = make_device()
    for _ in range(3):
        wheel.put(device, 100.5)
        wheel.put(device, 50.5)
    assert wheel.due(60) == [device]
    assert wheel.due(200) == []
    assert len(wheel) == 0


def test_the_wheel_after_a_long_time() -> None:
    wheel = Wheel()
    devices = [make_device(number) for number in range(5)]
    for number, device in enumerate(devices):
        wheel.put(device, 10.0 * number)
    assert wheel.due(1e6) == devices
    wheel.put(devices[0], 5.0)
    assert wheel.due(1e6 + 1) == [devices[0]]
