"""The media listener over loopback: who gets what, and that everything is given back."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace

import pytest
import websockets

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.outputs import connection, transcoding
from gb28181gw.outputs.listener import ListenerConfig
from tests.support.outputs import CHANNEL, DEVICE, PATH, TOKEN, Bench, bench, read_head, request
from tests.support.plane import (
    FlvTag,
    audio_frames,
    dechunk,
    flv_tags,
    interleave,
    until,
    video_frames,
)

GET = f"GET {PATH}?token={TOKEN} HTTP/1.1\nHost: gw\n\n"


async def read_flv(reader: asyncio.StreamReader, count: int, *, chunked: bool = True) -> list[FlvTag]:
    """At least `count` tags of frames."""
    data = b""
    async with asyncio.timeout(5):
        while True:
            piece = await reader.read(65536)
            assert piece, "the answer ended early"
            data += piece
            body = dechunk(data) if chunked else data
            tags = list(flv_tags(body)) if len(body) > 13 else []
            if sum(tag.kind != 18 and not tag.is_configuration for tag in tags) >= count:
                return tags


async def test_http_flv_with_token_delivers_the_stream() -> None:
    async with bench() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: len(b.listener.viewers) == 1)
        b.push(interleave(video_frames(), audio_frames()))
        status, headers = await read_head(reader)
        tags = await read_flv(reader, 90)
        assert status == 200
        assert headers["content-type"] == "video/x-flv"
        assert headers["transfer-encoding"] == "chunked"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert {tag.kind for tag in tags} == {8, 9, 18}
        assert b.source.viewers[0].kind == "http_flv"
        assert b.source.viewers[0].grant_id == "key-good"
        writer.close()
        await writer.wait_closed()
        await until(lambda: b.source.held == 0, what="the lease released after the viewer left")
        assert b.listener.viewers.ended == {"viewer_gone": 1}
        assert b.bus.counts["viewer.started"] == b.bus.counts["viewer.ended"] == 1


async def test_http_10_client_gets_no_chunks() -> None:
    async with bench() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(f"GET {PATH}?token={TOKEN} HTTP/1.0\r\n\r\n".encode())
        b.push(video_frames())
        _, headers = await read_head(reader)
        assert "transfer-encoding" not in headers
        assert len(await read_flv(reader, 20, chunked=False)) >= 20
        writer.close()
        await writer.wait_closed()


async def test_ws_flv_by_a_websocket_client_with_ping_and_close() -> None:
    async with bench() as b:
        async with websockets.connect(b.url(scheme="ws"), compression=None, max_queue=None) as client:
            b.push(video_frames())
            data = b""
            while len(data) < 13 or len(list(flv_tags(data))) < 30:
                message = await asyncio.wait_for(client.recv(), 5)
                assert isinstance(message, bytes)
                data += message
            pong = await client.ping(b"still there?")
            await asyncio.wait_for(pong, 5)
            assert b.source.viewers[0].kind == "ws_flv"
        assert client.close_code == 1000
        await until(lambda: b.source.held == 0)


async def test_ws_stream_that_ends_sends_a_close_frame() -> None:
    async with bench() as b:
        async with websockets.connect(b.url(scheme="ws"), compression=None) as client:
            b.push(video_frames(count=10))
            await asyncio.wait_for(client.recv(), 5)
            b.plane.close_stream("live")
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await asyncio.wait_for(client.recv(), 5)
        assert client.close_code == 1001
        await until(lambda: b.listener.viewers.ended == {"stream_closed": 1})


async def test_ws_frames_sent_before_the_answer_are_not_lost() -> None:
    async with bench() as b:
        b.source.ready.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(
            f"GET {PATH}?token={TOKEN} HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            + b"\x89\x81\x00\x00\x00\x00a"
        )
        await until(lambda: b.listener.tasks == 1)
        writer.write(b"\x89\x81\x00\x00\x00\x00b")
        await writer.drain()
        await asyncio.sleep(0.05)  # let it be read before the answer
        b.source.ready.set()
        status, headers = await read_head(reader)
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert await asyncio.wait_for(reader.readexactly(6), 5) == b"\x8a\x01a\x8a\x01b"
        writer.close()
        await writer.wait_closed()


async def test_running_stream_gives_the_kept_group_to_a_second_viewer_at_once() -> None:
    async with bench() as b:
        b.push(video_frames(count=40))
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await read_head(reader)
        frames = [t for t in await read_flv(reader, 15) if t.kind == 9 and not t.is_configuration]
        assert len(frames) == 15
        assert frames[0].is_key
        writer.close()
        await writer.wait_closed()


async def test_i6_without_permission_nothing_is_asked_or_started() -> None:
    async with bench() as b:
        for query, code, status in (
            ("", "gb.route.unauthorised", 401),
            ("?token=bad", "gb.output.bad_token", 401),
        ):
            got, headers, body = await request(b.port, f"GET {PATH}{query} HTTP/1.1\nHost: gw\n\n")
            problem = json.loads(body)
            assert (got, problem["code"]) == (status, code)
            assert headers["content-type"] == "application/problem+json"
            assert headers["www-authenticate"] == "Bearer"
            assert problem["hint"]
            assert problem["stage"] == code.split(".")[1]
        assert b.source.viewers == []
        assert b.bus.counts["viewer.refused"] == 2


async def test_key_in_the_header_works_as_well() -> None:
    async with bench() as b:
        status, _, _ = await request(
            b.port, f"HEAD {PATH} HTTP/1.1\nHost: gw\nAuthorization: Bearer secret\n\n"
        )
        assert status == 200
        assert b.guard.asked == [(PATH, None, "Bearer secret", "127.0.0.1")]


async def test_head_answers_without_starting_the_stream() -> None:
    async with bench() as b:
        status, headers, body = await request(b.port, GET.replace("GET", "HEAD"))
        assert (status, headers["content-type"], body) == (200, "video/x-flv", b"")
        assert b.source.viewers == []


async def test_problem_of_the_source_reaches_the_client() -> None:
    async with bench() as b:
        b.source.error = GatewayError("gb.sip.rejected", "The device answered 486.", sip_status=486)
        status, _, body = await request(b.port, GET)
        problem = json.loads(body)
        assert status == problem["status"] == 502
        assert problem["sip_status"] == 486
        assert problem["code"] == "gb.sip.rejected"
        assert problem["detail"] == "The device answered 486."


async def test_viewer_that_leaves_while_the_stream_starts_gives_its_lease_up() -> None:
    async with bench() as b:
        b.source.ready.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: b.listener.tasks == 1)
        writer.close()
        await writer.wait_closed()
        await until(lambda: b.source.cancelled == 1)
        await until(lambda: b.listener.tasks == 0 and b.listener.connections == 0)


async def test_stream_that_ended_meanwhile_gives_the_lease_back() -> None:
    async with bench() as b:
        b.plane.close_stream("live")
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await reader.read()
        await until(lambda: len(b.source.leases) == 1 and b.source.held == 0)
        writer.close()
        await writer.wait_closed()


async def test_too_many_viewers_of_one_stream() -> None:
    async with bench(viewers_per_stream=1) as b:
        b.push(video_frames(count=5))
        _, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: len(b.listener.viewers) == 1)
        status, _, body = await request(b.port, GET)
        assert (status, json.loads(body)["code"]) == (503, "gb.output.too_many_viewers")
        assert b.source.held == 1
        writer.close()
        await writer.wait_closed()


async def test_f10_stopped_viewer_is_dropped_and_costs_the_others_nothing() -> None:
    async with bench(queue_bytes=300_000, stall_s=0.4) as b:
        frames = video_frames(count=50, width=640, height=480)
        big = [
            type(f)(
                track=f.track,
                pts_90k=f.pts_90k,
                dts_90k=f.dts_90k,
                key=f.key,
                payload=f.payload + b"\0\0\0\1\x0c" + b"\xff" * 60_000,
            )
            for f in frames
        ]
        lazy = socket.create_connection(("127.0.0.1", b.port))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(GET.replace("\n", "\r\n").encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: len(b.listener.viewers) == 2)
        got: list[bytes] = []

        async def drain() -> None:
            while piece := await reader.read(1 << 20):
                got.append(piece)

        task = asyncio.create_task(drain())
        for turn in range(6):
            shifted = [
                type(f)(
                    track=f.track,
                    pts_90k=f.pts_90k + turn * 180_000,
                    dts_90k=f.dts_90k + turn * 180_000,
                    key=f.key,
                    payload=f.payload,
                )
                for f in big
            ]
            await b.feed(shifted, interval_s=0.002)
        await until(lambda: b.listener.viewers.ended["slow"] == 1)
        assert len(b.listener.viewers) == 1
        assert b.plane.stream_counters(["live"])["live"].frames_dropped > 0
        body = b"".join(got)
        tags = list(flv_tags(dechunk(body[body.index(b"\r\n\r\n") + 4 :])))
        times = [t.timestamp_ms for t in tags if t.kind == 9 and not t.is_configuration]
        assert times == sorted(times)
        assert len(times) >= 250, "the viewer that reads lost next to nothing"
        lazy.close()
        writer.close()
        await asyncio.gather(writer.wait_closed(), task, return_exceptions=True)


async def test_revoked_grant_ends_its_viewers() -> None:
    async with bench() as b:
        b.push(video_frames(count=5))
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: len(b.listener.viewers) == 1)
        b.listener.close_grants(lambda grant_id: grant_id == "key-other")
        assert len(b.listener.viewers) == 1
        b.listener.close_grants(lambda grant_id: grant_id == "key-good")
        await asyncio.wait_for(reader.read(), 5)
        assert b.listener.viewers.ended == {"revoked": 1}
        assert b.source.held == 0
        writer.close()
        await writer.wait_closed()


async def test_keep_alive_connection_answers_several_requests() -> None:
    async with bench() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        head = f"HEAD {PATH}?token={TOKEN} HTTP/1.1\r\nHost: gw\r\n\r\n".encode()
        wrong = b"GET /nothing HTTP/1.1\r\nHost: gw\r\n\r\n"
        writer.write(head + wrong + head)
        statuses = []
        for _ in range(3):
            status, headers = await read_head(reader)
            statuses.append(status)
            if status != 200:
                await reader.readexactly(int(headers["content-length"]))
            assert headers["connection"] == "keep-alive"
        assert statuses == [200, 404, 200]
        writer.close()
        await writer.wait_closed()


async def test_cors_of_configured_origins_and_of_the_same_host() -> None:
    async with bench(origins=["https://console.example"]) as b:
        for origin, host, allowed in (
            ("https://console.example", "gw:18081", True),
            ("http://gw:18080", "gw:18081", True),
            ("http://evil.example", "gw:18081", False),
        ):
            preflight = (
                f"OPTIONS {PATH} HTTP/1.1\nHost: {host}\nOrigin: {origin}\n"
                "Access-Control-Request-Method: GET\n\n"
            )
            status, headers, _ = await request(b.port, preflight)
            assert status == 204
            assert (headers.get("access-control-allow-origin") == origin) is allowed
            assert ("access-control-allow-headers" in headers) is allowed
            _, headers, _ = await request(b.port, f"GET {PATH} HTTP/1.1\nHost: {host}\nOrigin: {origin}\n\n")
            assert (headers.get("access-control-allow-origin") == origin) is allowed
            assert headers["vary"] == "Origin"
        assert len(b.guard.asked) == 3, "OPTIONS asks nobody"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("POST /live/x HTTP/1.1\nHost: gw\n\n", 405),
        ("GET / HTTP/1.1\nHost: gw\n\n", 404),
        (f"GET /live/{DEVICE}_{CHANNEL}.mkv?token=good HTTP/1.1\nHost: gw\n\n", 404),
        (f"GET /live/{DEVICE}.flv?token=good HTTP/1.1\nHost: gw\n\n", 404),
        (f"GET {PATH}?token=good&audio=loud HTTP/1.1\nHost: gw\n\n", 422),
        (f"GET {PATH}?token=good&hevc=no HTTP/1.1\nHost: gw\n\n", 422),
        ("nonsense\n\n", 400),
        (f"GET {PATH}?token=good HTTP/1.1\nHost: gw\nContent-Length: 5\n\nhello", 413),
        (f"GET {PATH}?x={'y' * 9000} HTTP/1.1\nHost: gw\n\n", 431),
        (f"GET {PATH}?token=good HTTP/1.1\nHost: gw\nX: {'y' * 9000}\n\n", 431),
        (
            f"GET {PATH}?token=good HTTP/1.1\nHost: gw\nConnection: Upgrade\nUpgrade: websocket\n"
            "Sec-WebSocket-Version: 8\n\n",
            426,
        ),
        (
            f"GET {PATH}?token=good HTTP/1.1\nHost: gw\nConnection: Upgrade\nUpgrade: websocket\n"
            "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: short\n\n",
            400,
        ),
    ],
)
async def test_requests_that_are_refused(text: str, status: int) -> None:
    async with bench() as b:
        got, headers, _ = await request(b.port, text)
        assert got == status
        assert headers["x-content-type-options"] == "nosniff"
        assert b.source.viewers == []


async def test_f08_request_head_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    async with bench() as b:
        status, _, _ = await request(b.port, "GET /live/slow HTTP/1.1\nHost:")
        assert status == 408
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        assert await asyncio.wait_for(reader.read(), 5) == b"", "a silent connection is closed"
        writer.close()
        await writer.wait_closed()


async def test_f13_connection_caps_refuse_and_recover() -> None:
    async with bench(connections_per_host=2) as b:
        held = [await asyncio.open_connection("127.0.0.1", b.port) for _ in range(2)]
        await until(lambda: b.listener.connections == 2)
        status, headers, body = await request(b.port, "GET / HTTP/1.1\nHost: gw\n\n")
        assert (status, json.loads(body)["code"]) == (429, "gb.route.rate_limited")
        assert headers["connection"] == "close"
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await until(lambda: b.listener.connections == 0)
        status, _, _ = await request(b.port, "GET / HTTP/1.1\nHost: gw\n\n")
        assert status == 404


async def test_f13_no_descriptor_left_is_a_refusal_and_not_the_end() -> None:
    async with bench() as b:
        b.listener._descriptor_limit = 3
        status, _, _ = await request(b.port, GET)
        assert status == 429
        b.listener._descriptor_limit = 1 << 20
        status, _, _ = await request(b.port, GET.replace("GET", "HEAD"))
        assert status == 200


async def test_audio_that_cannot_be_made_leaves_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("no PyAV")

    monkeypatch.setattr(transcoding, "_make_encoder", missing)
    async with bench() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(f"GET {PATH}?token={TOKEN}&audio=aac HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
        await until(lambda: len(b.listener.viewers) == 1)
        b.push(interleave(video_frames(), audio_frames()))
        await read_head(reader)
        tags = await read_flv(reader, 45)
        assert {tag.kind for tag in tags} == {9, 18}
        await until(lambda: b.bus.counts["transcoding.failed"] == 1)
        writer.close()
        await writer.wait_closed()


async def test_i8_mistake_of_ours_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:

        def explode(*_: object) -> None:
            raise RuntimeError("a guard's mistake")

        monkeypatch.setattr(b.guard, "check", explode)
        status, _, body = await request(b.port, GET)
        assert (status, json.loads(body)["code"]) == (500, "gb.route.internal")
        monkeypatch.undo()
        status, _, _ = await request(b.port, GET.replace("GET", "HEAD"))
        assert status == 200


async def test_video_that_flv_does_not_carry_is_said_before_the_answer_begins() -> None:
    async with bench() as b:
        svac = [replace(f, track=replace(f.track, codec=Codec.SVAC)) for f in video_frames(count=5)]
        b.push(svac)
        await until(lambda: b.plane.tracks("live"))
        status, _, body = await request(b.port, GET)
        assert (status, json.loads(body)["code"]) == (502, "gb.codec.codec_unsupported")
        assert b.source.held == 0


async def test_port_in_use_is_a_sentence_with_the_key() -> None:
    async with bench() as b:
        other = Bench(ListenerConfig(host="127.0.0.1", port=b.port))
        with pytest.raises(GatewayError) as error:
            await other.listener.start()
        assert error.value.code == "gb.config.port_in_use"
        assert f"media.http: TCP 127.0.0.1:{b.port}" in error.value.detail
        foreign = Bench(ListenerConfig(host="192.0.2.1", port=0))
        with pytest.raises(GatewayError) as error:
            await foreign.listener.start()
        assert error.value.code == "gb.config.address_unavailable"
        for made in (other, foreign):
            await made.listener.close()
            await made.plane.close()


async def test_playback_path_leases_the_stream_by_id() -> None:
    async with bench() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(f"GET /playback/live.flv?token={TOKEN} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
        b.push(video_frames(count=10))
        status, _ = await read_head(reader)
        assert status == 200
        assert await read_flv(reader, 9)
        writer.close()
        await writer.wait_closed()


async def test_closing_ends_viewers_and_waiting_requests() -> None:
    async with bench() as b:
        b.push(video_frames(count=5))
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: len(b.listener.viewers) == 1)
        b.source.ready.clear()
        _, waiting = await asyncio.open_connection("127.0.0.1", b.port)
        waiting.write(GET.replace("\n", "\r\n").encode())
        await until(lambda: b.listener.tasks == 1)
        await b.listener.close()
        body = await asyncio.wait_for(reader.read(), 5)
        assert body.endswith(b"0\r\n\r\n")
        assert b.source.cancelled == 1
        assert b.listener.viewers.ended == {"shutting_down": 1}
        for w in (writer, waiting):
            w.close()
            await asyncio.gather(w.wait_closed(), return_exceptions=True)


async def test_audio_none_and_h265_forms() -> None:
    async with bench() as b:
        b.push(interleave(video_frames(Codec.H265, count=30), audio_frames(count=30)))
        heads = {}
        for query in ("audio=none", "hevc=legacy"):
            reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
            writer.write(f"GET {PATH}?token={TOKEN}&{query} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
            await read_head(reader)
            heads[query] = await read_flv(reader, 5)
            writer.close()
            await writer.wait_closed()
        assert {t.kind for t in heads["audio=none"]} == {9, 18}
        video = next(t for t in heads["audio=none"] if t.kind == 9)
        assert video.body[1:5] == b"hvc1"
        legacy = next(t for t in heads["hevc=legacy"] if t.kind == 9)
        assert legacy.body[0] == 0x1C
