"""The RTSP server over loopback, with a client written for it."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from gb28181gw.clock import SystemClock
from gb28181gw.media.ports import PortPool
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire import rtcp
from gb28181gw.media.wire.es_depacketiser import EsDepacketiser
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.outputs import rtsp, rtsp_connection
from gb28181gw.outputs.rtsp import RtspConfig, RtspListener
from tests.support.media import audio_clip, interleave, video_clip
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench
from tests.support.plane import free_port_pair, until

PATH = f"/live/{DEVICE}_{CHANNEL}"
H264 = video_clip(Codec.H264, gop=25)
PCMA = audio_clip(Codec.PCMA)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One connection; interleaved packets are kept by channel."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int
    packets: dict[int, list[bytes]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    cseq: int = 0
    session: str = ""
    ended: bool = False
    task: asyncio.Task[None] | None = None

    def url(self, tail: str = "", query: str = "?token=good") -> str:
        return f"rtsp://127.0.0.1:{self.port}{PATH}{tail}{query}"

    async def read(self) -> None:
        try:
            while True:
                first = await self.reader.readexactly(1)
                if first == b"$":
                    head = await self.reader.readexactly(3)
                    data = await self.reader.readexactly(head[1] << 8 | head[2])
                    self.packets.setdefault(head[0], []).append(data)
                    continue
                text = (first + await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in text[1:] if line)
                body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
                self.answers.append(Answer(int(text[0].split()[1]), headers, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended = True

    async def ask(self, method: str, url: str = "", **headers: str) -> Answer:
        self.cseq += 1
        if self.session:
            headers = {"Session": self.session, **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        count = len(self.answers)
        request = f"{method} {url or self.url()} RTSP/1.0\r\nCSeq: {self.cseq}\r\n{lines}\r\n"
        self.writer.write(request.encode())
        await until(lambda: len(self.answers) > count or self.ended, what=f"an answer to {method}")
        answer = self.answers[-1]
        assert answer.headers.get("CSeq", str(self.cseq)) == str(self.cseq)
        return answer

    async def play(self, *transports: str) -> None:
        assert (await self.ask("DESCRIBE")).status == 200
        for index, transport in enumerate(transports):
            answer = await self.ask("SETUP", self.url(f"/track{index}"), Transport=transport)
            assert answer.status == 200, answer
            self.session = answer.headers["Session"].partition(";")[0]
        assert (await self.ask("PLAY")).status == 200


@asynccontextmanager
async def server(**changes: int) -> AsyncIterator[tuple[Bench, RtspListener]]:
    async with bench() as b:
        first = free_port_pair()
        ports = PortPool(first, first + 1, 0, SystemClock())
        config = RtspConfig(host="127.0.0.1", port=0, **changes)
        listener = RtspListener(b.plane, b.source, b.guard, b.bus, b.listener.viewers, ports, config)
        await listener.start()
        try:
            yield b, listener
        finally:
            await listener.close()
            await until(lambda: listener.connections == 0)
        assert listener.streams == ports.in_use == 0
        assert b.source.held == 0


@asynccontextmanager
async def client(listener: RtspListener) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    made = Client(reader, writer, listener.port)
    made.task = asyncio.ensure_future(made.read())
    try:
        yield made
    finally:
        made.task.cancel()
        writer.close()
        await asyncio.gather(writer.wait_closed(), made.task, return_exceptions=True)


async def publish(b: Bench, frames: list[Frame] | tuple[Frame, ...], tracks: int = 1) -> None:
    b.push(frames)
    await until(lambda: len(b.plane.tracks("live")) == tracks)


def pictures(packets: list[bytes]) -> list[bytes]:
    """Payloads of whole frames, as the gateway's own reader sees them."""
    depacketiser = EsDepacketiser({96: Codec.H264})
    units = []
    for data in packets:
        packet = RtpPacket.parse(data)
        units += depacketiser.feed(packet.payload, packet.timestamp, packet.marker, 0.0, packet.payload_type)
    return [unit.payload for unit in units]


