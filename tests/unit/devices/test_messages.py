"""MESSAGE and NOTIFY: who is heard, what is answered, where it goes."""

from __future__ import annotations

from typing import Any

import pytest

from gb28181gw.devices.binding import Action
from gb28181gw.devices.messages import (
    PARSED_AT_ONCE,
    POISON_ERRORS,
    POISON_PAUSE_S,
    STRANGER_S,
    THREAD_BYTES,
    Envelope,
    Messages,
)
from gb28181gw.devices.models import Channel, Device
from gb28181gw.devices.presence import REVIVE_AFTER_EXPIRY_S, PresenceKeeper, PresenceRules
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.sip.path import Path
from tests.support.devices import (
    Calls,
    FakeAgent,
    FakeClock,
    FakeIncoming,
    RecordingBus,
    binding,
    device_id,
    keepalive_body,
    make_device,
    message,
    tcp,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore


class FakePaths:
    """Says what the test says."""

    def __init__(self) -> None:
        self.action: Action | None = None

    def admit(self, device: Device, path: Path) -> Action:
        if self.action is not None:
            return self.action
        return Action.ACCEPT if device.path == path else Action.PROBE_FAR


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.registry = Registry(store=MemoryDeviceStore(), bus=self.bus, clock=self.clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=self.clock, rules=PresenceRules(), probe=Calls()
        )
        self.paths = FakePaths()
        self.queries = Queries(agent=FakeAgent(), registry=self.registry, presence=self.presence)
        self.refused = Calls()
        self.messages = Messages(
            registry=self.registry,
            presence=self.presence,
            paths=self.paths,  # type: ignore[arg-type]  # stands in for PathKeeper
            queries=self.queries,
            bus=self.bus,
            clock=self.clock,
            on_refused=self.refused,
        )
        self.device = self.make(1)

    def make(self, number: int, **values: Any) -> Device:
        device = make_device(number, **values)
        self.registry.enrol(device)
        device.binding = binding(udp(5000 + number))
        self.registry.bind(device, udp(5000 + number))
        self.presence.registered(device, 3600)
        return device

    def send(
        self, body: str | bytes, *, user: str = "", path: Path | None = None, method: str = "MESSAGE"
    ) -> FakeIncoming:
        incoming = message(path or udp(5001), body, user or self.device.id, method)
        self.messages.handle(incoming)
        return incoming

    def handler(
        self, root: str = "Notify", cmd_type: str = "Alarm"
    ) -> list[tuple[Device, Document, Envelope]]:
        calls: list[tuple[Device, Document, Envelope]] = []
        self.messages.on_document(root, cmd_type, lambda *values: calls.append(values))
        return calls


@pytest.fixture
def world() -> World:
    return World()


ALARM = "<Notify><CmdType>Alarm</CmdType><SN>9</SN><DeviceID>34020000001340000001</DeviceID></Notify>"


# -- keepalive -----------------------------------------------------------------------------------------------------


def test_f02_the_fast_path_counts_and_answers(world: World) -> None:
    world.clock.advance(30)
    assert world.send(keepalive_body(world.device.id)).status == 200
    assert world.device.seen == world.clock.now
    assert (world.messages.counters.keepalives, world.messages.counters.documents) == (1, 0)


@pytest.mark.parametrize(
    "body",
    [
        "<Notify><CmdType>Keepalive</CmdType><SN>1</SN></Notify>",
        "<notify><cmdtype>keepalive</cmdtype><sn>1</sn><status>OK</status></notify>",
        '<Notify CmdType="Keepalive" SN="1"/>',
        "<Response><CmdType>Keepalive</CmdType><SN>1</SN><Status>OK</Status></Response>",
        "<Query><CmdType>Keepalive</CmdType><SN>1</SN></Query>",
    ],
)
def test_ka06_any_message_called_keepalive_counts(world: World, body: str) -> None:
    world.clock.advance(30)
    assert world.send(body).status == 200
    assert world.device.keepalives == 1
    assert world.device.seen == world.clock.now


def test_ka06_a_status_other_than_ok_is_shown_and_told_on_change(world: World) -> None:
    faulty = keepalive_body(world.device.id, "ERROR")
    for _ in range(3):
        assert world.send(faulty).status == 200
    assert world.device.warning == "ERROR"
    assert len(world.bus.of("device.status")) == 1
    listed = (
        "<Notify><CmdType>Keepalive</CmdType><SN>1</SN><Status>ERROR</Status><Info><DeviceID>a</DeviceID>"
        "<DeviceID>b</DeviceID></Info></Notify>"
    )
    world.send(listed)
    assert world.device.warning == "ERROR: a, b"
    world.send(keepalive_body(world.device.id))
    assert world.device.warning == ""
    assert len(world.bus.of("device.status")) == 3


def test_r099_channels_that_a_keepalive_calls_faulty_are_kept_until_the_next_one(world: World) -> None:
    told: list[frozenset[str]] = []
    world.messages.on_faults(lambda device: told.append(device.faulty))
    channel = Channel(device_id=world.device.id, id="34020000001320000001", name="Gate", kind="camera")
    world.device.channels[channel.id] = channel
    body = (
        f"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><DeviceID>{world.device.id}</DeviceID><Status>OK</Status>"
        f"<Info><DeviceID>{channel.id}</DeviceID><DeviceID>34020000001320000099</DeviceID></Info></Notify>"
    )
    for _ in range(2):
        assert world.send(body).status == 200
    assert told == [frozenset({channel.id})], "what it does not have is not believed; told on change"
    assert channel.id in world.bus.of("device.status")[0]["detail"]
    assert world.send(keepalive_body(world.device.id)).status == 200
    assert world.device.faulty == frozenset() and len(told) == 2


def test_reg23_a_keepalive_on_the_bound_path_revives(world: World) -> None:
    world.presence.offline(world.device, "keepalive")
    assert world.send(keepalive_body(world.device.id)).status == 200
    assert world.device.online


def test_reg23_long_after_expiry_silence_makes_it_register(world: World) -> None:
    world.presence.offline(world.device, "keepalive")
    world.clock.advance(3600 + REVIVE_AFTER_EXPIRY_S)
    assert world.send(keepalive_body(world.device.id)).ignored
    assert world.send(ALARM).ignored
    assert not world.device.online


def test_s03_a_keepalive_from_elsewhere_has_no_effect_and_no_answer(world: World) -> None:
    seen = world.device.seen
    world.clock.advance(30)
    incoming = world.send(keepalive_body(world.device.id), path=udp(5001, "10.9.9.9"))
    assert incoming.ignored
    assert world.device.seen == seen
    assert world.messages.counters.off_path == 1


def test_f07_a_keepalive_from_the_next_port_is_processed_and_answered(world: World) -> None:
    world.paths.action = Action.PROBE_NEAR
    world.clock.advance(30)
    assert world.send(keepalive_body(world.device.id), path=udp(6001)).status == 200
    assert world.device.seen == world.clock.now


def test_f07_on_trial_keepalives_stay_unanswered(world: World) -> None:
    world.device.trial_until = world.clock.now + 100
    assert world.send(keepalive_body(world.device.id)).ignored
    assert world.device.keepalives == 1
    assert world.send("<Notify><CmdType>Keepalive</CmdType></Notify>").ignored
    assert world.device.keepalives == 2


def test_ka10_a_waiting_device_is_answered(world: World) -> None:
    world.device.approved = False
    assert world.send(keepalive_body(world.device.id)).status == 200


# -- strangers -----------------------------------------------------------------------------------------------------


def test_s03_strangers_hear_403_once_and_never_200(world: World) -> None:
    body = keepalive_body(device_id(9))
    path = udp(1, "10.7.7.7")
    answers = [world.send(body, user=device_id(9), path=path) for _ in range(5)]
    assert [incoming.status for incoming in answers] == [403, None, None, None, None]
    assert all(incoming.ignored for incoming in answers[1:])
    assert len(world.refused.calls) == 5
    world.clock.advance(STRANGER_S)
    assert world.send(body, user=device_id(9), path=path).status == 403


def test_s20_a_scanner_hears_nothing(world: World) -> None:
    assert world.send("hello", user="100", path=udp(1, "10.7.7.7")).ignored
    assert world.messages.counters.strangers == 1


def test_xml19_a_channel_speaks_for_its_device_on_its_path(world: World) -> None:
    calls = world.handler()
    assert world.send(ALARM, user="34020000001320000001").status == 200
    assert calls[0][0] is world.device
    assert world.send(ALARM, user="34020000001320000001", path=udp(1, "10.7.7.7")).status == 403


def test_reg13_dirt_on_the_id(world: World) -> None:
    assert world.send(keepalive_body(world.device.id), user=f"{world.device.id};x=y").status == 200


# -- everything else -----------------------------------------------------------------------------------------------


def test_a_document_goes_to_its_handler_after_the_200(world: World) -> None:
    order: list[str] = []
    incoming = message(udp(5001), ALARM, world.device.id)
    world.messages.on_document("Notify", "Alarm", lambda *_: order.append(f"handled {incoming.status}"))
    world.messages.handle(incoming)
    assert order == ["handled 200"]


def test_notify_carries_its_method_and_call(world: World) -> None:
    calls = world.handler("Notify", "Catalog")
    assert world.send("<Notify><CmdType>Catalog</CmdType><SN>1</SN></Notify>", method="NOTIFY").status == 200
    envelope = calls[0][2]
    assert (envelope.method, envelope.call_id, envelope.bound) == ("NOTIFY", "c@x", True)


@pytest.mark.parametrize("action", [Action.PROCESS, Action.PROBE_NEAR])
def test_s03_off_the_bound_path_is_told_to_the_handler(world: World, action: Action) -> None:
    world.paths.action = action
    calls = world.handler()
    world.send(ALARM, path=udp(6001))
    assert not calls[0][2].bound


def test_xml18_two_documents_in_one_body(world: World) -> None:
    calls = world.handler()
    assert world.send(ALARM + ALARM).status == 200
    assert len(calls) == 2


def test_xml17_the_content_type_decides_nothing(world: World) -> None:
    calls = world.handler()
    incoming = message(udp(5001), ALARM, world.device.id)
    incoming.request.headers.set("Content-Type", "text/plain")
    world.messages.handle(incoming)
    incoming = message(udp(5001), ALARM, world.device.id)
    incoming.request.headers.remove("Content-Type")
    world.messages.handle(incoming)
    assert len(calls) == 2


def test_what_nothing_handles_is_counted(world: World) -> None:
    for _ in range(3):
        assert world.send("<Notify><CmdType>Strange</CmdType><SN>3</SN></Notify>").status == 200
    assert world.messages.unhandled == {"Notify Strange": 3}
    assert world.bus.of("message.unhandled")[0]["cmd"] == "Strange"


def test_i10_unhandled_names_are_bounded(world: World) -> None:
    for number in range(400):
        world.send(f"<Notify><CmdType>Strange{number}</CmdType><SN>3</SN></Notify>")
    assert len(world.messages.unhandled) == 256


@pytest.mark.parametrize(
    "body", ["not xml at all", "<!DOCTYPE a [<!ENTITY b 'c'>]><Notify>&b;</Notify>", "<Other/>"]
)
def test_s05_what_cannot_be_read_is_400(world: World, body: str) -> None:
    assert world.send(body).status == 400
    assert world.messages.counters.malformed == 1
    assert world.device.online
    assert len(world.bus.of("message.invalid")) == 1


def test_an_empty_body_is_a_sign_of_life(world: World) -> None:
    world.clock.advance(10)
    assert world.send("").status == 200
    assert world.device.seen == world.clock.now


async def test_i10_only_so_many_large_bodies_wait_at_once(world: World) -> None:
    world.registry.bind(world.device, tcp(3))
    big = ALARM.replace("</Notify>", "<ExtraInfo>" + "x" * THREAD_BYTES + "</ExtraInfo></Notify>")
    statuses = [world.send(big, path=tcp(3)).status for _ in range(PARSED_AT_ONCE + 2)]
    assert statuses == [200] * PARSED_AT_ONCE + [503] * 2
    await world.messages.close()
    assert world.send(big, path=tcp(3)).status == 200
    await world.messages.close()


async def test_i8_a_large_body_is_parsed_in_a_thread(world: World) -> None:
    calls = world.handler()
    big = ALARM.replace("</Notify>", "<ExtraInfo>" + "x" * THREAD_BYTES + "</ExtraInfo></Notify>")
    incoming = world.send(big, path=tcp(3))
    assert incoming.ignored
    world.registry.bind(world.device, tcp(3))
    incoming = world.send(big, path=tcp(3))
    assert incoming.status == 200
    assert calls == []
    await until(lambda: calls)
    world.send("<" + "y" * THREAD_BYTES, path=tcp(3))
    await world.messages.close()
    assert world.messages.counters.malformed == 1


def test_a_waiting_device_is_answered_and_not_heard(world: World) -> None:
    world.device.approved = False
    calls = world.handler()
    assert world.send(ALARM).status == 200
    assert calls == []


def test_media_status_outside_a_dialog(world: World) -> None:
    hear = Calls()
    world.messages.on_media_status(hear)
    world.send(
        "<Notify><CmdType>MediaStatus</CmdType><SN>1</SN><DeviceID>x</DeviceID><NotifyType>121</NotifyType></Notify>"
    )
    ((device, status, call_id),) = hear.calls
    assert (device, status.notify_type, call_id) == (world.device.id, 121, "c@x")


def test_answers_go_to_their_question(world: World) -> None:
    sink = Calls()
    calls = world.handler("Response", "DeviceInfo")
    query = world.queries.open(world.device.id, "DeviceInfo", sink)
    world.send(f"<Response><CmdType>DeviceInfo</CmdType><SN>{query.sn}</SN></Response>")
    assert len(sink.calls) == 1
    world.queries.close(query)
    world.send(f"<Response><CmdType>DeviceInfo</CmdType><SN>{query.sn}</SN></Response>")
    assert len(calls) == 1


def test_quirks_are_marked_on_the_device(world: World) -> None:
    world.handler()
    world.send("﻿" + ALARM.replace("9</SN>", "9\x01</SN>"))
    assert "xml.illegal_control_char" in world.device.quirks


# -- poison --------------------------------------------------------------------------------------------------------


def test_f23_a_failing_handler_costs_one_message(world: World) -> None:
    def fail(*_values: object) -> None:
        raise ValueError("poison")

    world.messages.on_document("Notify", "Alarm", fail)
    assert world.send(ALARM).status == 200
    assert world.messages.counters.handler_errors == 1
    (event,) = world.bus.of("sip.handler_failed")
    assert event["error"] == "ValueError"
    assert world.send(keepalive_body(world.device.id)).status == 200


def test_f23_five_times_pauses_the_type_of_that_device_only(world: World) -> None:
    handled = Calls()

    def fail(*values: object) -> None:
        handled(*values)
        raise ValueError("poison")

    world.messages.on_document("Notify", "Alarm", fail)
    other = world.make(2)
    for _ in range(POISON_ERRORS + 3):
        assert world.send(ALARM).status == 200
    assert len(handled.calls) == POISON_ERRORS
    assert world.messages.counters.paused == 3
    world.send(ALARM, user=other.id, path=udp(5002))
    assert len(handled.calls) == POISON_ERRORS + 1
    fine = world.handler("Notify", "MobilePosition")
    world.send("<Notify><CmdType>MobilePosition</CmdType><SN>1</SN></Notify>")
    assert len(fine) == 1
    world.clock.advance(POISON_PAUSE_S + 1)
    world.send(ALARM)
    assert len(handled.calls) == POISON_ERRORS + 2
