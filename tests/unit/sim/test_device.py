"""Keepalives, queries and controls of a device, against the scripted platform."""

from gb28181gw.gb.manscdp.xml import parse
from tests.support.sim import simulated
from tests.support.sim_platform import platform, udp_sink


async def test_keepalives_are_sent_and_counted() -> None:
    async with platform() as gateway, simulated(gateway.address, keepalive_s=0.1) as sim:
        await sim.until(lambda: sim.device.counters.keepalives >= 3)
        assert len(gateway.bodies("Keepalive")) >= 3


async def test_three_unanswered_keepalives_lead_to_a_new_registration() -> None:
    async with platform() as gateway:
        gateway.answer_keepalives = False
        async with simulated(gateway.address, keepalive_s=0.2) as sim:
            await sim.until(lambda: sim.device.counters.registrations >= 2, timeout_s=30)
            assert sim.device.counters.keepalive_misses >= 3
            assert [note.facts["error"] for note in sim.noted("register_failed")] == [
                "3 keepalives without answer"
            ]


async def test_tcp_connection_lost_leads_to_a_new_one() -> None:
    async with platform() as gateway, simulated(gateway.address, transport="tcp") as sim:
        await sim.registered()
        gateway.drop_connections()
        await sim.until(lambda: sim.device.counters.registrations >= 2)
        assert sim.noted("connection_lost")
        assert sim.device.registered


async def test_catalogue_is_sent_part_by_part() -> None:
    async with platform() as gateway, simulated(gateway.address, channels=5) as sim:
        await sim.registered()
        gateway.query(sim.device.id, "Catalog", sn=99)
        await gateway.until(lambda: len(gateway.bodies("Catalog")) == 3)
        documents = [parse(body) for body in gateway.bodies("Catalog")]
        assert {document.sn for document in documents} == {99}
        names = [item.findtext("Name") for document in documents for item in document.items("DeviceList")]
        assert names == [f"Test NVR 1-{n}" for n in range(1, 6)]
        await sim.until(lambda: sim.device.counters.catalog_items == 5)


async def test_queries_are_answered_with_their_sn() -> None:
    async with platform() as gateway, simulated(gateway.address, channels=1) as sim:
        await sim.registered()
        device = sim.device.id
        gateway.query(device, "DeviceInfo", sn=1)
        gateway.query(device, "DeviceStatus", sn=2)
        gateway.query(device, "RecordInfo", sn=3, target=sim.device.channels[0].id)
        gateway.query(device, "ConfigDownload", sn=4, extra="<ConfigType>BasicParam</ConfigType>")
        gateway.query(device, "ConfigDownload", sn=5, extra="<ConfigType>AudioParamOpt</ConfigType>")
        await gateway.until(lambda: len(gateway.requests("MESSAGE")) >= 5)
        answers = {document.sn: document for document in map(parse, gateway.bodies("Response"))}
        assert answers[1].text("DeviceName") == "Test NVR"
        assert answers[2].text("Online") == "ONLINE"
        assert answers[3].text("SumNum") == "0"
        assert "BasicParam" in answers[4].fields
        assert answers[5].text("Result") == "ERROR"
        assert all(response.status == 200 for response, _ in gateway.responses)


async def test_controls_that_have_an_answer() -> None:
    async with platform() as gateway, simulated(gateway.address) as sim:
        await sim.registered()
        device = sim.device.id
        gateway.query(device, "DeviceControl", sn=1, root="Control", extra="<RecordCmd>Record</RecordCmd>")
        gateway.query(
            device,
            "DeviceConfig",
            sn=2,
            root="Control",
            extra="<BasicParam><HeartBeatInterval>5</HeartBeatInterval></BasicParam>",
        )
        gateway.query(device, "DeviceConfig", sn=3, root="Control", extra="<AudioParamConfig/>")
        await gateway.until(lambda: len(gateway.bodies("Result")) >= 3)
        answers = {document.sn: document.text("Result") for document in map(parse, gateway.bodies("Result"))}
        assert answers == {1: "OK", 2: "OK", 3: "ERROR"}
        assert sim.device.keepalive_s == 5.0


async def test_options_and_unknown_methods() -> None:
    async with platform() as gateway, simulated(gateway.address) as sim:
        await sim.registered()
        target = gateway.registered[sim.device.id]
        gateway.send(gateway.request("OPTIONS", sim.device.id, call_id="o1"), target)
        gateway.send(gateway.request("PUBLISH", sim.device.id, call_id="s1"), target)
        gateway.send(gateway.request("SUBSCRIBE", sim.device.id, call_id="s2"), target)
        gateway.send(gateway.request("BYE", sim.device.id, call_id="b1", to_tag="x"), target)
        gateway.send(gateway.request("MESSAGE", sim.device.id, call_id="m1", to_tag="x"), target)
        gateway.send(gateway.request("INFO", sim.device.id, call_id="i1", to_tag="x"), target)
        assert "INVITE" in ((await gateway.final("OPTIONS", "o1")).headers.get("Allow") or "")
        assert (await gateway.final("PUBLISH", "s1")).status == 405
        assert (await gateway.final("SUBSCRIBE", "s2")).status == 400
        assert (await gateway.final("BYE", "b1")).status == 481
        assert (await gateway.final("MESSAGE", "m1")).status == 481
        assert (await gateway.final("INFO", "i1")).status == 481


