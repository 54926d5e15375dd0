"""HLS by the media listener: playlists, parts, sessions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.outputs import hls
from tests.support import mp4
from tests.support.media import audio_clip, interleave, video_clip
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench, request
from tests.support.plane import until

PATH = f"/live/{DEVICE}_{CHANNEL}/index.m3u8"
BASE = PATH.removesuffix("index.m3u8")
CLIP = video_clip(Codec.H264, frames=200, gop=50)


def moved(frames: Sequence[Frame], at_90k: int) -> list[Frame]:
    return [replace(f, dts_90k=f.dts_90k + at_90k, pts_90k=f.pts_90k + at_90k) for f in frames]


async def get(b: Bench, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
    return await request(b.port, f"GET {path} HTTP/1.1\nHost: gw\n{lines}Connection: close\n\n")


async def playlist(b: Bench, query: str = "token=good") -> list[str]:
    status, headers, body = await get(b, f"{PATH}?{query}")
    assert (status, headers["content-type"]) == (200, "application/vnd.apple.mpegurl"), body
    return body.decode().splitlines()


def uris(lines: list[str]) -> list[str]:
    """Everything that a playlist names but the hint."""
    found = []
    for line in lines:
        match = re.search(r'URI="([^"]+)"', line)
        if match and "PRELOAD" not in line:
            found.append(match[1])
        elif not line.startswith("#"):
            found.append(line)
    return found


@asynccontextmanager
async def stream(frames: Sequence[Frame] = CLIP[:110]) -> AsyncIterator[Bench]:
    """A stream of which some seconds are there as soon as somebody asks."""
    async with bench() as b:
        b.push(frames[:1])
        await until(lambda: b.plane.tracks("live") != ())
        pushed = asyncio.ensure_future(feed(b, frames[1:]))
        yield b
        await pushed


async def feed(b: Bench, frames: Sequence[Frame]) -> None:
    """When the output takes frames."""
    while b.listener.hls.muxers == 0:
        await asyncio.sleep(0.005)
    b.push(frames)


async def test_playlist_segments_and_parts() -> None:
    async with stream() as b:
        lines = await playlist(b)
        assert b.source.viewers[0].kind == "hls"
        assert b.source.viewers[0].grant_id == "key-good"
        await until(lambda: len(b.listener.viewers) == 1)
        while not any("segment-1" in name for name in uris(lines)):
            lines = await playlist(b)
        names = uris(lines)
        assert [name.partition("?")[0] for name in names if "segment" in name] == [
            "segment-0.m4s",
            "segment-1.m4s",
        ]
        bodies = {}
        for name in names:
            status, headers, bodies[name.partition("?")[0]] = await get(b, BASE + name)
            assert (status, headers["content-type"]) == (200, "video/mp4")
        assert [kind for kind, _ in mp4.boxes(bodies["init-1.mp4"])] == ["ftyp", "moov"]
        found = mp4.stream_samples(bodies["segment-0.m4s"] + bodies["segment-1.m4s"])
        assert [sample.dts for sample in found] == [3600 * n for n in range(100)]
        parts = [body for name, body in bodies.items() if name.startswith("part-0")]
        assert b"".join(parts) == bodies["segment-0.m4s"]
        assert len(b.source.leases) == 1


async def test_names_stay_while_they_are_listed() -> None:
    async with stream() as b:
        first = set(uris(await playlist(b)))
        b.push(moved(CLIP[:60], 110 * 3600))
        assert first <= set(uris(await playlist(b)))


async def test_playlist_waits_for_the_part_that_was_asked_for() -> None:
    async with stream() as b:
        lines = await playlist(b)
        while 'URI="part-2-0.m4s?' not in lines[-1]:
            lines = await playlist(b)
        waiting = asyncio.ensure_future(playlist(b, "token=good&_HLS_msn=2&_HLS_part=0"))
        hint = asyncio.ensure_future(get(b, BASE + re.search(r'URI="([^"]+)"', lines[-1])[1]))  # type: ignore[index]
        whole = asyncio.ensure_future(playlist(b, "token=good&_HLS_msn=2"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not hint.done()
        b.push(CLIP[110:120])
        assert any("part-2-0" in name for name in uris(await waiting))
        status, _, body = await hint
        assert status == 200
        assert mp4.stream_samples(body)[0].is_sync
        assert not whole.done()
        b.push(CLIP[120:160])
        assert any("segment-2" in name for name in uris(await whole))
        status, _, _ = await get(b, f"{PATH}?token=good&_HLS_msn=9")
        assert status == 422


async def test_sound_is_made_of_g711_and_shared() -> None:
    async with bench() as b:
        pcma = audio_clip(Codec.PCMA, packets=120)
        frames = interleave(pcma, CLIP[:120])
        b.push(frames[:4])
        await until(lambda: len(b.plane.tracks("live")) == 2)
        pushed = asyncio.ensure_future(feed(b, frames[4:]))
        lines, others = await asyncio.gather(playlist(b), playlist(b))
        await pushed
        assert b.bus.counts["transcoding.started"] == 1
        assert b.listener.hls.muxers == 1
        name = next(name for name in uris(lines) if name.startswith("init"))
        assert name in uris(others)
        _, _, init = await get(b, BASE + name)
        assert b"mp4a" in init
        silent = asyncio.ensure_future(playlist(b, "token=good&audio=none"))
        await until(lambda: b.listener.hls.muxers == 2)
        b.push(moved(frames, 120 * 3600))
        names = uris(await silent)
        assert all(name.endswith("&audio=none") for name in names)
        _, _, init = await get(b, BASE + names[0])
        assert b"mp4a" not in init


async def test_session_ends_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "IDLE_S", 0.05)
    monkeypatch.setattr(hls, "_SWEEP_S", 0.02)
    async with stream() as b:
        await playlist(b)
        await until(lambda: b.source.held == 0, what="the lease released")
        assert len(b.listener.hls) == b.listener.hls.muxers == 0
        assert b.listener.viewers.ended == {"viewer_gone": 1}
        status, _, _ = await get(b, f"{BASE}segment-0.m4s?token=good")
        assert status == 404
        assert b.plane.gauges["sinks"] == 0


async def test_s15_open_session_outlives_its_token_and_no_other() -> None:
    async with stream() as b:
        status, _, _ = await get(b, f"{PATH}?token=expired-1")
        assert status == 401
        await playlist(b)
        assert await playlist(b, "token=expired-1")
        for path in (f"{PATH}", f"{BASE}segment-0.m4s", f"{PATH}?token=stolen"):
            status, _, _ = await get(b, path)
            assert status == 401
        assert len(b.source.leases) == 1


async def test_key_in_the_header_is_one_session() -> None:
    async with stream() as b:
        for _ in range(2):
            status, _, body = await get(b, PATH, Authorization="Bearer secret")
            assert status == 200
        name = next(name for name in uris(body.decode().splitlines()) if name.startswith("segment"))
        for path, headers in ((name, {}), (name.partition("?")[0], {"Authorization": "Bearer secret"})):
            status, _, _ = await get(b, BASE + path, **headers)
            assert status == 200
        assert len(b.listener.hls) == len(b.source.leases) == 1


async def test_revoked_grant_ends_the_session() -> None:
    async with stream() as b:
        await playlist(b)
        b.listener.close_grants(lambda grant_id: grant_id == "key-good")
        assert len(b.listener.hls) == b.source.held == 0
        assert b.listener.viewers.ended == {"revoked": 1}


async def test_stream_that_ends_tells_its_players() -> None:
    async with stream() as b:
        await playlist(b)
        waiting = asyncio.ensure_future(playlist(b, "token=good&_HLS_msn=2&_HLS_part=3"))
        await asyncio.sleep(0.02)
        b.plane.close_stream("live")
        assert (await waiting)[-1] == "#EXT-X-ENDLIST"
        assert (await playlist(b))[-1] == "#EXT-X-ENDLIST"


async def test_start_that_fails_is_answered_and_tried_again() -> None:
    async with stream() as b:
        b.source.error = GatewayError("gb.route.offline")
        status, _, _ = await get(b, f"{PATH}?token=good")
        assert status == 409
        assert len(b.listener.hls) == 0
        b.source.error = None
        assert await playlist(b)


async def test_player_that_goes_away_while_the_stream_starts() -> None:
    async with stream() as b:
        b.source.ready.clear()
        asked = asyncio.ensure_future(get(b, f"{PATH}?token=good"))
        await until(lambda: len(b.source.viewers) == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        b.source.ready.set()
        assert await playlist(b)
        assert len(b.source.leases) == 1


async def test_video_that_hls_does_not_carry() -> None:
    async with bench() as b:
        svac = Track(kind=TrackKind.VIDEO, codec=Codec.SVAC, width=320, height=240)
        b.push([replace(frame, track=svac) for frame in CLIP[:2]])
        await until(lambda: b.plane.tracks("live") != ())
        status, _, body = await get(b, f"{PATH}?token=good")
        assert (status, b"svac" in body) == (502, True)


async def test_many_requests_on_one_connection() -> None:
    async with stream() as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        ask = f"GET {PATH}?token=good HTTP/1.1\r\nHost: gw\r\n\r\n".encode()
        writer.write(ask)
        statuses = []
        for turn in range(3):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
            statuses.append(int(head.split()[1]))
            await reader.readexactly(int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1]))  # type: ignore[index]
            if turn < 2:
                writer.write(ask)
        assert statuses == [200, 200, 200]
        writer.close()
        await writer.wait_closed()


async def test_f10_player_that_asks_and_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "_SWEEP_S", 0.02)
    big = [replace(f, payload=f.payload + b"\0\0\0\1\x0c" + b"\xff" * 60_000) for f in CLIP[:110]]
    async with bench(stall_s=0.2) as b:
        b.push(big[:1])
        await until(lambda: b.plane.tracks("live") != ())
        pushed = asyncio.ensure_future(feed(b, big[1:]))
        segment = next(uri for uri in uris(await playlist(b)) if uri.startswith("segment"))
        await pushed
        with socket.create_connection(("127.0.0.1", b.port)) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await until(lambda: b.listener.connections == 1)
            for _ in range(500):
                with contextlib.suppress(OSError):
                    lazy.sendall(f"GET {BASE}{segment} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
                await asyncio.sleep(0.01)
                if b.listener.connections == 0:
                    break
            assert b.listener.connections == 0
            monkeypatch.setattr(hls, "IDLE_S", 0.0)
            await until(lambda: b.source.held == 0, what="the session to end")
            assert b.listener.viewers.ended == {"slow": 1}


async def test_f10_player_that_goes_on_after_an_answer_it_did_not_take_is_not_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that seeks: it leaves the connection of what it does not want any more."""
    monkeypatch.setattr(hls, "_SWEEP_S", 0.02)
    async with stream() as b:
        await playlist(b)
        (session,) = b.listener.hls._sessions.values()
        session.is_stuck = True
        await playlist(b)
        monkeypatch.setattr(hls, "IDLE_S", 0.0)
        await until(lambda: b.source.held == 0, what="the session to end")
        assert b.listener.viewers.ended == {"viewer_gone": 1}
