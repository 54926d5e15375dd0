"""The cascade on real sockets in this process: registration in all its turns, many channels, forwarded requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gb28181gw.cascade.models import UpperChange
from gb28181gw.cascade.sharing import ShareItem
from gb28181gw.devices.registry import ChannelChange
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.catalogue import CatalogEvent
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer
from gb28181gw.sessions.talk import Holder
from gb28181gw.sim.platform import Platform, PlatformOptions
from tests.support.sim_platform import REALM, SERVER_ID, platform
from tests.support.uppers import LOCAL_ID, NVR, camera, lab, make_device

PASSWORD = "secret"


async def until(look: object, what: str) -> None:
    assert callable(look)
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.005)
    assert look(), what


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Platform]:
    made = Platform(
        PlatformOptions(listen="127.0.0.1:0", id=SERVER_ID, domain=REALM, password=PASSWORD, **options)
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def settings(upper: Platform, **more: object) -> UpperChange:
    values = {"domain": REALM, "host": "127.0.0.1", "port": upper.port, "password": PASSWORD, **more}
    return UpperChange(**values)  # type: ignore[arg-type]  # names of the class


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_s07_sha_256_and_r077_a_redirect_is_followed(transport: str) -> None:
    async with (
        simulated(algorithm="SHA-256") as target,
        simulated(redirect=f"127.0.0.1:{target.port}") as first,
        lab(make_device()) as made,
    ):
        await made.uppers.add(SERVER_ID, settings(first, transport=transport))
        await until(lambda: LOCAL_ID in target.lowers, "registration at the target")
        await until(lambda: made.uppers.get(SERVER_ID).registered, "our side of it")
        assert made.uppers.get(SERVER_ID).remote_address == f"127.0.0.1:{target.port}"
        assert made.uppers.counters.redirected == 1 and not first.lowers
        await made.uppers.remove(SERVER_ID)
        assert LOCAL_ID not in target.lowers


async def test_the_standby_address_serves_while_the_first_does_not() -> None:
    async with simulated() as unused:
        port = unused.port
    async with simulated() as standby, lab(make_device()) as made:
        await made.uppers.add(
            SERVER_ID,
            UpperChange(
                domain=REALM, host="127.0.0.1", port=port, transport="tcp", password=PASSWORD,
                standby=f"127.0.0.1:{standby.port}",
            ),
        )  # fmt: skip
        await until(lambda: LOCAL_ID in standby.lowers, "registration at the standby address")


async def test_r070_refreshes_before_the_end_and_cs04_with_a_new_call_id_where_it_must() -> None:
    async with platform() as upper, lab(make_device()) as made:
        await made.register_at(upper, expires_s=10)
        link = made.uppers._entries[SERVER_ID].link
        before = len(upper.authorizations)
        assert await link._refresh() is None
        assert len(upper.authorizations) == before + 1
        registers = [seen.request for seen in upper.seen if seen.request.method == "REGISTER"]
        assert len({request.call_id for request in registers}) == 1
        numbers = [request.cseq.number for request in registers]
        assert numbers == sorted(set(numbers))


async def test_a_wrong_password_is_told_and_the_right_one_is_in_force_at_once() -> None:
    async with simulated() as upper, lab(make_device()) as made:
        await made.uppers.add(SERVER_ID, settings(upper, password="wrong"))
        await until(lambda: made.uppers.get(SERVER_ID).last_error, "an error")
        assert "403" in made.uppers.get(SERVER_ID).last_error
        await made.uppers.change(SERVER_ID, UpperChange(password=PASSWORD))
        await until(lambda: made.uppers.get(SERVER_ID).registered, "registration")
        assert made.uppers.get(SERVER_ID).last_error == ""


@pytest.mark.parametrize(
    ("outage", "transport"),
    [
        ("refused", "udp"),
        ("overloaded", "tcp"),
        ("forgotten", "udp"),
        ("challenged", "udp"),
        ("closed", "tcp"),
    ],
)
async def test_r071_f11_after_any_outage_an_upper_is_registered_at_again(outage: str, transport: str) -> None:
    async with platform() as upper, lab(make_device()) as made:
        link = made.uppers.counters
        upper.register_status = {"refused": 403, "overloaded": 503}.get(outage, 200)
        values = {"domain": REALM, "host": "127.0.0.1", "port": upper.port, "password": upper.password}
        change = UpperChange(transport=transport, keepalive_s=1, **values)  # type: ignore[arg-type]  # its names
        await made.uppers.add(SERVER_ID, change)
        if upper.register_status != 200:
            await until(lambda: link.failed >= 3, "rounds that fail")
            assert str(upper.register_status) in made.uppers.get(SERVER_ID).last_error
            upper.register_status = 200
        else:
            await until(lambda: made.uppers.get(SERVER_ID).registered, "the first registration")
            if outage == "closed":
                upper.drop_connections()
            else:
                upper.keepalive_status = {"forgotten": 403, "challenged": 401}[outage]
            await until(lambda: link.lost, "the loss to be seen")
            upper.keepalive_status = 200
        await until(lambda: made.uppers.get(SERVER_ID).registered, "the registration")
        assert made.uppers.get(SERVER_ID).last_error == ""
        # S-07: a challenge is answered in REGISTER alone.
        told = {seen.request.method for seen in upper.seen if seen.request.headers.get("Authorization")}
        assert told == {"REGISTER"}


async def test_cs10_cs19_each_upper_is_spoken_to_in_its_edition_and_charset() -> None:
    second_id = "34020000002000000002"
    device = make_device(channels=1)
    device.channels[camera(1)] = replace(device.channels[camera(1)], name="\u4e1c\u95e8")
    async with platform() as old, platform() as new, lab(device) as made:
        await made.register_at(old, edition="2.0", charset="GB2312")
        values = {"domain": REALM, "host": "127.0.0.1", "port": new.port, "password": new.password}
        await made.uppers.add(second_id, UpperChange(edition="3.0", charset="UTF-8", **values))  # type: ignore[arg-type]
        await new.until(lambda: made.uppers.get(second_id).registered)
        for upper, upper_id, version, name in (
            (old, SERVER_ID, None, "gb2312"), (new, second_id, "3.0", "utf-8")
        ):  # fmt: skip
            await made.uppers.share(upper_id, [], share_all=True)
            assert {one.headers.get("X-GB-Ver") for one in upper.requests("REGISTER")} == {version}
            upper.query(LOCAL_ID, "Catalog", sn=77, target=LOCAL_ID)
            written = "\u4e1c\u95e8".encode(name)
            await upper.until(
                lambda upper=upper, written=written: written in b"".join(upper.bodies("Catalog"))  # type: ignore[misc]
            )
            assert f'encoding="{name}"'.encode() in upper.bodies("Catalog")[0].lower()


async def test_50000_shared_channels_are_told_whole_while_other_requests_are_served() -> None:
    devices = [make_device(f"3402000000200001{number:04d}", 10_000) for number in range(1, 6)]
    async with simulated() as upper, lab(*devices) as made:
        await made.uppers.add(SERVER_ID, settings(upper, transport="tcp"))
        await made.uppers.share(SERVER_ID, [], share_all=True)
        lower = await upper.registered(LOCAL_ID)
        whole = asyncio.create_task(upper.catalogue(lower))
        await until(lambda: made.uppers.answers.counters.catalogues, "the catalogue to begin")
        info = await upper.ask(lower, "DeviceInfo")
        assert info["Channel"] == 50_000 and not whole.done()
        found = await whole
        assert lower.expected == len(found) == 50_005  # with the five devices
        assert made.uppers.answers.counters.catalogue_messages >= 250


@pytest.mark.parametrize(("transport", "named"), [("udp", 16), ("tcp", 20)])
async def test_r099_a_keepalive_names_the_shared_channels_that_are_defective(
    transport: str, named: int
) -> None:
    device = make_device(channels=22, fault="VLOST")
    well, last = device.channels[camera(1)], device.channels[camera(22)]
    device.channels[camera(1)] = replace(well, fault="")
    async with platform() as upper, lab(device) as made:
        await made.register_at(upper, keepalive_s=1, transport=transport)
        shown = [ShareItem(device_id=NVR, channel_id=camera(n), shared_id="") for n in range(1, 22)]
        shown[2] = ShareItem(device_id=NVR, channel_id=camera(3), shared_id="34020100001320000777")
        await made.uppers.share(SERVER_ID, shown, share_all=False)

        def told() -> list[str]:
            bodies = [seen.request.body for seen in upper.seen if b"Keepalive" in seen.request.body]
            return re.findall(r"<Info>(.*?)</Info>", bodies[-1].decode(), re.DOTALL) if bodies else []

        await until(told, "a keepalive with faults")
        ids = re.findall(r"<DeviceID>(\d+)</DeviceID>", told()[0])
        assert len(ids) == named and ids[:2] == [camera(2), "34020100001320000777"]
        assert camera(1) not in ids and last.id not in ids
        for key, channel in device.channels.items():
            device.channels[key] = replace(channel, fault="")
        device.channels[camera(1)] = broken = replace(well, fault="DEFECT")
        made.uppers.channel_changed(NVR, ChannelChange(channel=broken, event=CatalogEvent.DEFECT))
        await until(lambda: told() and told()[0].count("<DeviceID>") == 1, "only the new fault")
        assert camera(1) in told()[0]


async def test_r099_what_a_lower_platform_calls_faulty_is_named_above_by_its_shared_id() -> None:
    lower = make_device("34020200002000000001", channels=40)
    async with platform() as upper, lab(lower) as made:
        await made.register_at(upper, keepalive_s=1)
        shown = [ShareItem(device_id=lower.id, channel_id=camera(n), shared_id="") for n in range(1, 31)]
        shown[0] = ShareItem(device_id=lower.id, channel_id=camera(1), shared_id="34020100001320000777")
        await made.uppers.share(SERVER_ID, shown, share_all=False)

        def told() -> list[str]:
            bodies = [seen.request.body for seen in upper.seen if b"Keepalive" in seen.request.body]
            return re.findall(r"<DeviceID>(\d+)</DeviceID>", bodies[-1].decode())[1:] if bodies else []

        lower.faulty = frozenset({camera(1), camera(2), camera(31)})
        made.uppers.faults_changed(lower)
        await until(told, "a keepalive with faults")
        assert told() == [camera(2), "34020100001320000777"], "what is not shared is not named"
        lower.faulty = frozenset(camera(n) for n in range(1, 41))
        made.uppers.faults_changed(lower)
        await until(lambda: len(told()) == 16, "as many as fit into a datagram")
        lower.faulty = frozenset()
        made.uppers.faults_changed(lower)
        await until(lambda: not told(), "a keepalive without faults")


async def test_r097_every_query_is_passed_on_with_the_uppers_sn_and_ids() -> None:
    shared = "34020100001320000555"
    async with platform() as upper, lab(make_device()) as made:
        await made.register_at(upper)
        await made.uppers.share(
            SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1), shared_id=shared)], share_all=False
        )
        made.commands.answers["RecordInfo"] = {
            "CmdType": "RecordInfo", "SN": 9, "DeviceID": camera(1), "Name": "Gate", "SumNum": 30,
            "RecordList": {"Item": [
                {"DeviceID": camera(1), "Name": f"f{number}", "StartTime": f"2024-05-01T{number % 24:02d}:00:00",
                 "RecorderID": "34020000001110000009"}
                for number in range(30)
            ]},
        }  # fmt: skip
        span = "<StartTime>2024-05-01T00:00:00</StartTime><EndTime>2024-05-02T00:00:00</EndTime>"
        upper.query(LOCAL_ID, "RecordInfo", sn=601, target=shared, extra=span)

        def bodies() -> list[str]:
            return [
                seen.request.body.decode("gb18030")
                for seen in upper.seen
                if b"<SN>601</SN>" in seen.request.body
            ]

        await upper.until(lambda: sum(body.count("<Item>") for body in bodies()) == 30)
        text = "".join(bodies())
        assert set(re.findall(r"<DeviceID>(\d+)</DeviceID>", text)) == {shared}
        assert "RecorderID" not in text and set(re.findall(r"<SumNum>(\d+)<", text)) == {"30"}
        assert made.commands.run_with[-1][:3] == (NVR, camera(1), "RecordInfo")

        made.commands.error = GatewayError("gb.sip.no_answer", "It is away.")
        upper.query(LOCAL_ID, "PresetQuery", sn=602, target=shared)
        await upper.until(lambda: any(b"<SN>602</SN>" in seen.request.body for seen in upper.seen))
        refused = next(seen.request.body for seen in upper.seen if b"<SN>602</SN>" in seen.request.body)
        assert b"<Result>ERROR</Result>" in refused and b"<SumNum>0</SumNum>" in refused


async def test_r097_every_kind_of_query_goes_down_and_is_answered_with_the_uppers_sn() -> None:
    shared = "34020100001320000555"
    queries = [
        command for command in COMMANDS.values() if command.root == "Query" and command.name != "Catalog"
    ]
    assert len(queries) == 12
    async with platform() as upper, lab(make_device()) as made:
        await made.register_at(upper)
        await made.uppers.share(
            SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1), shared_id=shared)], share_all=False
        )
        for sn, command in enumerate(queries, 900):
            extra = "<ConfigType>BasicParam</ConfigType>" if command.name == "ConfigDownload" else ""
            upper.query(LOCAL_ID, command.cmd_type, sn=sn, target=shared, extra=extra)
            await upper.until(lambda sn=sn: len(made.commands.run_with) == sn - 899)  # type: ignore[misc]
            assert made.commands.run_with[-1][:3] == (NVR, camera(1), command.name)
            if command.answer is Answer.NONE:
                continue
            mark = f"<SN>{sn}</SN>".encode()
            await upper.until(lambda mark=mark: any(mark in seen.request.body for seen in upper.seen))  # type: ignore[misc]
            body = next(seen.request.body for seen in upper.seen if mark in seen.request.body).decode(
                "gb18030"
            )
            assert (
                f"<CmdType>{command.cmd_type}</CmdType>" in body and f"<DeviceID>{shared}</DeviceID>" in body
            )


async def test_s21_each_control_needs_the_right_and_drastic_ones_their_own() -> None:
    controls = [command for command in COMMANDS.values() if command.root == "Control"]
    async with platform() as upper, lab(make_device()) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1))], share_all=False)
        sn = 0
        for control, drastic in ((False, True), (True, False), (True, True)):
            await made.uppers.change(SERVER_ID, UpperChange(control=control, drastic=drastic))
            allowed: list[str] = []
            made.commands.run_with.clear()
            for command in controls:
                sn += 1
                before = len(upper.responses)
                extra = f"<{command.name}>1</{command.name}>" if command.cmd_type == "DeviceControl" else ""
                upper.query(
                    LOCAL_ID, command.cmd_type, sn=sn, target=camera(1), root="Control", extra=extra
                )  # fmt: skip
                await upper.until(lambda before=before: len(upper.responses) > before)  # type: ignore[misc]
                may = control and (drastic or not command.drastic)
                assert upper.responses[-1][0].status == (200 if may else 403), command.name
                allowed += [command.name] if may else []
            await until(
                lambda allowed=allowed: len(made.commands.run_with) == len(allowed), "all to be forwarded"
            )
            assert [name for _, _, name, _ in made.commands.run_with] == allowed


async def test_s21_a_second_camera_in_a_control_is_one_that_is_shared() -> None:
    shared = "34020100001320000555"
    async with platform() as upper, lab(make_device(channels=3)) as made:
        await made.register_at(upper)
        items = [
            ShareItem(device_id=NVR, channel_id=camera(1)),
            ShareItem(device_id=NVR, channel_id=camera(2), shared_id=shared),
        ]
        await made.uppers.share(SERVER_ID, items, share_all=False)
        for sn, other, status in ((1, shared, 200), (2, camera(3), 404), (3, camera(2), 404)):
            before = len(upper.responses)
            extra = f"<TargetTrack>Auto</TargetTrack><DeviceID2>{other}</DeviceID2>"
            upper.query(LOCAL_ID, "DeviceControl", sn=sn, target=camera(1), root="Control", extra=extra)
            await upper.until(lambda before=before: len(upper.responses) > before)  # type: ignore[misc]
            assert upper.responses[-1][0].status == status
        await until(lambda: made.commands.run_with, "the command")
        assert [values["DeviceID2"] for *_, values in made.commands.run_with] == [camera(2)]


async def test_rem_settings_are_checked_by_name() -> None:
    async with lab() as made:
        for change, field in (
            (UpperChange(domain="3402000000", host="a b"), "host"),
            (UpperChange(domain="3402000000", host="h", transport="sctp"), "transport"),
            (UpperChange(domain="3402000000", host="h", standby="h"), "standby"),
            (UpperChange(domain="3402000000", host="h", edition="9.9"), "edition"),
            (UpperChange(domain="3402000000", host="h", media_allow=("x",)), "media_allow"),
            (UpperChange(domain="3402000000", host="h", password='a"b'), "password"),
        ):
            with pytest.raises(GatewayError) as caught:
                await made.uppers.add(SERVER_ID, change)
            assert caught.value.detail.startswith(f"{field}:")
        assert len(made.uppers) == 0


async def test_f07_from_another_port_of_its_host_an_upper_may_ask_and_not_order() -> None:
    async with platform() as upper, platform() as second, lab(make_device()) as made:
        await made.register_at(upper)
        await made.uppers.share(SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1))], share_all=False)
        second.registered[LOCAL_ID] = upper.registered[LOCAL_ID]
        second.query(LOCAL_ID, "PresetQuery", sn=5, target=camera(1))
        await upper.until(lambda: any(b"<SN>5</SN>" in seen.request.body for seen in upper.seen))
        assert not second.seen  # the answer goes where we are registered
        order = "<GuardCmd>SetGuard</GuardCmd>"
        second.query(LOCAL_ID, "DeviceControl", sn=6, target=camera(1), root="Control", extra=order)
        await second.until(lambda: len(second.responses) == 2)
        assert [response.status for response, _ in second.responses] == [200, 403]
        assert [name for _, _, name, _ in made.commands.run_with] == ["PresetQuery"]


TALK = "v=0\r\ns=Talk\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 30000 RTP/AVP {}\r\na=sendrecv\r\ny=0200000001\r\n"


async def test_r136_s21_an_upper_that_may_not_talk_or_would_disturb_is_refused() -> None:
    async with platform() as upper, platform() as second, lab(make_device()) as made:
        await made.register_at(upper, name="City")
        await made.uppers.share(SERVER_ID, [ShareItem(device_id=NVR, channel_id=camera(1))], share_all=False)
        second.registered[LOCAL_ID] = upper.registered[LOCAL_ID]

        async def status(call_id: str, channel: str, payloads: str = "8", sender: Any = upper) -> int:
            offer = TALK.format(payloads).encode()
            sender.invite(LOCAL_ID, channel, offer, call_id=call_id)
            answer = await sender.final("INVITE", call_id)
            assert answer.headers.get("X-RoutePath") == LOCAL_ID
            return int(answer.status)

        assert await status("busy", camera(1)) == 486
        assert await status("unshared", camera(2)) == 404
        assert await status("aac", camera(1), "102\r\na=rtpmap:102 AAC/8000/1") == 488
        assert await status("port", camera(1), sender=second) == 403
        await made.uppers.change(SERVER_ID, UpperChange(control=False))
        assert await status("right", camera(1)) == 403
        holder = Holder(key_id=f"upper:{SERVER_ID}", name="City")
        assert made.talks.asked == [(NVR, camera(1), holder)]
        await until(lambda: not made.uppers.calls.total, "no call to be left")
        assert made.engine.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
