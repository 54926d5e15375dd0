"""Subscriptions at a simulated device over SIP to the API: granted, notified, renewed, lost, ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.devices.models import Device
from gb28181gw.devices.subscriptions import Kind, SubscribeConfig
from tests.support.commanding import PASSWORD, Bench, bench
from tests.support.devices import Running, SipDevice, catalogue_part, device_id, gateway, item, until
from tests.support.sim import simulated

ALL = tuple(Kind)
QUICK: dict[str, Any] = {"after_online_s": 0.0, "retry_s": 0.05}


def wants(*kinds: Kind, **times: Any) -> dict[str, Any]:
    return {"subscribe": SubscribeConfig(kinds=kinds, **{**QUICK, **times})}


async def subscriptions(made: Bench) -> dict[str, dict[str, Any]]:
    """By kind, as the API tells them."""
    answer = await made.client.get(f"/api/v1/devices/{made.id}/subscriptions")
    assert answer.status_code == 200, answer.text
    return {one["kind"]: one for one in answer.json()["items"]}


async def active(made: Bench, *kinds: Kind) -> None:
    def all_active() -> bool:
        device = made.running.devices.registry.require(made.id)
        states = {view.kind: view.state.value for view in made.running.subscriptions.of(device)}
        return all(states.get(kind) == "active" for kind in kinds)

    await until(all_active)


@pytest.mark.parametrize("edition", ["1.0", "2.0", "3.0"])
async def test_r117_each_edition_is_subscribed_what_it_knows(tmp_path: Path, edition: str) -> None:
    dialect = {"dialect": {"edition": edition}} if edition == "1.0" else {}
    async with bench(tmp_path, edition=edition, devices=wants(*ALL)) as made:
        if dialect:
            await made.client.patch(f"/api/v1/devices/{made.id}", json=dialect)
        known = {"1.0": ALL[:2], "2.0": ALL[:3], "3.0": ALL}[edition]
        await active(made, *known)
        found = await subscriptions(made)
        assert set(found) >= set(known)
        assert found["catalog"]["event"].startswith("Catalog;id=")
        assert found["alarm"]["event"] == "presence"
        assert found["catalog"]["sip_status"] is None and found["catalog"]["failures"] == 0
        asked = {note.facts["command"] for note in made.sim.noted("subscribed")}
        assert len(asked) == len(known)
        started = made.running.bus.of("subscription.started")
        assert {event["kind"] for event in started} == set(known)


async def test_r123_a_subscription_is_asked_for_600_s_unless_configured(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        assert [note.facts["expires"] for note in made.sim.noted("subscribed")] == [600]
        found = (await subscriptions(made))["catalog"]
        assert found["expires_at"] > found["since"]


async def test_r121_the_events_of_a_catalogue_change_the_channel(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        heard: list[str] = []
        made.running.devices.registry.on_channel_changed(lambda _device, change: heard.append(change.event))

        async def shown() -> tuple[int, object, object]:
            answer = await made.client.get(made.channel_path)
            body = answer.json()
            return answer.status_code, body.get("status", ""), body.get("fault", "")

        for event, expected in (
            ("OFF", (200, "OFF", "")), ("ON", (200, "ON", "")), ("VLOST", (200, "ON", "VLOST")),
            ("DEFECT", (200, "ON", "DEFECT")), ("ON", (200, "ON", "")), ("DEL", (404, 404, "")),
            ("ADD", (200, "ON", "")),
        ):  # fmt: skip
            before = made.running.subscriptions.counters.notifies
            assert await made.device.change_channel(made.channel, event)
            assert made.running.subscriptions.counters.notifies == before + 1
            assert await shown() == expected, event
        assert heard == ["OFF", "ON", "VLOST", "DEFECT", "ON", "DEL", "ADD"]
        found = (await subscriptions(made))["catalog"]
        assert found["notifies"] == 7 and found["notified_at"]


async def test_r118_alarms_and_positions_come_as_notify(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.ALARM, Kind.POSITION)) as made:
        await active(made, Kind.ALARM, Kind.POSITION)
        alarms: list[str] = []
        places: list[tuple[float, float]] = []
        made.running.reports.on_alarm(lambda alarm: alarms.append(alarm.channel_id))
        made.running.reports.on_position(lambda place: places.append((place.longitude, place.latitude)))
        await made.device.raise_alarm("东门")
        await made.device.tell_position()
        assert alarms == [made.channel] and places == [(117.27, 31.86)]
        assert {note.facts["command"] for note in made.sim.noted("notified")} == {"Alarm", "MobilePosition"}
        # 9.4.3 is about MESSAGE: a NOTIFY is answered by its 200 alone.
        assert not made.sim.noted("alarm_answered")
        assert (await made.client.get("/api/v1/alarms")).json()["total"] == 1


async def test_r119_the_ptz_position_of_a_camera_is_kept(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.PTZ)) as made:
        await active(made, Kind.PTZ)
        told: list[float | None] = []
        made.running.reports.on_ptz(lambda place: told.append(place.pan))
        await made.on_channel("PTZPreciseCtrl", PTZPreciseCtrl={"Pan": 120.5, "Tilt": 10, "Zoom": 2})
        await until(lambda: 120.5 in told)
        answer = await made.client.get(f"{made.channel_path}/ptz")
        assert {key: answer.json()[key] for key in ("pan", "tilt", "zoom")} == {
            "pan": 120.5, "tilt": 10.0, "zoom": 2.0,
        }  # fmt: skip
        assert (await made.client.get(f"{made.channel_path[:-1]}9/ptz")).status_code == 404


async def test_r126_a_subscription_is_renewed_within_its_dialog(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG, expires_s=1)) as made:
        await until(lambda: len(made.sim.noted("renewed")) >= 2)
        assert len(made.sim.noted("subscribed")) == 1
        assert made.running.subscriptions.counters.renewed >= 1


async def test_r125_what_is_off_at_the_beginning_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants()) as made:
        assert not await made.device.change_channel(made.channel, "OFF")
        assert (await made.client.get(made.channel_path)).json()["status"] == "ON"
        changed = await made.client.patch(f"/api/v1/devices/{made.id}", json={"subscribe": ["catalog"]})
        assert changed.json()["subscribe"] == ["catalog"]
        await until(lambda: made.running.bus.of("channel.status"))
        assert (await made.client.get(made.channel_path)).json()["status"] == "OFF"


async def test_a_device_has_its_own_choice_and_what_is_not_wanted_ends(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG, Kind.ALARM)) as made:
        await active(made, Kind.CATALOG, Kind.ALARM)
        where = f"/api/v1/devices/{made.id}"
        await made.client.patch(where, json={"subscribe": ["alarm"]})
        await until(lambda: made.sim.noted("unsubscribed"))
        (ended,) = made.sim.noted("unsubscribed")
        assert ended.facts["command"] == "Catalog"
        assert set(await subscriptions(made)) == {"alarm"}
        await made.client.patch(where, json={"subscribe": []})
        await until(lambda: len(made.sim.noted("unsubscribed")) == 2)
        back = await made.client.patch(where, json={"subscribe": "default"})
        assert back.json()["subscribe"] is None
        await active(made, Kind.CATALOG, Kind.ALARM)
        for wrong in (["nonsense"], "all", ["alarm"] * 5):
            assert (await made.client.patch(where, json={"subscribe": wrong})).status_code == 422, wrong


async def test_a_removed_device_is_unsubscribed(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.ALARM)) as made:
        await active(made, Kind.ALARM)
        await made.client.delete(f"/api/v1/devices/{made.id}")
        await until(lambda: made.sim.noted("unsubscribed"))
        assert made.running.bus.of("subscription.ended")[-1]["reason"] == "device_removed"


async def test_cat19_refused_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-19-REFUSED",), devices=wants(Kind.CATALOG)) as made:
        await until(lambda: made.running.bus.of("subscription.failed"))
        found = (await subscriptions(made))["catalog"]
        assert (found["state"], found["sip_status"], found["failures"]) == ("unsupported", 405, 1)
        assert made.running.bus.of("subscription.failed")[0]["reason"] == "unsupported"
        device_id = made.id
        # A person may ask all the same.
        again = await made.client.post(f"/api/v1/devices/{made.id}/subscriptions")
        assert again.status_code == 202
        await until(lambda: len(made.sim.noted("subscribe_refused")) == 2)
    async with gateway(tmp_path, **wants(Kind.CATALOG)) as running:
        device = running.devices.registry.require(device_id)
        await until(lambda: running.subscriptions.of(device))
        assert [view.state.value for view in running.subscriptions.of(device)] == ["unsupported"]


async def test_cat19_silent_devices_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.subscriptions.ANSWER_S", 0.2)
    async with bench(tmp_path, quirks=("CAT-19-SILENT",), devices=wants(Kind.CATALOG)) as made:
        await until(lambda: made.running.subscriptions.counters.unanswered >= 2)
        found = (await subscriptions(made))["catalog"]
        assert found["state"] == "failed" and found["reason"] == "no_answer" and found["failures"] >= 2
        assert len(made.running.bus.of("subscription.failed")) == 1


async def test_cat19_ends_by_itself_and_is_subscribed_anew(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-19-ENDS",), devices=wants(Kind.CATALOG, expires_s=4)) as made:
        await until(lambda: made.sim.noted("subscription_unknown"))
        await until(lambda: len(made.sim.noted("subscribed")) == 2)
        await active(made, Kind.CATALOG)


async def test_cat19_granted_and_never_notified_is_shown(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-19",), devices=wants(Kind.ALARM)) as made:
        await active(made, Kind.ALARM)
        await made.device.raise_alarm()
        found = (await subscriptions(made))["alarm"]
        assert (found["state"], found["notifies"], found["notified_at"]) == ("active", 0, None)


async def test_cat19_event_that_is_known_is_found(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-19-EVENT",), devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        assert (await subscriptions(made))["catalog"]["event"] == "presence"
        assert [note.facts["status"] for note in made.sim.noted("subscribe_refused")] == [489]


async def test_cat19_error_in_the_200_is_a_refusal(tmp_path: Path) -> None:
    async with bench(
        tmp_path, edition="2.0", quirks=("CAT-19-ERROR",), devices=wants(Kind.ALARM, retry_s=60)
    ) as made:
        await until(lambda: made.running.bus.of("subscription.failed"))
        found = (await subscriptions(made))["alarm"]
        assert (found["state"], found["reason"]) == ("failed", "command_failed")
        assert "ERROR" in found["detail"]


async def test_cat20_events_in_lower_case(tmp_path: Path) -> None:
    await _in_another_form(tmp_path, "CAT-20")


async def test_cat20_full_items_without_an_event(tmp_path: Path) -> None:
    await _in_another_form(tmp_path, "CAT-20-FULL")


async def _in_another_form(tmp_path: Path, quirk: str) -> None:
    async with bench(tmp_path, edition="2.0", quirks=(quirk,), devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        await made.device.change_channel(made.channel, "OFF")
        assert (await made.client.get(made.channel_path)).json()["status"] == "OFF"
        assert made.running.devices.registry.require(made.id).quirks["catalog.event_form"]


async def test_cat21_other_tags_and_another_id_are_the_same_subscription(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-21",), devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        await made.device.change_channel(made.channel, "OFF")
        assert [note.facts["status"] for note in made.sim.noted("notified")] == [200]
        assert (await made.client.get(made.channel_path)).json()["status"] == "OFF"
        assert made.running.subscriptions.counters.notifies_off_dialog == 1
        assert made.running.devices.registry.require(made.id).quirks["notify.dialog_differs"] == 1


async def test_r127_the_device_ends_it_and_is_asked_again(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        await made.device.notifier.end("Catalog", "timeout")
        assert made.running.bus.of("subscription.ended")[-1]["reason"] == "timeout"
        await until(lambda: len(made.sim.noted("subscribed")) == 2)
        await made.device.notifier.end("Catalog", "noresource")
        assert (await subscriptions(made))["catalog"]["state"] == "unsupported"


async def test_rfc6665_a_notification_after_the_end_is_answered_481(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        (granted,) = made.device.notifier.active("Catalog")
        await made.client.patch(f"/api/v1/devices/{made.id}", json={"subscribe": []})
        await until(lambda: made.sim.noted("unsubscribed"))
        assert await made.device.notifier.notify(granted, None) == 481


async def test_r011_over_tcp_the_dialog_goes_on_over_the_next_connection(tmp_path: Path) -> None:
    async with bench(tmp_path, transport="tcp", devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        await made.device.signalling.open()
        await made.device._registration.register()
        await made.device.change_channel(made.channel, "OFF")
        assert [note.facts["status"] for note in made.sim.noted("notified")] == [200]
        made.running.subscriptions.renew(made.id)
        await until(lambda: made.sim.noted("renewed"))
        assert len(made.sim.noted("subscribed")) == 1
        assert (await subscriptions(made))["catalog"]["state"] == "active"


async def test_f17_a_subscription_survives_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=wants(Kind.CATALOG)) as made:
        await active(made, Kind.CATALOG)
        port, server = made.running.port, made.running
        (granted,) = made.device.notifier.active("Catalog")
        await server.subscriptions.close()
        await server.reports.close()
        await server.devices.close()
        await server.agent.close()
        await server.agent.transports.close()
        await server.database.close()
        async with gateway(tmp_path, port=port, **wants(Kind.CATALOG)) as running:
            device = running.devices.registry.require(made.id)
            await until(lambda: running.subscriptions.of(device))
            (view,) = running.subscriptions.of(device)
            assert view.state.value == "active"
            assert await made.device.change_channel(made.channel, "OFF")
            await until(lambda: device.channels[made.channel].status.value == "OFF")
            running.subscriptions.renew(made.id)
            await until(lambda: made.sim.noted("renewed"))
            assert made.device.notifier.holds(granted)
            assert len(made.sim.noted("subscribed")) == 1


async def test_a_device_that_restarted_is_subscribed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A registration so soon after a grant is else taken for one of a device that changes its Call-ID each time.
    monkeypatch.setattr("gb28181gw.devices.subscriptions.RESTARTED_S", -1.0)
    async with gateway(tmp_path, **wants(Kind.ALARM)) as running:
        counters = running.subscriptions.counters
        server = f"127.0.0.1:{running.port}"
        async with simulated(server, password=PASSWORD, unregister=False) as first:
            await first.until(lambda: first.noted("subscribed"))
            first.crash()
        counters = running.subscriptions.counters
        # Within a minute of the last grant a registration is taken for one that changed its Call-ID.
        for entry in running.subscriptions._entries[first.device.id].values():
            entry.renewed_at -= 61
        async with simulated(server, password=PASSWORD, seed=2) as second:
            await second.until(lambda: second.noted("subscribed"))
            await until(lambda: counters.subscribed == 2)
            assert second.noted("subscription_unknown")


async def test_an_unregistered_device_has_ended_its_subscriptions(tmp_path: Path) -> None:
    async with gateway(tmp_path, **wants(Kind.ALARM)) as running:
        async with simulated(f"127.0.0.1:{running.port}", password=PASSWORD) as sim:
            await sim.until(lambda: sim.noted("subscribed"))
            device_id = sim.device.id
        device = running.devices.registry.require(device_id)
        await until(lambda: not device.online)
        (view,) = running.subscriptions.of(device)
        assert (view.state.value, view.expires_at) == ("waiting", None)
        assert not len(running.agent.subscriptions)


# -- notifications of a device that is written by hand -------------------------------------------------------------


def event_body(channel: str, event: str, *, root: str = "Notify") -> str:
    return (
        f"<{root}><CmdType>Catalog</CmdType><SN>5</SN><DeviceID>{device_id(1)}</DeviceID><SumNum>1</SumNum>"
        f'<DeviceList Num="1"><Item><DeviceID>{channel}</DeviceID><Event>{event}</Event></Item></DeviceList></{root}>'
    )


HEAD = ("Event: presence", "Subscription-State: active", "Content-Type: Application/MANSCDP+xml")


@asynccontextmanager
async def by_hand(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Running, SipDevice, Device]]:
    """A device that is registered, answers one channel to Catalog, and answers 200 to everything."""
    async with gateway(tmp_path, **settings) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        device.on_query = lambda kind, sn: (
            [catalogue_part(device.id, sn, [item(1)], 1)] if kind == "Catalog" else []
        )
        await device.registered()
        await until(lambda: "catalog.complete" in running.bus.names())
        yield running, device, running.devices.registry.require(device.id)
        device.close()


CHANNEL = "34020000001320000001"


async def test_s03_a_notify_from_elsewhere_changes_and_ends_nothing(tmp_path: Path) -> None:
    async with by_hand(tmp_path, **wants(Kind.CATALOG)) as (running, device, known):
        await until(lambda: running.subscriptions.counters.subscribed == 1)
        call_id = next(headers["call-id"] for what, headers, _ in device.requests if what == "SUBSCRIBE")
        stranger = await SipDevice(device.id).open(running.port, "127.0.0.2")
        end = "Subscription-State: terminated;reason=noresource"
        stranger.request("NOTIFY", *HEAD, body=event_body(CHANNEL, "DEL"), call_id=call_id)
        stranger.request("NOTIFY", "Event: presence", end, call_id=call_id)
        await device.answer(device.request("NOTIFY", *HEAD, body=event_body(CHANNEL, "OFF")))
        assert known.channels[CHANNEL].status.value == "OFF" and not known.channels[CHANNEL].gone
        (view,) = running.subscriptions.of(known)
        assert (view.state.value, view.notifies) == ("active", 0)  # of the device itself: of no dialog
        assert known.quirks["notify.unasked"] == 1
        stranger.close()


async def test_cat21_unasked_events_by_message_and_notify_are_taken(tmp_path: Path) -> None:
    async with by_hand(tmp_path) as (running, device, known):
        for method, event, status in (("NOTIFY", "OFF", "OFF"), ("MESSAGE", "ON", "ON")):
            await device.answer(device.request(method, *HEAD, body=event_body(CHANNEL, event)))
            assert known.channels[CHANNEL].status.value == status
        assert running.subscriptions.counters.notifies_unasked == 1


async def test_91142_a_notify_with_the_root_response_answers_no_open_query(tmp_path: Path) -> None:
    async with by_hand(tmp_path) as (running, device, known):
        heard: list[object] = []
        query = running.devices.queries.open(device.id, "Catalog", heard.append)
        await device.answer(device.request("NOTIFY", *HEAD, body=event_body(CHANNEL, "OFF", root="Response")))
        assert not heard and known.channels[CHANNEL].status.value == "OFF"
        running.devices.queries.close(query)


async def test_cat17_an_unknown_channel_makes_us_ask_for_the_catalogue(tmp_path: Path) -> None:
    async with by_hand(tmp_path, query_timeout_s=0.2) as (running, device, known):
        # The first query is over when DeviceInfo and DeviceStatus had their time; it would be a second query else.
        await until(lambda: device.id not in running.devices.catalogue._jobs)
        known.catalogue_tried -= 61
        device.on_query = lambda kind, sn: (
            [catalogue_part(device.id, sn, [item(1), item(2)], 2)] if kind == "Catalog" else []
        )
        await device.answer(device.request("NOTIFY", *HEAD, body=event_body(CHANNEL[:-1] + "2", "ON")))
        await until(lambda: len(known.channels) == 2)
        assert running.bus.of("catalog.started")[-1]["reason"] == "notified"


async def test_a258_an_offer_of_video_is_an_event(tmp_path: Path) -> None:
    head = "<Notify><CmdType>VideoUploadNotify</CmdType><SN>7</SN>"
    async with by_hand(tmp_path) as (running, device, _):
        await device.answer(
            device.message(f"{head}<DeviceID>{device.id}</DeviceID><Time>2024-05-01T08:30:00</Time></Notify>")
        )
        (told,) = running.bus.of("device.video_offered")
        assert (told["channel_id"], told["time"]) == (device.id, "2024-05-01T08:30:00")


async def test_a_notify_that_cannot_be_read_is_answered_400_and_ends_nothing(tmp_path: Path) -> None:
    async with by_hand(tmp_path, **wants(Kind.CATALOG)) as (running, device, known):
        await until(lambda: running.subscriptions.counters.subscribed == 1)
        status, _ = await device.answer(device.request("NOTIFY", *HEAD, body="no xml at all"))
        assert status == 400
        assert running.subscriptions.of(known)[0].state.value == "active"
