"""Motion and its stop, presets; over an agent that is not one."""

from __future__ import annotations

import asyncio

import pytest

from gb28181gw.devices.experience import Experience
from gb28181gw.devices.models import Channel, Presence
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.ptz import PresetAction, PtzControl
from gb28181gw.devices.queries import Queries, Waits
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.presets import Preset
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.ptz import Instruction, Lens, Move, decode
from gb28181gw.sip.path import Path
from tests.support.devices import (
    Calls,
    FakeAgent,
    FakeClock,
    RecordingBus,
    between,
    binding,
    make_device,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore

CHANNEL = "34020000001320000001"


class World:
    def __init__(self, stop_after_s: float = 60.0) -> None:
        clock = FakeClock()
        self.bus = RecordingBus()
        self.registry = Registry(store=MemoryDeviceStore(), bus=self.bus, clock=clock)
        presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=clock, rules=PresenceRules(), probe=Calls()
        )
        self.agent = FakeAgent()
        self.queries = Queries(agent=self.agent, registry=self.registry, presence=presence, timeout_s=0.2)
        self.ptz = PtzControl(
            registry=self.registry,
            queries=self.queries,
            experience=Experience(registry=self.registry, bus=self.bus, clock=clock),
            bus=self.bus,
            stop_after_s=stop_after_s,
        )
        self.device = make_device(1)
        self.registry.enrol(self.device)
        self.device.binding = binding(udp())
        self.registry.bind(self.device, udp())
        self.device.presence = Presence.ONLINE
        self.device.channels[CHANNEL] = Channel(self.device.id, CHANNEL, "Gate", "camera")

    async def move(self, **speeds: float) -> None:
        await self.ptz.move(self.device.id, CHANNEL, **speeds)

    @property
    def codes(self) -> list[Instruction | None]:
        return [decode(between(text, "PTZCmd")) for _, _, text in self.agent.sent]


@pytest.fixture
def world() -> World:
    return World()


async def test_a32_speeds_are_scaled_to_their_bytes(world: World) -> None:
    await world.move(pan=1, tilt=-1, zoom=1)
    await world.move(pan=-0.5)
    await world.move(zoom=-0.5)
    await world.ptz.lens(world.device.id, CHANNEL, focus=-1, iris=0.5)
    assert world.codes == [
        Move(pan=255, tilt=-255, zoom=15),
        Move(pan=-128),
        Move(zoom=-8),
        Lens(focus=-255, iris=128),
    ]
    path, user, text = world.agent.sent[0]
    assert (path, user) == (udp(), CHANNEL)
    assert between(text, "DeviceID") == CHANNEL
    await world.ptz.close()


async def test_ctl05_the_slowest_speed_is_not_0_and_the_code_is_told(world: World) -> None:
    await world.move(pan=0.001, zoom=0.001)
    assert world.codes == [Move(pan=1, zoom=1)]
    assert world.bus.of("ptz.sent")[0]["code"] == "A50F0011010010D6"
    await world.ptz.close()


async def test_ctl06_a_motion_without_a_new_command_is_stopped() -> None:
    world = World(stop_after_s=0.05)
    await world.move(pan=0.5)
    await until(lambda: world.bus.of("ptz.stopped"))
    assert world.codes == [Move(pan=128), Move()]
    assert (world.ptz.moving, world.ptz.stopped) == (0, 1)


async def test_ctl06_focus_has_a_stop_of_its_own() -> None:
    world = World(stop_after_s=0.05)
    await world.move(pan=0.5)
    await world.ptz.lens(world.device.id, CHANNEL, focus=1)
    assert world.ptz.moving == 2
    await until(lambda: len(world.bus.of("ptz.stopped")) == 2)
    assert world.codes[2:] == [Move(), Lens()]


async def test_ctl06_a_new_command_takes_the_timers_place(world: World) -> None:
    await world.move(pan=0.5)
    await world.move(pan=0.6)
    assert world.ptz.moving == 1
    await world.move()
    assert world.ptz.moving == 0
    await world.ptz.close()
    assert world.codes == [Move(pan=128), Move(pan=153), Move()]


async def test_ctl06_what_moves_is_stopped_when_the_gateway_ends(world: World) -> None:
    await world.move(tilt=1)
    await world.ptz.close()
    assert world.codes == [Move(tilt=255), Move()]


async def test_ctl06_an_unanswered_move_may_have_moved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.ptz.SEND_S", 0.01)
    world.agent.silent.add(udp())
    with pytest.raises(GatewayError) as caught:
        await world.move(pan=1)
    assert caught.value.code == "gb.sip.no_answer"
    assert world.ptz.moving == 1
    await world.ptz.close()


