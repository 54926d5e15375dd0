"""The path rule carried out: moves, probes, trials."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gb28181gw.devices import binding as rules
from gb28181gw.devices import path_keeper
from gb28181gw.devices.binding import TRIAL_S, Action
from gb28181gw.devices.config import BindingMode
from gb28181gw.devices.models import Device
from gb28181gw.devices.path_keeper import PathKeeper
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.registry import UNSAVED_BINDING, Registry
from gb28181gw.errors import GatewayError
from gb28181gw.sip.path import Path
from tests.support.devices import Calls, FakeClock, RecordingBus, binding, make_device, tcp, udp, until
from tests.support.stores import MemoryDeviceStore

FAR = udp(5001, "10.9.9.9")


class World:
    """Paths answer or not as the test says; probes take a hundredth of their real time."""

    def __init__(self, mode: BindingMode = BindingMode.NAT) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.store = MemoryDeviceStore()
        self.registry = Registry(store=self.store, bus=self.bus, clock=self.clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=self.clock, rules=PresenceRules(), probe=Calls()
        )
        self.answering: set[Path] = set()
        self.asked: list[Path] = []
        self.closed = Calls()
        self.trusted = Calls()
        self.keeper = PathKeeper(
            registry=self.registry,
            presence=self.presence,
            store=self.store,
            bus=self.bus,
            clock=self.clock,
            mode=mode,
            ask=self.ask,
            close_path=self.closed,
            trust_path=self.trusted,
        )

    async def ask(self, device: Device, path: Path) -> bool:
        self.asked.append(path)
        if path in self.answering:
            return True
        await asyncio.Event().wait()
        return False

    def device(self, path: Path | None = None, **changes: Any) -> Device:
        device = make_device(1)
        self.registry.enrol(device)
        where = path or udp(5001)
        device.binding = binding(where, **changes)
        self.registry.bind(device, where)
        self.presence.registered(device, 3600)
        self.bus.seen.clear()
        return device

    async def decided(self) -> None:
        """Let the probe's time pass."""
        for _ in range(20):
            await asyncio.sleep(0)
        while self.keeper._probes:
            self.clock.advance(0.5)
            await asyncio.sleep(0.002)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    look = rules.PathProbe.next_look
    monkeypatch.setattr(rules.PathProbe, "next_look", lambda probe, now: look(probe, now) / 1000)
    return World()


async def test_reg17_the_old_port_is_silent_so_the_binding_moves(world: World) -> None:
    device = world.device()
    world.answering.add(udp(6001))
    assert world.keeper.admit(device, udp(6001)) is Action.PROBE_NEAR
    await world.decided()
    assert device.path == udp(6001)
    assert device.binding.path == udp(6001)
    (event,) = world.bus.of("binding.port_moved")
    assert (event["peer"], event["old_peer"], event["reason"]) == ("10.1.1.1:6001", "10.1.1.1:5001", "nat")
    await asyncio.sleep(0)
    assert sorted(world.asked) == [udp(5001), udp(6001)]


async def test_reg17_a_move_is_stored(world: World) -> None:
    device = world.device()
    await world.store.save_device(device)
    world.answering.add(udp(6001))
    world.keeper.admit(device, udp(6001))
    await world.decided()
    (stored,) = await world.store.load()
    assert stored.binding.path == udp(6001)


async def test_f15_a_move_that_is_not_stored_is_kept_for_later(world: World) -> None:
    device = world.device()
    world.store.fail = True
    world.answering.add(udp(6001))
    world.keeper.admit(device, udp(6001))
    await world.decided()
    await until(lambda: device.unsaved & UNSAVED_BINDING)
    assert device.path == udp(6001)


async def test_s03_the_old_path_answers_so_nothing_moves(world: World) -> None:
    device = world.device()
    for path in (udp(6001), FAR):
        world.answering = {udp(5001), path}
        world.keeper.admit(device, path)
        await world.decided()
        world.keeper._held.clear()
        assert device.path == udp(5001)
    assert [event["reason"] for event in world.bus.of("binding.conflict")] == ["old_answers"] * 2
    assert world.keeper.conflicts == 2


async def test_s03_a_new_address_in_a_foreign_network_never_moves(world: World) -> None:
    device = world.device()
    world.answering.add(FAR)
    assert world.keeper.admit(device, FAR) is Action.PROBE_FAR
    await world.decided()
    assert device.path == udp(5001)
    assert [event["reason"] for event in world.bus.of("binding.conflict")] == ["not_proven"]


async def test_f07_a_new_address_in_a_known_network_gets_a_trial(world: World) -> None:
    device = world.device(networks={"10.9.0.0/16": int(world.clock.wall()) - 1000})
    world.answering.add(FAR)
    world.keeper.admit(device, FAR)
    await world.decided()
    assert device.path == FAR
    assert device.unverified
    assert device.binding.path == udp(5001)
    assert world.registry.target(device.id).path == FAR
    with pytest.raises(GatewayError):
        world.registry.target(device.id, control=True)
    world.clock.advance(TRIAL_S - 1)
    world.keeper.tick()
    assert device.path == FAR
    world.clock.advance(2)
    world.keeper.tick()
    assert device.path == udp(5001)
    assert not device.unverified