async def test_a_repeated_request_gets_the_same_answer_and_no_second_reaction() -> None:
    async with platform() as gateway, simulated(gateway.address) as sim:
        await sim.registered()
        request = gateway.request("OPTIONS", sim.device.id, call_id="twice")
        for _ in range(2):
            gateway.send(request, gateway.registered[sim.device.id])
        await gateway.until(lambda: len(gateway.finals("OPTIONS", "twice")) == 2)
        first, second = gateway.finals("OPTIONS", "twice")
        assert first == second


async def test_a_message_that_cannot_be_read_is_acknowledged() -> None:
    async with platform() as gateway, simulated(gateway.address) as sim:
        await sim.registered()
        request = gateway.request("MESSAGE", sim.device.id, call_id="junk", body=b"\xff\xfe not xml")
        gateway.send(request, gateway.registered[sim.device.id])
        assert (await gateway.final("MESSAGE", "junk")).status == 200
        await sim.until(lambda: sim.noted("unreadable_message"))


async def test_iframe_command_reaches_the_stream() -> None:
    async with platform() as gateway, udp_sink() as sink, simulated(gateway.address) as sim:
        await sim.registered()
        channel = sim.device.channels[0].id
        gateway.invite(sim.device.id, channel, gateway.offer(sink.port))
        await gateway.until(lambda: len(sink.packets) > 10)
        asked: list[int] = []
        call = sim.calls[0]
        call.force_key = lambda: asked.append(1)  # type: ignore[method-assign]
        gateway.query(
            sim.device.id,
            "DeviceControl",
            root="Control",
            target=channel,
            extra="<IFrameCmd>Send</IFrameCmd>",
        )
        await sim.until(lambda: asked)


async def test_crash_leaves_the_registration_standing() -> None:
    async with platform() as gateway, simulated(gateway.address) as sim:
        await sim.registered()
        sim.crash()
        assert list(gateway.registered) == [sim.device.id]
        assert not sim.device.registered


# --- rows ---------------------------------------------------------------------------------------------------------


async def test_cat03_after_every_keepalive() -> None:
    async with (
        platform() as gateway,
        simulated(gateway.address, keepalive_s=0.1, channels=3, quirks=("CAT-03",)) as sim,
    ):
        await sim.until(lambda: sim.device.counters.keepalives >= 2)
        await gateway.until(lambda: gateway.bodies("Catalog"))
        document = parse(gateway.bodies("Catalog")[0])
        assert document.text("SumNum") == "1"


async def test_cat15_device_answers_info_but_no_catalogue() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("CAT-15",)) as sim:
        await sim.registered()
        gateway.query(sim.device.id, "Catalog", sn=1)
        gateway.query(sim.device.id, "DeviceInfo", sn=2)
        await gateway.until(lambda: gateway.bodies("DeviceInfo"))
        assert gateway.bodies("Catalog") == []


async def test_xml14_content_length_too_small() -> None:
    async with platform() as gateway, simulated(gateway.address, keepalive_s=0.1, quirks=("XML-14",)) as sim:
        await sim.until(lambda: sim.device.counters.keepalives >= 1)
        raw = next(entry.raw for entry in gateway.seen if entry.request.method == "MESSAGE")
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % (len(body) - 8) in head


async def test_xml14_long_content_length_too_large() -> None:
    async with (
        platform() as gateway,
        simulated(gateway.address, keepalive_s=0.1, quirks=("XML-14-LONG",)) as sim,
    ):
        await sim.until(lambda: sim.device.counters.keepalives >= 1)
        raw = next(entry.raw for entry in gateway.seen if entry.request.method == "MESSAGE")
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % (len(body) + 8) in head


async def test_xml17_content_type_text_plain() -> None:
    async with platform() as gateway, simulated(gateway.address, keepalive_s=0.1, quirks=("XML-17",)) as sim:
        await sim.until(lambda: sim.device.counters.keepalives >= 1)
        assert gateway.requests("MESSAGE")[0].headers.get("Content-Type") == "text/plain"


async def test_xml20_compact_and_folded_headers() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("XML-20",)) as sim:
        await sim.registered()
        raw = gateway.seen[0].raw
        assert b"\r\nv: SIP/2.0/UDP" in raw
        assert b"\r\n ;tag=" in raw
        assert b"\r\nmax-forwards: 70" in raw
