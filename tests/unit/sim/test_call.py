"""Calls: offer, answer, media and the end of it, over all three media transports, and the INV, SES and F rows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gb28181gw.sim import call as call_module
from gb28181gw.sim import media_links, media_sender
from gb28181gw.sip.message import Request, Response
from tests.support.sim import Simulation, simulated
from tests.support.sim_platform import MiniPlatform, RtpSink, deframe, platform, ssrc_of, tcp_sink, udp_sink

SSRC = 200001234


@dataclass
class Stage:
    """A registered device and a platform."""

    gateway: MiniPlatform
    sim: Simulation

    @property
    def device(self) -> str:
        return self.sim.device.id

    @property
    def channel(self) -> str:
        return self.sim.device.channels[0].id

    def invite(self, port: int, *, call_id: str = "call1", **offer: str) -> Request:
        return self.gateway.invite(
            self.device, self.channel, self.gateway.offer(port, **offer), call_id=call_id
        )

    async def accepted(self, port: int, **offer: str) -> tuple[Request, Response]:
        """INVITE and its 200, not yet acknowledged."""
        request = self.invite(port, **offer)
        final = await self.gateway.final("INVITE", request.call_id)
        assert final.status == 200
        return request, final

    async def playing(self, sink: RtpSink, **offer: str) -> tuple[Request, Response]:
        request, final = await self.accepted(sink.port, **offer)
        self.gateway.in_dialog("ACK", self.device, request, final)
        await self.gateway.until(lambda: len(sink.packets) > 20 or len(sink.stream) > 5000)
        return request, final


@asynccontextmanager
async def stage(*quirks: str, **changes: object) -> AsyncIterator[Stage]:
    async with platform() as gateway, simulated(gateway.address, quirks=quirks, **changes) as sim:
        await sim.registered()
        yield Stage(gateway, sim)


def sdp(response: Response, start: str) -> str:
    return next((line for line in response.body.decode().splitlines() if line.startswith(start)), "")


def answer_port(response: Response) -> int:
    return int(sdp(response, "m=").split()[1])


# --- correct ------------------------------------------------------------------------------------------------------


async def test_udp_from_invite_to_bye() -> None:
    async with stage() as st, udp_sink() as sink:
        request, final = await st.playing(sink)
        assert st.gateway.provisionals("call1") == [100]
        assert sdp(final, "y=") == "y=0200001234"
        assert {ssrc_of(packet) for packet in sink.packets} == {SSRC}
        assert sink.sources == {("127.0.0.1", answer_port(final))}
        assert answer_port(final) % 2 == 0
        assert sink.packets[0][12:16] == b"\0\0\1\xba"
        assert st.sim.streaming == 1
        st.gateway.in_dialog("BYE", st.device, request, final)
        assert (await st.gateway.final("BYE", "call1")).status == 200
        await st.sim.until(lambda: not st.sim.calls)
        assert st.sim.bytes_sent == sum(map(len, sink.packets))


async def test_tcp_passive_the_device_dials() -> None:
    async with stage() as st, tcp_sink() as sink:
        _, final = await st.playing(sink, transport="tcp-passive")
        assert sdp(final, "a=setup") == "a=setup:active"
        packets = deframe(bytes(sink.stream))
        assert {ssrc_of(packet) for packet in packets} == {SSRC}


async def test_tcp_active_the_device_listens() -> None:
    async with stage() as st:
        request, final = await st.accepted(9, transport="tcp-active")
        assert sdp(final, "a=setup") == "a=setup:passive"
        st.gateway.in_dialog("ACK", st.device, request, final)
        async with tcp_sink(connect_to=answer_port(final)) as sink:
            await st.gateway.until(lambda: len(sink.stream) > 5000)
            assert {ssrc_of(packet) for packet in deframe(bytes(sink.stream))} == {SSRC}


async def test_tcp_dialling_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_links, "CONNECT_PAUSE_S", 0.02)
    async with stage() as st:
        # Nobody listens: the device gives up after its tries and says BYE.
        request, final = await st.accepted(1, transport="tcp-passive")
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.gateway.until(lambda: st.gateway.requests("BYE"))
        assert st.sim.noted("media_lost")[0].facts["reason"] == "connect_failed"


async def test_tcp_media_lost_ends_the_call_with_bye() -> None:
    async with stage() as st, tcp_sink() as sink:
        await st.playing(sink, transport="tcp-passive")
        sink.close()
        await st.gateway.until(lambda: st.gateway.requests("BYE"))
        bye = st.gateway.requests("BYE")[0]
        assert (bye.call_id, bye.to.tag) == ("call1", "pf")
        assert st.sim.streaming == 0


async def test_answer_is_repeated_until_the_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "T1_S", 0.02)
    async with stage() as st, udp_sink() as sink:
        request, final = await st.accepted(sink.port)
        await st.gateway.until(lambda: len(st.gateway.finals("INVITE", "call1")) >= 3)
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.sim.until(lambda: st.sim.noted("confirmed"))
        count = len(st.gateway.finals("INVITE", "call1"))
        await st.gateway.until(lambda: len(sink.packets) > 40)
        assert len(st.gateway.finals("INVITE", "call1")) <= count + 1


async def test_no_ack_at_all_ends_with_bye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "T1_S", 0.01)
    monkeypatch.setattr(call_module, "TRANSACTION_S", 0.1)
    async with stage() as st, udp_sink() as sink:
        await st.accepted(sink.port)
        await st.gateway.until(lambda: st.gateway.requests("BYE"))
        assert st.sim.noted("ack_missing")


async def test_media_goes_on_when_the_platform_falls_silent() -> None:
    async with stage(keepalive_s=0.2) as st, udp_sink() as sink:
        await st.playing(sink)
        st.gateway.silent = True
        await st.sim.until(lambda: st.sim.noted("register_failed"), timeout_s=30)
        before = len(sink.packets)
        await st.gateway.until(lambda: len(sink.packets) > before + 10)
        assert st.sim.streaming == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 488),
        (
            b"v=0\r\ns=Play\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5000 RTP/AVP 98\r\na=rtpmap:98 H264/90000\r\n",
            488,
        ),
    ],
)
async def test_offers_that_cannot_be_answered(body: bytes, status: int) -> None:
    async with stage() as st:
        st.gateway.invite(st.device, st.channel, body)
        assert (await st.gateway.final("INVITE", "call1")).status == status
        await st.sim.until(lambda: not st.sim.calls)


async def test_playback_is_refused_because_there_are_no_recordings() -> None:
    async with stage() as st:
        offer = st.gateway.offer(5000).replace(b"s=Play", b"s=Playback")
        st.gateway.invite(st.device, st.channel, offer)
        assert (await st.gateway.final("INVITE", "call1")).status == 488


async def test_unknown_channel() -> None:
    async with stage() as st:
        st.gateway.invite(st.device, "34020000001320009999", st.gateway.offer(5000))
        assert (await st.gateway.final("INVITE", "call1")).status == 404


async def test_second_invite_for_the_same_stream_releases_the_first() -> None:
    async with stage() as st, udp_sink() as first, udp_sink() as second:
        await st.playing(first)
        st.invite(second.port, call_id="call2")
        await st.gateway.until(lambda: len(second.packets) > 5)
        assert [note.facts["reason"] for note in st.sim.noted("stream_stopped")] == ["replaced"]
        assert [call.call_id for call in st.sim.calls] == ["call2"]


async def test_two_different_streams_of_a_channel_run_side_by_side() -> None:
    async with stage() as st, udp_sink() as first, udp_sink() as second:
        await st.playing(first)
        offer = st.gateway.offer(second.port, ssrc="0200009999")
        st.gateway.invite(
            st.device,
            st.channel,
            offer,
            call_id="call2",
            subject=f"{st.channel}:0200009999,34020000002000000001:0",
        )
        await st.gateway.until(lambda: len(second.packets) > 5)
        assert st.sim.streaming == 2


async def test_cancel_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as st:
        blocked = asyncio.Event()

        async def never(name: str) -> None:
            await blocked.wait()

        monkeypatch.setattr(st.sim.fleet, "content_of", never)
        object.__setattr__(st.sim.device._services, "content_of", never)
        request = st.invite(5000)
        await st.gateway.until(lambda: st.gateway.provisionals("call1") == [100])
        st.gateway.cancel(st.device, request)
        assert (await st.gateway.final("CANCEL", "call1")).status == 200
        assert (await st.gateway.final("INVITE", "call1")).status == 487
        assert not st.sim.calls


async def test_rtp_faults_lose_packets() -> None:
    async with stage(rtp_loss=0.3) as st, udp_sink() as sink:
        await st.playing(sink)
        numbers = [int.from_bytes(packet[2:4], "big") for packet in sink.packets]
        assert (numbers[-1] - numbers[0]) % 65536 > len(numbers)


# --- INV ----------------------------------------------------------------------------------------------------------


async def test_inv02_own_ssrc_in_answer_and_rtp() -> None:
    async with stage("INV-02") as st, udp_sink() as sink:
        _, final = await st.playing(sink)
        own = int(sdp(final, "y=")[2:])
        assert own != SSRC
        assert {ssrc_of(packet) for packet in sink.packets} == {own}


async def test_inv08_foreign_domain_is_refused() -> None:
    async with stage("INV-08") as st:
        request = st.gateway.request(
            "INVITE",
            st.channel,
            call_id="foreign",
            body=st.gateway.offer(5000),
            content_type="application/sdp",
        )
        request.headers.set("To", f"<sip:{st.channel}@127.0.0.1:5060>")
        st.gateway.send(request, st.gateway.registered[st.device])
        assert (await st.gateway.final("INVITE", "foreign")).status == 400


async def test_inv11_busy() -> None:
    async with stage("INV-11") as st:
        st.invite(5000)
        assert (await st.gateway.final("INVITE", "call1")).status == 486


async def test_inv13_only_ps_is_accepted() -> None:
    async with stage("INV-13") as st, udp_sink() as sink:
        st.invite(sink.port, payloads="all", call_id="many")
        assert (await st.gateway.final("INVITE", "many")).status == 488
        st.invite(sink.port, call_id="one")
        assert (await st.gateway.final("INVITE", "one")).status == 200


async def test_inv14_first_invite_fails() -> None:
    async with stage("INV-14") as st, udp_sink() as sink:
        st.invite(sink.port, call_id="first")
        assert (await st.gateway.final("INVITE", "first")).status == 500
        st.invite(sink.port, call_id="second")
        assert (await st.gateway.final("INVITE", "second")).status == 200


async def test_inv15_rtp_without_a_final_answer() -> None:
    async with stage("INV-15") as st, udp_sink() as sink:
        request = st.invite(sink.port)
        await st.gateway.until(lambda: len(sink.packets) > 20)
        assert st.gateway.finals("INVITE", "call1") == []
        st.gateway.cancel(st.device, request)
        await st.sim.until(lambda: st.sim.streaming == 0)


async def test_inv16_media_waits_for_the_ack() -> None:
    async with stage("INV-16") as st, udp_sink() as sink:
        request, final = await st.accepted(sink.port)
        # A round trip on the same path shows that the device has done all it does before the ACK.
        st.gateway.query(st.device, "DeviceInfo")
        await st.gateway.until(lambda: st.gateway.bodies("DeviceInfo"))
        assert sink.packets == []
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.gateway.until(lambda: len(sink.packets) > 5)


async def test_inv16_over_tcp_as_well() -> None:
    async with stage("INV-16") as st, tcp_sink() as sink:
        request, final = await st.accepted(sink.port, transport="tcp-passive")
        await st.gateway.until(lambda: sink.connections == 1)
        assert not sink.stream
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.gateway.until(lambda: len(sink.stream) > 1000)


async def test_inv19_tcp_connection_before_the_200() -> None:
    async with stage("INV-19") as st, tcp_sink() as sink:
        st.invite(sink.port, transport="tcp-passive")
        await st.gateway.until(lambda: sink.connections == 1)
        await st.gateway.final("INVITE", "call1")
        order = [note.what for note in st.sim.recorder.notes if note.what in ("stream_started", "answered")]
        assert order == ["stream_started", "answered"]


async def test_inv20_tcp_connection_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LATE_DIAL_S", 0.3)
    async with stage("INV-20") as st, tcp_sink() as sink:
        request, final = await st.accepted(sink.port, transport="tcp-passive")
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.sim.until(lambda: st.sim.noted("confirmed"))
        assert sink.connections == 0
        await st.gateway.until(lambda: sink.connections == 1)


async def test_inv21_accepts_tcp_and_never_connects() -> None:
    async with stage("INV-21") as st, tcp_sink() as sink:
        request, final = await st.accepted(sink.port, transport="tcp-passive")
        st.gateway.in_dialog("ACK", st.device, request, final)
        st.gateway.query(st.device, "DeviceInfo")
        await st.gateway.until(lambda: st.gateway.bodies("DeviceInfo"))
        assert (sink.connections, st.sim.streaming) == (0, 0)
        st.gateway.in_dialog("BYE", st.device, request, final)
        assert (await st.gateway.final("BYE", "call1")).status == 200


async def test_inv30_invite_is_ignored_while_message_works() -> None:
    async with stage("INV-30") as st:
        st.invite(5000)
        st.gateway.query(st.device, "DeviceInfo")
        await st.gateway.until(lambda: st.gateway.bodies("DeviceInfo"))
        assert st.sim.invites
        assert [response for response, _ in st.gateway.responses if response.call_id == "call1"] == []


# --- MED rows of the transport ------------------------------------------------------------------------------------


async def test_med25_a_tcp_packet_is_cut_short() -> None:
    async with stage("MED-25", bitrate_kbps=2000) as st, tcp_sink() as sink:
        await st.playing(sink, transport="tcp-passive")
        await st.gateway.until(
            lambda: any(packet[:1] != b"\x80" for packet in deframe(bytes(sink.stream))), timeout_s=20
        )
        assert sink.stream[2:3] == b"\x80"  # it began well


async def test_med26_interleaved_framing() -> None:
    async with stage("MED-26") as st, tcp_sink() as sink:
        await st.playing(sink, transport="tcp-passive")
        assert sink.stream[:2] == b"$\0"
        length = int.from_bytes(sink.stream[2:4], "big")
        assert sink.stream[4 + length : 6 + length] == b"$\0"


async def test_med27_packets_of_up_to_64_kilobytes() -> None:
    async with stage("MED-27") as st, tcp_sink() as sink:
        await st.playing(sink, transport="tcp-passive")
        assert max(map(len, deframe(bytes(sink.stream)))) > 1500


async def test_med33_source_port_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_sender, "PHASE_S", 0.5)
    async with stage("MED-33") as st, udp_sink() as sink:
        await st.playing(sink)
        await st.gateway.until(lambda: len(sink.sources) == 2, timeout_s=15)
        assert {ssrc_of(packet) for packet in sink.packets} == {SSRC}


# --- SES and F ----------------------------------------------------------------------------------------------------


async def test_ses01_answers_bye_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "DEAF_S", 0.5)
    async with stage("SES-01") as st, udp_sink() as sink:
        request, final = await st.playing(sink)
        st.gateway.in_dialog("BYE", st.device, request, final)
        assert (await st.gateway.final("BYE", "call1")).status == 200
        before = len(sink.packets)
        await st.gateway.until(lambda: len(sink.packets) > before + 5)
        await st.sim.until(lambda: st.sim.streaming == 0)


async def test_ses04_says_bye_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "OWN_BYE_S", 0.2)
    async with stage("SES-04") as st, udp_sink() as sink:
        _, final = await st.accepted(sink.port)
        await st.gateway.until(lambda: st.gateway.requests("BYE"))
        bye = st.gateway.requests("BYE")[0]
        assert (bye.from_.tag, bye.to.tag) == (final.to.tag, "pf")
        assert st.sim.streaming == 0


async def test_f05_silent() -> None:
    async with stage("F-05-SILENT") as st:
        st.invite(5000)
        await st.sim.until(lambda: st.sim.invites)
        st.gateway.query(st.device, "DeviceInfo")
        await st.gateway.until(lambda: st.gateway.bodies("DeviceInfo"))
        assert [response for response, _ in st.gateway.responses if response.call_id == "call1"] == []


async def test_f05_trying_and_nothing_more() -> None:
    async with stage("F-05-TRYING") as st:
        st.invite(5000)
        await st.gateway.until(lambda: st.gateway.provisionals("call1") == [100])
        st.gateway.query(st.device, "DeviceInfo")
        await st.gateway.until(lambda: st.gateway.bodies("DeviceInfo"))
        assert st.gateway.finals("INVITE", "call1") == []


async def test_f05_no_sdp_in_the_200() -> None:
    async with stage("F-05-NO-SDP") as st, udp_sink() as sink:
        request, final = await st.accepted(sink.port)
        assert final.body == b""
        st.gateway.in_dialog("ACK", st.device, request, final)
        await st.sim.until(lambda: st.sim.noted("confirmed"))
        assert (sink.packets, st.sim.streaming) == ([], 0)


async def test_f05_late_200_although_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LATE_ANSWER_S", 0.5)
    async with stage("F-05-LATE") as st, udp_sink() as sink:
        request = st.invite(sink.port)
        await st.gateway.until(lambda: st.gateway.provisionals("call1") == [100])
        st.gateway.cancel(st.device, request)
        assert (await st.gateway.final("CANCEL", "call1")).status == 200
        assert (await st.gateway.final("INVITE", "call1")).status == 200


async def test_f06_bye_is_ignored_for_ever() -> None:
    async with stage("F-06") as st, udp_sink() as sink:
        request, final = await st.playing(sink)
        st.gateway.in_dialog("BYE", st.device, request, final)
        await st.sim.until(lambda: st.sim.noted("bye_ignored"))
        before = len(sink.packets)
        await st.gateway.until(lambda: len(sink.packets) > before + 10)
        assert st.gateway.finals("BYE", "call1") == []