async def test_interleaved_from_the_kept_group_on() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, interleave(PCMA[:30], H264[:30]), 2)
        options = await c.ask("OPTIONS", "*")
        assert "DESCRIBE, SETUP, PLAY, TEARDOWN" in options.headers["Public"]
        described = await c.ask("DESCRIBE")
        assert described.headers["Content-Type"] == "application/sdp"
        assert described.body.count(b"m=") == 2
        assert len(b.source.leases) == 1
        assert len(b.listener.viewers) == 0
        await c.play("RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP;unicast;interleaved=2-3")
        assert b.source.viewers[0].kind == "rtsp"
        assert b.source.viewers[0].grant_id == "key-good"
        assert len(b.listener.viewers) == 1
        info = c.answers[-1].headers["RTP-Info"]
        await until(lambda: len(c.packets.get(0, ())) > 5)
        first = RtpPacket.parse(c.packets[0][0])
        assert f"track0;seq={first.sequence_number};rtptime={first.timestamp}" in info
        b.push(interleave(PCMA[30:], H264[30:]))
        await until(lambda: RtpPacket.parse(c.packets[0][-1]).timestamp == H264[-1].pts_90k)
        numbers = [RtpPacket.parse(data).sequence_number for data in c.packets[0]]
        assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
        payload_types = {
            channel: {RtpPacket.parse(d).payload_type for d in c.packets[channel]} for channel in (0, 2)
        }
        assert payload_types == {0: {96}, 2: {8}}
        assert RtpPacket.parse(c.packets[0][0]).timestamp == H264[25].pts_90k
        assert (await c.ask("TEARDOWN")).status == 200
        await until(lambda: b.source.held == 0)
        assert b.listener.viewers.ended == {"viewer_gone": 1}
        assert listener.streams == 0


async def test_udp_to_the_host_of_the_connection() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        low = free_port_pair()
        for offset, sock in enumerate(pair):
            sock.bind(("127.0.0.1", low + offset))
            sock.setblocking(False)
        ask = f"RTP/AVP;unicast;client_port={low}-{low + 1};destination=192.0.2.66"
        await c.play(ask)
        told = next(a.headers["Transport"] for a in c.answers if "Transport" in a.headers)
        assert f"client_port={low}-{low + 1}" in told
        assert "192.0.2.66" not in told
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(pair[0], ready.set)
        await asyncio.wait_for(ready.wait(), 5)
        loop.remove_reader(pair[0])
        data, source = pair[0].recvfrom(2000)
        assert source[1] == int(re.search(r"server_port=(\d+)", told)[1])  # type: ignore[index]
        assert RtpPacket.parse(data).payload_type == 96
        for sock in pair:
            sock.close()


async def test_sender_reports_map_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "_TICK_S", 0.01)
    monkeypatch.setattr(rtsp, "_REPORT_TICKS", 1)
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        await c.play("RTP/AVP/TCP;interleaved=4-5")
        await until(lambda: len(c.packets.get(5, ())) > 1)
        (report, *_) = rtcp.parse(c.packets[5][-1])
        assert isinstance(report, rtcp.SenderReport)
        assert report.ssrc == RtpPacket.parse(c.packets[4][0]).ssrc
        assert report.packet_count == len(c.packets[4])


async def test_players_share_one_stream() -> None:
    async with server() as (b, listener), client(listener) as one, client(listener) as two:
        await publish(b, H264[:10])
        await one.play("RTP/AVP/TCP")
        await two.play("RTP/AVP/TCP")
        assert listener.streams == 1
        b.push(H264[10:20])
        for c in (one, two):
            await until(lambda c=c: RtpPacket.parse(c.packets[0][-1]).timestamp == H264[19].pts_90k)
        assert one.packets[0] == two.packets[0]
        one.writer.close()
        await until(lambda: len(b.listener.viewers) == 1)
        assert listener.streams == 1


async def test_s15_refusals() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        answer = await c.ask("DESCRIBE", c.url(query=""))
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="gb28181gw"')
        assert (await c.ask("DESCRIBE", c.url(query="?token=stolen"))).status == 401
        assert b.source.viewers == []
        key = base64.b64encode(b"anybody:secret").decode()
        assert (await c.ask("DESCRIBE", c.url(query=""), Authorization=f"Basic {key}")).status == 200
        assert (await c.ask("DESCRIBE", "rtsp://h/etc/passwd?token=good")).status == 404


