"""Subscriptions of upper platforms: initial state, changes, refresh, end, and what an outage costs (F-11)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gb28181gw.cascade.models import UpperChange
from gb28181gw.cascade.notifications import Pace
from gb28181gw.cascade.sharing import ShareItem
from gb28181gw.devices.models import ChannelStatus, Presence
from gb28181gw.devices.registry import ChannelChange
from gb28181gw.devices.reports import Alarm, Place, PtzPlace
from gb28181gw.gb.manscdp.catalogue import CatalogEvent
from tests.support.sim_platform import REALM, SERVER_ID, MiniPlatform, platform
from tests.support.uppers import LOCAL_ID, NVR, Lab, camera, lab, make_device, notifies, subscribe


def told(upper: MiniPlatform) -> dict[str, str]:
    """Newest event of each id."""
    found: dict[str, str] = {}
    for body in notifies(upper):
        for item in re.findall(r"<Item>(.*?)</Item>", body, re.DOTALL):
            fields = dict(re.findall(r"<(\w+)>([^<]*)</\1>", item))
            found[fields["DeviceID"]] = fields["Event"]
    return found


def switch(made: Lab, number: int, on: bool) -> None:
    """A device tells that a channel came or went."""
    device = made.book.devices[NVR]
    channel = replace(device.channels[camera(number)], status=ChannelStatus.ON if on else ChannelStatus.OFF)
    device.channels[channel.id] = channel
    event = CatalogEvent.ON if on else CatalogEvent.OFF
    made.uppers.channel_changed(NVR, ChannelChange(event=event, channel=channel))


async def test_n1_what_is_off_is_told_at_once_and_then_every_change(  # Annex N
) -> None:
    device = make_device(channels=3)
    async with platform() as upper, lab(device) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [], share_all=True)
        switch(made, 2, on=False)
        subscribe(upper, "Catalog", event="Catalog;id=1894")
        await upper.until(lambda: told(upper) == {camera(2): "OFF"})
        notify = next(one.request for one in upper.seen if one.request.method == "NOTIFY")
        assert notify.headers.get("Event") == "Catalog;id=1894"
        assert (notify.headers.get("Subscription-State") or "").startswith("active;expires=")
        assert made.uppers.get(SERVER_ID).subscriptions == ("Catalog",)

        switch(made, 2, on=True)
        switch(made, 3, on=False)
        await upper.until(lambda: told(upper) == {camera(2): "ON", camera(3): "OFF"})
        device.channels[camera(4)] = replace(device.channels[camera(1)], id=camera(4), name="New")
        made.uppers.channel_changed(
            NVR, ChannelChange(event=CatalogEvent.ADD, channel=device.channels[camera(4)])
        )
        await upper.until(lambda: told(upper).get(camera(4)) == "ADD")
        assert "<Name>New</Name>" in notifies(upper)[-1]


async def test_ka09_a_device_that_goes_takes_its_channels_and_cs17_shares_are_told() -> None:
    async with platform() as upper, lab(make_device(channels=2)) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1))], share_all=False)
        subscribe(upper, "Catalog")
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        device = made.book.devices[NVR]
        device.presence = Presence.OFFLINE
        made.uppers.device_changed(device, "silence")
        await upper.until(lambda: told(upper) == {camera(1): "OFF"})
        device.presence = Presence.ONLINE
        made.uppers.device_changed(device, "registered")
        await upper.until(lambda: told(upper) == {camera(1): "ON"})
        await made.uppers.share(SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(2))], share_all=False)
        await upper.until(lambda: told(upper) == {camera(1): "DEL", camera(2): "ADD"})


async def test_f11_10000_changes_while_the_upper_is_away_cost_at_most_100_notify() -> None:
    async with platform() as upper, lab(make_device(channels=10_000)) as made:
        await made.register_at(upper, transport="tcp")
        await made.uppers.share(SERVER_ID, [], share_all=True)
        subscribe(upper, "Catalog")
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        await upper.close()
        await upper.until(lambda: not made.uppers.get(SERVER_ID).registered)
        for number in range(1, 10_001):
            switch(made, number, on=False)
        for number in range(1, 10_001, 2):
            switch(made, number, on=True)
        await upper.open(upper.port)
        await upper.until(lambda: made.uppers.get(SERVER_ID).registered)
        await upper.until(lambda: len(told(upper)) == 5_000, 60)
        assert set(told(upper).values()) == {"OFF"}
        assert len(notifies(upper)) <= 100


async def test_f11_100_flaps_of_an_upper_leave_it_in_sync_and_others_untouched() -> None:
    other_id = "34020000002000000009"
    async with platform() as upper, platform() as steady, lab(make_device(channels=5)) as made:
        await made.register_at(upper, transport="tcp")
        await made.uppers.add(
            other_id,
            UpperChange(domain="3402000000", host="127.0.0.1", port=steady.port, password=steady.password),
        )
        await steady.until(lambda: made.uppers.get(other_id).registered)
        await made.uppers.share(SERVER_ID, [], share_all=True)
        registrations = len([one for one in steady.seen if one.request.method == "REGISTER"])
        subscribe(upper, "Catalog")
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        for flap in range(100):
            upper.drop_connections()
            await upper.until(lambda: not made.uppers.get(SERVER_ID).registered)
            switch(made, 1 + flap % 5, on=flap % 2 == 0)
            await upper.until(lambda: made.uppers.get(SERVER_ID).registered)
        wanted = {channel.id: channel.status.value for channel in made.book.devices[NVR].channels.values()}
        await upper.until(lambda: all(told(upper).get(key, "ON") == state for key, state in wanted.items()))
        assert len(notifies(upper)) <= 100
        assert len([one for one in steady.seen if one.request.method == "REGISTER"]) == registrations
        assert made.uppers.counters.lost == 100


async def test_i10_what_an_upper_leaves_unanswered_does_not_grow() -> None:
    pace = Pace(gather_s=0.0, between_s=0.0, answer_s=0.05, again_s=0.0)
    async with platform() as upper, lab(make_device(channels=2), pace=pace) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [], share_all=True)
        subscribe(upper, "Catalog")
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        upper.withhold = lambda request: request.method == "NOTIFY"
        for number in range(1, 12):
            switch(made, 1, on=number % 2 == 0)
            await upper.until(lambda number=number: made.uppers.notify_counters.failed >= number)  # type: ignore[misc]
        upper.seen.clear()
        upper.withheld.clear()
        upper.release()
        switch(made, 2, on=False)
        await upper.until(lambda: told(upper) == {camera(1): "OFF", camera(2): "OFF"})
        assert len(notifies(upper)) <= 3


@pytest.mark.long
async def test_f11_100_flaps_with_10000_changes_while_it_is_away_are_told_in_60_s_and_100_notify() -> None:
    """Both at once, of 10,000 channels, at the pace of every day; another upper is told and served all the time."""
    other_id = "34020000002000000009"
    async with (
        platform() as upper,
        platform() as steady,
        lab(make_device(channels=10_000), pace=Pace()) as made,
    ):
        await made.register_at(upper, transport="tcp")
        values = {"domain": REALM, "host": "127.0.0.1", "port": steady.port, "password": steady.password}
        await made.uppers.add(other_id, UpperChange(**values, keepalive_s=1))  # type: ignore[arg-type]
        await steady.until(lambda: made.uppers.get(other_id).registered)
        for upper_id, peer in ((SERVER_ID, upper), (other_id, steady)):
            await made.uppers.share(upper_id, [], share_all=True)
            subscribe(peer, "Catalog", call_id=upper_id)
            await peer.until(lambda upper_id=upper_id: made.uppers.get(upper_id).subscriptions)  # type: ignore[misc]
        changes = 0
        for flap in range(100):
            upper.drop_connections()
            await upper.until(lambda: not made.uppers.get(SERVER_ID).registered)
            for number in range(80):
                switch(made, 1 + 80 * flap + number, on=False)
                changes += 1
            for number in range(20):  # those of the flap before are on again
                switch(made, 1 + 80 * max(flap - 1, 0) + number, on=True)
                changes += 1
            if flap % 10 == 0:
                steady.query(LOCAL_ID, "DeviceInfo", sn=7000 + flap)
                mark = b"<SN>%d</SN>" % (7000 + flap)
                await steady.until(lambda mark=mark: any(mark in one.request.body for one in steady.seen))  # type: ignore[misc]
            await upper.until(lambda: made.uppers.get(SERVER_ID).registered)
        assert changes == 10_000 and made.uppers.counters.lost == 100
        channels = made.book.devices[NVR].channels.values()
        wanted = {one.id for one in channels if one.status is ChannelStatus.OFF}
        assert len(wanted) > 5_000

        def in_sync(peer: MiniPlatform) -> bool:
            return {key for key, event in told(peer).items() if event == "OFF"} == wanted

        await upper.until(lambda: in_sync(upper), 60)
        assert len(notifies(upper)) <= 100
        await steady.until(lambda: in_sync(steady), 60)
        assert len([one for one in steady.seen if one.request.method == "REGISTER"]) == 2
        assert made.uppers.get(other_id).registered and made.uppers.notify_counters.failed <= 100


async def test_cs18_alarms_positions_and_ptz_are_told_to_who_subscribed_in_its_ids() -> None:
    shared = "34020100001320000555"
    async with platform() as upper, lab(make_device(channels=2)) as made:
        await made.register_at(upper)
        await made.uppers.share(
            SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1), shared_id=shared)], share_all=False
        )
        subscribe(
            upper,
            "Alarm",
            call_id="a",
            extra="<StartAlarmPriority>1</StartAlarmPriority><EndAlarmPriority>2</EndAlarmPriority>",
        )
        subscribe(upper, "MobilePosition", call_id="b", extra="<Interval>1</Interval>")
        subscribe(upper, "PTZPosition", call_id="c")
        await upper.until(lambda: len(made.uppers.get(SERVER_ID).subscriptions) == 3)
        for channel_id, priority in ((camera(1), 1), (camera(1), 4), (camera(2), 1)):
            made.uppers.alarm(
                Alarm(
                    device_id=NVR, channel_id=channel_id, priority=priority, method=5, type="2", event_type="",
                    time=1_700_000_000.0, received_at=1_700_000_000.0, description="moved",
                    longitude=None, latitude=None,
                )
            )  # fmt: skip
        made.uppers.place(
            Place(
                device_id=NVR, channel_id=camera(1), time=1_700_000_000.0, received_at=0.0, longitude=117.3,
                latitude=31.8, speed=None, direction=None, altitude=None, height=None,
            )
        )  # fmt: skip
        made.uppers.ptz_place(
            PtzPlace(
                device_id=NVR, channel_id=camera(1), received_at=0.0, pan=12.5, tilt=1.0, zoom=2.0,
                horizontal_angle=None, vertical_angle=None, max_distance=None,
            )
        )  # fmt: skip
        await upper.until(
            lambda: (
                notifies(upper, "Alarm")
                and notifies(upper, "MobilePosition")
                and notifies(upper, "PTZPosition")
            )
        )
        alarms = notifies(upper, "Alarm")
        assert len(alarms) == 1 and f"<DeviceID>{shared}</DeviceID>" in alarms[0]
        assert "<AlarmTime>2023-11-15T06:13:20</AlarmTime>" in alarms[0]
        assert f"<DeviceID>{shared}</DeviceID>" in notifies(upper, "MobilePosition")[0]
        assert "<Pan>12.5</Pan>" in notifies(upper, "PTZPosition")[0]


async def test_r6665_refresh_end_expiry_and_481() -> None:
    async with platform() as upper, lab(make_device(channels=2)) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [], share_all=True)

        def final(number: int) -> str:
            return next(
                response.to.tag
                for response, _ in upper.responses
                if response.cseq.method == "SUBSCRIBE" and response.cseq.number == number
            )

        subscribe(upper, "Catalog", expires=90)
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        tag = final(1)
        subscribe(upper, "Catalog", expires=90, to_tag=tag, cseq=2)
        await upper.until(lambda: any(r.cseq.number == 2 and r.status == 200 for r, _ in upper.responses))
        subscribe(upper, "Catalog", expires=0, to_tag=tag, cseq=3)
        await upper.until(lambda: not made.uppers.get(SERVER_ID).subscriptions)
        await upper.until(
            lambda: any(
                "terminated" in (one.request.headers.get("Subscription-State") or "") for one in upper.seen
            )
        )
        subscribe(upper, "Catalog", expires=1, call_id="short")
        await upper.until(lambda: made.uppers.get(SERVER_ID).subscriptions)
        await upper.until(lambda: not made.uppers.get(SERVER_ID).subscriptions)
        assert made.uppers.notify_counters.expired == 1
        subscribe(upper, "Broken", call_id="odd")
        await upper.until(lambda: any(r.status == 489 for r, _ in upper.responses))
        assert LOCAL_ID in upper.registered
