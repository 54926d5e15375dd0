"""A media plane with one stream and the receiver that feeds it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gb28181gw.media.engine import (
    Container,
    MediaTransport,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    SocketSinkSpec,
)
from gb28181gw.media.tracks import Frame, TrackKind
from tests.support.plane import SSRC, Events, Plane, SocketReader, free_port_pair, make_plane

LOCAL = frozenset({"127.0.0.1"})


class Rig:
    """A plane with a stream `s` and a receiver that feeds it."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.events = Events()
        self.stream_events = Events()
        self.frames: list[Frame] = []
        self.readers: list[SocketReader] = []
        self.port = 0
        self.receiver = Receiver(id=0, host="", port=0)

    async def open(
        self,
        transport: MediaTransport = MediaTransport.UDP,
        *,
        expected: frozenset[str] = LOCAL,
        mode: str = "nat",
        silence_s: float = 10.0,
        payloads: dict[int, str] | None = None,
        frames: bool = True,
    ) -> None:
        """`frames` False leaves the frame sink out: nobody needs the stream demuxed."""
        self.port = free_port_pair()
        spec = ReceiverSpec(
            transport=transport,
            host="127.0.0.1",
            port=self.port if transport is not MediaTransport.TCP_ACTIVE else 0,
            ssrc=SSRC,
            payloads=payloads or {96: "PS"},
            expected_hosts=expected,
            source_mode=mode,
            silence_s=silence_s,
        )
        self.receiver = await self.plane.open_receiver(spec, self.events)
        self.plane.create_stream("s", self.stream_events)
        self.plane.attach(self.receiver.id, "s")
        if frames:
            self.plane.add_frame_sink("s", self.frames.extend)

    def viewer(self, **changes: object) -> SocketReader:
        ours, theirs = socket.socketpair()
        self.events_of_viewer = Events()
        spec = SocketSinkSpec(container=Container.FLV, **changes)  # type: ignore[arg-type]
        self.plane.add_socket_sink("s", ours.detach(), spec, self.events_of_viewer)
        reader = SocketReader(theirs)
        self.readers.append(reader)
        return reader

    @property
    def counters(self) -> ReceiverCounters:
        return self.plane.receiver_counters([self.receiver.id])[self.receiver.id]

    @property
    def pictures(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.track.kind is TrackKind.VIDEO]


@asynccontextmanager
async def opened_rig(*, freeze_on_loss: bool = False) -> AsyncIterator[Rig]:
    """At the end everything is closed, and nothing went wrong unnoticed."""
    rig = Rig(make_plane(freeze_on_loss=freeze_on_loss))
    yield rig
    for reader in rig.readers:
        reader.close()
    await rig.plane.close()
    assert rig.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
    assert rig.plane.failures == 0