async def test_requests_that_do_not_fit() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        assert (await c.ask("PLAY")).status == 454
        assert (await c.ask("GET_PARAMETER")).status == 200
        assert (await c.ask("DESCRIBE")).status == 200
        assert (await c.ask("SETUP", c.url(), Transport="RTP/AVP/TCP")).status == 459
        assert (await c.ask("SETUP", c.url("/track1"), Transport="RTP/AVP/TCP")).status == 404
        assert (await c.ask("SETUP", c.url("/track0"), Transport="RTP/AVP;multicast")).status == 461
        assert (await c.ask("OPTIONS", Require="x-magic")).status == 551
        for method in ("PAUSE", "RECORD", "ANNOUNCE"):
            answer = await c.ask(method)
            assert answer.status == 405
            assert "PLAY" in answer.headers["Allow"]
        await c.play("RTP/AVP/TCP")
        assert (await c.ask("SETUP", c.url("/track0"), Transport="RTP/AVP/TCP")).status == 455
        assert (await c.ask("PLAY")).status == 200
        assert (await c.ask("PLAY", Session="stolen")).status == 454
        assert (await c.ask("GET_PARAMETER")).status == 200
        assert len(b.source.leases) == 1


async def test_made_aac() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, interleave(PCMA, H264), 2)
        url = c.url(query="?token=good&audio=aac")
        described = await c.ask("DESCRIBE", url)
        assert b"MPEG4-GENERIC/8000/1" in described.body
        for index in (0, 1):
            setup = await c.ask("SETUP", c.url(f"/track{index}"), Transport="RTP/AVP/TCP")
            c.session = setup.headers["Session"].partition(";")[0]
        assert (await c.ask("PLAY", url)).status == 200
        await until(lambda: len(c.packets.get(2, ())) > 3)
        assert RtpPacket.parse(c.packets[2][0]).payload_type == 97


async def test_f10_player_that_stops_reading_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtsp, "_TICK_S", 0.02)
    monkeypatch.setattr(rtsp_connection, "STALL_S", 0.1)
    monkeypatch.setattr(rtsp_connection, "QUEUE_BYTES", 100_000)
    async with server() as (b, listener), client(listener) as lazy, client(listener) as eager:
        await publish(b, H264[:1])
        await lazy.play("RTP/AVP/TCP")
        await eager.play("RTP/AVP/TCP")
        assert lazy.task is not None
        lazy.task.cancel()
        lazy.writer.transport.pause_reading()  # type: ignore[attr-defined]
        big = [replace(f, payload=f.payload + b"\0\0\0\1\x0c" + b"\xff" * 200_000) for f in H264]
        for turn in range(3):
            for frame in big:
                at = 180_000 * turn + 90_000
                b.push([replace(frame, dts_90k=frame.dts_90k + at, pts_90k=frame.pts_90k + at)])
                await asyncio.sleep(0.002)
        await until(lambda: b.listener.viewers.ended == {"slow": 1})
        await until(
            lambda: RtpPacket.parse(eager.packets[0][-1]).timestamp == 360_000 + 90_000 + H264[-1].pts_90k
        )


async def test_stream_that_ends_ends_the_connection() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        await c.play("RTP/AVP/TCP")
        b.plane.close_stream("live", "device_gone")
        await until(lambda: c.ended)
        assert b.listener.viewers.ended == {"device_gone": 1}


async def test_revoked_grant_ends_the_connection() -> None:
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        await c.play("RTP/AVP/TCP")
        b.listener.close_grants(lambda grant_id: grant_id == "key-good")
        await until(lambda: c.ended)
        assert b.listener.viewers.ended == {"revoked": 1}


async def test_client_that_never_plays_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "_TICK_S", 0.02)
    monkeypatch.setattr(rtsp_connection, "SETUP_S", 0.1)
    async with server() as (b, listener), client(listener) as c:
        await publish(b, H264[:10])
        assert (await c.ask("DESCRIBE")).status == 200
        await until(lambda: c.ended)
        assert b.source.held == 0


@pytest.mark.parametrize("garbage", [b"\x00" * 100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000])
async def test_s05_garbage_ends_one_connection_alone(garbage: bytes) -> None:
    async with server() as (b, listener), client(listener) as good, client(listener) as bad:
        await publish(b, H264[:10])
        await good.play("RTP/AVP/TCP")
        bad.writer.write(garbage)
        await until(lambda: bad.ended)
        assert bad.answers[-1].status >= 400
        assert (await good.ask("GET_PARAMETER")).status == 200


async def test_too_many_connections_get_an_answer() -> None:
    async with server(connections=1) as (_, listener), client(listener) as one, client(listener) as two:
        assert (await one.ask("OPTIONS")).status == 200
        await until(lambda: two.ended)
        assert two.answers[0].status == 503