async def test_f07_the_verified_path_beats_the_trial(world: World) -> None:
    device = world.device(networks={"10.9.0.0/16": int(world.clock.wall())})
    world.answering.add(FAR)
    world.keeper.admit(device, FAR)
    await world.decided()
    assert world.keeper.admit(device, udp(5001)) is Action.ACCEPT
    assert device.path == udp(5001)
    assert not device.unverified


async def test_f07_a_register_ends_the_trial(world: World) -> None:
    device = world.device(networks={"10.9.0.0/16": int(world.clock.wall())})
    world.answering.add(FAR)
    world.keeper.admit(device, FAR)
    await world.decided()
    device.binding = binding(FAR)
    device.trial_until = 0.0
    world.clock.advance(TRIAL_S + 1)
    world.keeper.tick()
    assert device.path == FAR


async def test_a_registration_during_the_probe_wins(world: World) -> None:
    device = world.device()
    world.answering.add(udp(6001))
    world.keeper.admit(device, udp(6001))
    await asyncio.sleep(0)
    world.registry.bind(device, udp(7001))
    await world.decided()
    assert device.path == udp(7001)
    assert world.bus.of("binding.port_moved") == []


async def test_reg21_a_new_connection_moves_at_once_and_the_old_one_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_keeper, "CLOSE_OLD_S", 0.01)
    device = world.device(tcp(1))
    assert world.keeper.admit(device, tcp(2)) is Action.MOVE
    assert device.path == tcp(2)
    assert world.trusted.calls == [(tcp(2),)]
    assert world.asked == []
    await until(lambda: world.closed.calls)
    assert world.closed.calls == [(tcp(1),)]


async def test_reg21_a_connection_that_others_use_is_not_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_keeper, "CLOSE_OLD_S", 0.01)
    device = world.device(tcp(1))
    other = make_device(2)
    world.registry.enrol(other)
    world.registry.bind(other, tcp(1))
    world.keeper.admit(device, tcp(2))
    world.keeper.replaced(tcp(3), tcp(2))
    world.registry.bind(device, tcp(3))
    await until(lambda: world.closed.calls)
    assert world.closed.calls == [(tcp(2),)]


async def test_reg21_a_device_whose_connection_is_gone_comes_back(world: World) -> None:
    device = world.device(tcp(1))
    world.presence.connection_lost(tcp(1))
    assert device.path is None
    assert world.keeper.admit(device, tcp(2)) is Action.MOVE
    assert device.path == tcp(2)
    assert device.lost_at == 0


async def test_xml15_long_messages_over_tcp_do_not_move_a_udp_device(world: World) -> None:
    device = world.device()
    assert world.keeper.admit(device, tcp(2)) is Action.PROCESS
    assert device.path == udp(5001)
    assert world.asked == []


async def test_strict_mode_knows_only_the_bound_path() -> None:
    world = World(BindingMode.STRICT)
    device = world.device()
    for path in (udp(6001), FAR, tcp(1)):
        assert world.keeper.admit(device, path) is Action.IGNORE
    assert world.keeper.admit(device, udp(5001)) is Action.ACCEPT
    assert world.asked == []


async def test_any_mode_follows() -> None:
    world = World(BindingMode.ANY)
    device = world.device()
    assert world.keeper.admit(device, FAR) is Action.MOVE
    assert device.path == FAR
    assert world.bus.of("binding.port_moved")[0]["reason"] == "mode_any"


async def test_an_unregistered_device_is_not_heard(world: World) -> None:
    device = world.device(active=False)
    assert world.keeper.admit(device, udp(5001)) is Action.IGNORE
    device.binding = None
    assert world.keeper.admit(device, udp(5001)) is Action.IGNORE


async def test_i7_a_stranger_is_not_asked_again_and_again(world: World) -> None:
    device = world.device()
    world.answering = {udp(5001)}
    for _ in range(1000):
        world.keeper.admit(device, FAR)
        await world.decided()
        world.clock.advance(1)
    assert 5 <= world.asked.count(FAR) <= 9
    assert device.path == udp(5001)


async def test_s03_10000_forged_messages_move_nothing(world: World) -> None:
    device = world.device()
    world.answering = {udp(5001)}
    for number in range(10_000):
        world.keeper.admit(device, udp(1024 + number % 60_000, f"172.16.{number % 250}.{number % 199}"))
    await world.decided()
    assert device.path == udp(5001)
    assert len(world.asked) == 2


async def test_i10_probes_are_bounded(world: World) -> None:
    devices = []
    for number in range(path_keeper.PROBES_LIMIT + 20):
        device = make_device(number)
        world.registry.enrol(device)
        device.binding = binding(udp(number + 1))
        world.registry.bind(device, udp(number + 1))
        devices.append(device)
        world.keeper.admit(device, FAR)
    assert len(world.keeper._probes) == path_keeper.PROBES_LIMIT
    world.registry.drop(devices[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(world.keeper._probes) == path_keeper.PROBES_LIMIT - 1
    await world.keeper.close()
    assert world.keeper._probes == {}
