"""The listener's other containers: paths, kinds, types, sound."""

from __future__ import annotations

import asyncio

import pytest
import websockets

from gb28181gw.media.tracks import Codec
from tests.support import mp4
from tests.support.media import audio_clip, video_clip
from tests.support.outputs import CHANNEL, DEVICE, TOKEN, bench, read_head, request
from tests.support.plane import dechunk, interleave, until

LIVE = f"/live/{DEVICE}_{CHANNEL}"


@pytest.mark.parametrize(
    ("extension", "kind", "content_type"),
    [("mp4", "http_fmp4", "video/mp4"), ("ts", "http_ts", "video/mp2t")],
)
async def test_http(extension: str, kind: str, content_type: str) -> None:
    async with bench() as b:
        head = f"HEAD {LIVE}.{extension}?token={TOKEN} HTTP/1.1\nHost: gw\nConnection: close\n\n"
        status, headers, _ = await request(b.port, head, until_closed=True)
        assert (status, headers["content-type"]) == (200, content_type)
        assert b.source.viewers == []
        b.push(interleave(tuple(audio_clip(Codec.AAC)), tuple(video_clip(Codec.H264))))
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(f"GET {LIVE}.{extension}?token={TOKEN} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
        status, headers = await read_head(reader)
        assert (status, headers["content-type"]) == (200, content_type)
        data = b""
        async with asyncio.timeout(5):
            while len(data) < 25_000:
                data += await reader.read(65536)
        body = dechunk(data)
        if extension == "mp4":
            assert {sample.track_id for sample in mp4.stream_samples(body)} == {1, 2}
        else:
            assert {unit.pid for unit in mp4.pes_units(mp4.ts_packets(body))} == {0x100, 0x101}
        assert b.source.viewers[0].kind == kind
        writer.close()
        await writer.wait_closed()
        await until(lambda: b.source.held == 0)


@pytest.mark.parametrize(("extension", "kind"), [("mp4", "ws_fmp4"), ("ts", "ws_ts")])
async def test_websocket(extension: str, kind: str) -> None:
    async with bench() as b:
        url = f"ws://127.0.0.1:{b.port}{LIVE}.{extension}?token={TOKEN}"
        async with websockets.connect(url, compression=None, max_queue=None) as client:
            b.push(video_clip(Codec.H264))
            messages = []
            while len(messages) < 20:
                message = await asyncio.wait_for(client.recv(), 5)
                assert isinstance(message, bytes)
                messages.append(message)
            assert b.source.viewers[0].kind == kind
        if extension == "mp4":
            assert [kind for kind, _ in mp4.boxes(messages[0])] == ["ftyp", "moov"]
            assert all([kind for kind, _ in mp4.boxes(m)] == ["moof", "mdat"] for m in messages[1:])
        else:
            assert all(len(message) % 188 == 0 for message in messages)
            mp4.check_continuity(mp4.ts_packets(b"".join(messages)))
        await until(lambda: b.source.held == 0)


async def test_sound_of_fmp4_is_made_where_it_has_to_be() -> None:
    async with bench() as b:
        b.push(interleave(tuple(audio_clip(Codec.PCMA)), tuple(video_clip(Codec.H264))))
        async with websockets.connect(
            f"ws://127.0.0.1:{b.port}{LIVE}.mp4?token={TOKEN}", compression=None, max_queue=None
        ) as client:
            first = await asyncio.wait_for(client.recv(), 5)
            assert isinstance(first, bytes)
            assert len(mp4.find(first, "moov/trak")) == 2
            assert b"mp4a" in first
            tracks = set()
            while tracks != {1, 2}:
                message = await asyncio.wait_for(client.recv(), 5)
                assert isinstance(message, bytes)
                tracks |= {sample.track_id for sample in mp4.stream_samples(message)}
        await until(lambda: b.source.held == 0)


@pytest.mark.parametrize("extension", ["mp4", "ts"])
async def test_s15_token_is_asked_for_in_every_form(extension: str) -> None:
    async with bench() as b:
        ask = f"GET {LIVE}.{extension}?token=stolen HTTP/1.1\nHost: gw\n\n"
        status, _, _ = await request(b.port, ask, until_closed=False)
        assert status == 401
        assert b.guard.asked[0][0] == f"{LIVE}.{extension}"
        assert b.source.viewers == []