async def test_ctl06_a_stop_is_repeated_and_its_failure_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.ptz.SEND_S", 0.01)
    monkeypatch.setattr("gb28181gw.devices.ptz.STOP_PAUSE_S", 0.01)
    world = World(stop_after_s=0.02)
    await world.move(pan=1)
    world.agent.silent.add(udp())
    await until(lambda: world.bus.of("ptz.stop_failed"))
    assert world.codes == [Move(pan=255), Move(), Move(), Move(), Move()]
    assert world.bus.of("ptz.stop_failed")[0]["reason"] == "no_answer"


async def test_commands_of_one_channel_go_out_one_after_the_other(world: World) -> None:
    await asyncio.gather(*(world.move(pan=n / 10) for n in range(1, 6)))
    assert world.codes == [Move(pan=round(n / 10 * 255)) for n in range(1, 6)]
    assert world.ptz.moving == 1
    await world.ptz.close()


async def test_ctl07_a_device_that_forbids_control_is_named(world: World) -> None:
    world.agent.status = 403
    with pytest.raises(GatewayError, match="forbids control") as caught:
        await world.move(pan=1)
    assert (caught.value.code, caught.value.sip_status) == ("gb.sip.rejected", 403)
    assert world.ptz.moving == 0


async def test_s03_a_device_on_a_trial_path_is_not_moved(world: World) -> None:
    world.device.trial_until = 1e9
    with pytest.raises(GatewayError) as caught:
        await world.move(pan=1)
    assert caught.value.code == "gb.route.not_authorised"
    assert not world.agent.sent


@pytest.mark.parametrize(("action", "instruction"), [("goto", 0x82), ("set", 0x81), ("delete", 0x83)])
async def test_a34_presets(world: World, action: str, instruction: int) -> None:
    await world.ptz.preset(world.device.id, CHANNEL, 200, PresetAction(action), name="Gate")
    ((_, _, text),) = world.agent.sent
    assert between(text, "PTZCmd")[6:12] == f"{instruction:02X}00C8"
    assert "PresetName" not in text, "the device speaks 2016"
    assert world.ptz.moving == 0


async def test_presets_of_a_2022_device_have_names(world: World) -> None:
    world.device.binding = binding(udp(), edition="3.0")
    await world.ptz.preset(world.device.id, CHANNEL, 2, PresetAction.SET, name="Gate")
    await world.ptz.preset(world.device.id, CHANNEL, 2, PresetAction.GOTO, name="Gate")
    assert [between(text, "PresetName") for _, _, text in world.agent.sent] == ["Gate", ""]


def part(sn: int, numbers: list[int], total: int | None = None) -> bytes:
    counted = "" if total is None else f"<SumNum>{total}</SumNum>"
    items = "".join(f"<Item><PresetID>{n}</PresetID><PresetName>P{n}</PresetName></Item>" for n in numbers)
    return (
        f"<Response><CmdType>PresetQuery</CmdType><SN>{sn}</SN><DeviceID>{CHANNEL}</DeviceID>{counted}"
        f'<PresetList Num="{len(numbers)}">{items}</PresetList></Response>'
    ).encode()


def answering(world: World, *parts: tuple[list[int], int | None]) -> None:
    def hear(path: Path, text: str) -> None:
        for numbers, total in parts:
            world.queries.feed(world.device, parse(part(int(between(text, "SN")), numbers, total)))

    world.agent.hear = hear


async def test_2016_presets_without_sumnum_are_one_message(world: World) -> None:
    answering(world, ([3, 1], None))
    found = await world.ptz.presets(world.device.id, CHANNEL)
    assert found.presets == (Preset(1, "P1"), Preset(3, "P3"))
    assert not found.partial


async def test_presets_in_several_parts_are_joined(world: World) -> None:
    answering(world, ([1, 2], 4), ([2, 3], 4), ([4], 4))
    found = await world.ptz.presets(world.device.id, CHANNEL)
    assert [preset.number for preset in found.presets] == [1, 2, 3, 4]
    assert world.queries.open_count == 0


async def test_cat02_a_count_of_one_message_does_not_end_the_presets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.devices.assembly.LATE_S", 0.05)
    answering(world, ([1, 2], 2), ([3], 1))
    found = await world.ptz.presets(world.device.id, CHANNEL)
    assert ([preset.number for preset in found.presets], found.partial) == ([1, 2, 3], False)
    assert world.device.quirks["answer.more_than_announced"] == 1


async def test_ctl10_a_missing_part_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.ptz.WAITS", Waits(between_s=0.01))
    answering(world, ([1, 2], 4))
    found = await asyncio.wait_for(world.ptz.presets(world.device.id, CHANNEL), 10)
    assert (len(found.presets), found.partial) == (2, True)


async def test_no_answer_is_an_error_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.ptz.WAITS", Waits(first_s=0.05))
    with pytest.raises(GatewayError) as caught:
        await asyncio.wait_for(world.ptz.presets(world.device.id, CHANNEL), 20)
    assert caught.value.code == "gb.sip.no_answer"
    assert "did not answer" in caught.value.detail
