"""The native plane against its oracle: the same input gives the same frames and the same bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import astuple

import pytest

from gb28181gw.media import native
from gb28181gw.media.engine import Container, MediaTransport, ReceiverSpec, SocketSinkSpec
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.support.plane import (
    SSRC,
    Events,
    Plane,
    RtpSource,
    SocketReader,
    audio_frames,
    framed_stream,
    free_port_pair,
    interleave,
    until,
    video_frames,
)

PLANES = ("native",)
pytestmark = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")

FORMS = [
    SocketSinkSpec(container=Container.FLV),
    SocketSinkSpec(container=Container.FLV, chunked=False, audio="none"),
    SocketSinkSpec(container=Container.WS_FLV, hevc="legacy"),
    SocketSinkSpec(container=Container.WS_FLV, audio="aac"),
    SocketSinkSpec(container=Container.FMP4, audio="none"),
    SocketSinkSpec(container=Container.WS_FMP4),
    SocketSinkSpec(container=Container.TS),
    SocketSinkSpec(container=Container.WS_TS, audio="none"),
]


async def through_tcp(
    make: Callable[[], Plane], packets: list[bytes], count: int
) -> tuple[list[Frame], list[bytes]]:
    """Frames, and what viewers of all forms get: those that were there before, and one that comes at the end."""
    plane = make()
    spec = ReceiverSpec(
        transport=MediaTransport.TCP_PASSIVE,
        host="127.0.0.1",
        port=free_port_pair(),
        ssrc=SSRC,
        payloads={96: "PS"},
    )
    receiver = await plane.open_receiver(spec, Events())
    plane.create_stream("s", Events())
    frames: list[Frame] = []
    plane.add_frame_sink("s", frames.extend)
    readers = []

    def view(form: SocketSinkSpec) -> None:
        ours, theirs = socket.socketpair()
        plane.add_socket_sink("s", ours.detach(), form, Events())
        readers.append(SocketReader(theirs))

    for form in FORMS:
        view(form)
    plane.attach(receiver.id, "s")
    _, writer = await asyncio.open_connection("127.0.0.1", spec.port)
    writer.write(framed_stream(packets))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await until(lambda: len(frames) >= count, what=f"{count} frames")
    view(FORMS[0])
    await until(lambda: len(readers[-1].frames) > 0)
    plane.close_stream("s")
    for reader in readers:
        await until(lambda reader=reader: reader.ended)
    await plane.close()
    data = [bytes(reader.data) for reader in readers]
    for reader in readers:
        reader.close()
    return frames, data


@pytest.mark.parametrize("video", [Codec.H264, Codec.H265])
@pytest.mark.parametrize("audio", [Codec.PCMA, None])
@pytest.mark.parametrize("damage", ["none", "lost", "cut"])
async def test_same_frames_and_same_bytes(video: Codec, audio: Codec | None, damage: str) -> None:
    pictures = video_frames(video, count=60)
    frames = interleave(pictures, audio_frames(count=60)) if audio is not None else list(pictures)
    packets = RtpSource(muxer=PsMuxer(video=video, audio=audio)).all(frames)
    if damage == "lost":
        packets = [packet for index, packet in enumerate(packets) if index % 41 != 40]
    elif damage == "cut":
        packets = [
            packet[: len(packet) // 2] if index % 53 == 52 else packet for index, packet in enumerate(packets)
        ]
    wanted, wanted_data = await through_tcp(ReferencePlane, packets, 1)
    found, found_data = await through_tcp(lambda: NativePlane(2), packets, len(wanted))

    def facts(given: list[Frame]) -> list[tuple[object, ...]]:
        return [(astuple(f.track), f.pts_90k, f.dts_90k, f.key, f.payload) for f in given]

    assert len(wanted) > 20
    assert facts(found) == facts(wanted)
    assert found_data == wanted_data
