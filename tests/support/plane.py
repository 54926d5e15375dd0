"""Media for tests of the plane: encoded frames, senders of RTP, readers of FLV, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import av
import pytest

from gb28181gw.media.engine import EngineEvent, EventKind
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference import receiver_tcp, rtp_links
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.ps_mux import PsMuxer
from gb28181gw.media.wire.rfc4571 import frame as framed
from gb28181gw.media.wire.rtp import RtpPacketiser

SSRC = 200000001
Plane = ReferencePlane | NativePlane
selected = "python"
"""The plane of the running test; the tests of tests/loop choose it."""

_ENCODERS = {Codec.H264: "libx264", Codec.H265: "libx265"}
_OPTIONS = {
    Codec.H264: {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "scenecut=0"},
    Codec.H265: {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "scenecut=0:log-level=none"},
}


def make_plane(*, freeze_on_loss: bool = False) -> Plane:
    """The selected plane, with two threads where it has any."""
    if selected == "native":
        return NativePlane(2, freeze_on_loss=freeze_on_loss)
    return ReferencePlane(freeze_on_loss=freeze_on_loss)


def shorten_dialling(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries of a dialling 20 ms apart."""
    if isinstance(plane, NativePlane):
        plane._engine.set_dial_pause(0.02)
    else:
        monkeypatch.setattr(receiver_tcp, "DIAL_PAUSE_S", 0.02)
        monkeypatch.setattr(rtp_links, "DIAL_PAUSE_S", 0.02)


@lru_cache(maxsize=8)
def video_frames(
    codec: Codec = Codec.H264, count: int = 50, gop: int = 25, width: int = 320, height: int = 240
) -> tuple[Frame, ...]:
    """Encoded pictures at 25 a second, the parameter sets in each key frame."""
    context = av.CodecContext.create(_ENCODERS[codec], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.gop_size = gop
    context.options = _OPTIONS[codec]
    track = Track(kind=TrackKind.VIDEO, codec=codec, width=width, height=height, fps=25.0)
    frames = []
    for index in range(count):
        picture = av.VideoFrame(width, height, "yuv420p")
        luma = bytearray(b"\x40" * (picture.planes[0].line_size * height))
        for row in range(height // 4):
            start = (row + index) % height * picture.planes[0].line_size + index * 3 % (width - 64)
            luma[start : start + 64] = b"\xd0" * 64
        picture.planes[0].update(bytes(luma))
        for plane in (1, 2):
            picture.planes[plane].update(b"\x80" * picture.planes[plane].buffer_size)
        picture.pts, picture.time_base = index, Fraction(1, 25)
        for packet in context.encode(picture):
            at = packet.pts * 3600
            # Four-byte start codes throughout, as the demuxer gives them.
            payload = nal.join_annexb(list(nal.split_annexb(bytes(packet))))
            frames.append(Frame(track=track, pts_90k=at, dts_90k=at, key=packet.is_keyframe, payload=payload))
    return tuple(frames)


@lru_cache(maxsize=4)
def audio_frames(codec: Codec = Codec.PCMA, count: int = 50) -> tuple[Frame, ...]:
    """40 ms of tone a packet."""
    context = av.CodecContext.create("pcm_alaw" if codec is Codec.PCMA else "pcm_mulaw", "w")
    context.sample_rate, context.layout, context.format = 8000, "mono", "s16"
    track = Track(kind=TrackKind.AUDIO, codec=codec, sample_rate=8000, channels=1)
    frames = []
    for index in range(count):
        sound = av.AudioFrame("s16", "mono", 320)
        sound.sample_rate, sound.pts = 8000, index * 320
        samples = (int(9000 * math.sin((index * 320 + i) * 0.35)) for i in range(320))
        sound.planes[0].update(struct.pack("<320h", *samples).ljust(sound.planes[0].buffer_size, b"\0"))
        for packet in context.encode(sound):
            at = index * 3600
            frames.append(Frame(track=track, pts_90k=at, dts_90k=at, key=True, payload=bytes(packet)[:320]))
    return tuple(frames)


def interleave(*lists: tuple[Frame, ...]) -> list[Frame]:
    return sorted((frame for frames in lists for frame in frames), key=lambda frame: frame.dts_90k)


@dataclass
class RtpSource:
    """Turns frames into RTP packets of PS, as a device does."""

    ssrc: int = SSRC
    payload_type: int = 96
    sequence: int = 1
    muxer: PsMuxer = field(default_factory=PsMuxer)
    start_90k: int = 0

    def __post_init__(self) -> None:
        self.rtp = RtpPacketiser(
            ssrc=self.ssrc, payload_type=self.payload_type, sequence_number=self.sequence
        )

    def packets(self, frame: Frame) -> list[bytes]:
        at = self.start_90k + frame.pts_90k
        moved = Frame(track=frame.track, pts_90k=at, dts_90k=at, key=frame.key, payload=frame.payload)
        return self.rtp.packetise(self.muxer.mux(moved), at)

    def all(self, frames: list[Frame] | tuple[Frame, ...]) -> list[bytes]:
        return [packet for frame in frames for packet in self.packets(frame)]


def framed_stream(packets: list[bytes]) -> bytes:
    """Packets as RFC 4571 writes them."""
    return b"".join(framed(packet) for packet in packets)


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def free_port_pair() -> int:
    """An even port of which the pair and the TCP port are free now."""
    for _ in range(200):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1] & ~1
        try:
            for kind, number in (
                (socket.SOCK_DGRAM, port),
                (socket.SOCK_DGRAM, port + 1),
                (socket.SOCK_STREAM, port),
            ):
                with closing(socket.socket(socket.AF_INET, kind)) as test:
                    test.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise RuntimeError("no free pair of ports")


async def send_udp(sock: socket.socket, packets: list[bytes], port: int, *, pause_every: int = 20) -> None:
    """Send to a receiver on this host, letting it run in between."""
    for index, packet in enumerate(packets):
        sock.sendto(packet, ("127.0.0.1", port))
        if index % pause_every == pause_every - 1:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)


async def until(condition: Callable[[], object], timeout_s: float = 5.0, what: str = "the condition") -> None:
    """Wait for a condition; fails with `what` when it does not come true."""
    deadline = time.monotonic() + timeout_s * float(os.environ.get("GB_TEST_TIME_SCALE", "1"))
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s} s"
        await asyncio.sleep(0.005)


class Events:
    """Collects engine events."""

    def __init__(self) -> None:
        self.all: list[EngineEvent] = []

    def __call__(self, event: EngineEvent) -> None:
        self.all.append(event)

    def of(self, kind: EventKind) -> list[EngineEvent]:
        return [event for event in self.all if event.kind is kind]

    async def wait(self, kind: EventKind, count: int = 1, timeout_s: float = 5.0) -> EngineEvent:
        await until(lambda: len(self.of(kind)) >= count, timeout_s, f"event {kind.value}")
        return self.of(kind)[count - 1]


@dataclass(frozen=True)
class FlvTag:
    """One tag: 8 audio, 9 video, 18 script."""

    kind: int
    timestamp_ms: int
    body: bytes

    @property
    def is_key(self) -> bool:
        return self.kind == 9 and self.body[0] >> 4 & 7 == 1

    @property
    def is_configuration(self) -> bool:
        if self.kind == 8:
            return self.body[:2] == b"\xaf\x00"
        if self.kind == 9 and self.body[0] & 0x80:
            return self.body[0] & 0x0F == 0
        return self.kind == 9 and self.body[1] == 0


def flv_tags(data: bytes) -> Iterator[FlvTag]:
    """Whole tags of an FLV file; checks the back pointers."""
    assert data[:4] == b"FLV\x01"
    position = 13
    while position + 11 <= len(data):
        kind = data[position]
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time_ms = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        end = position + 11 + size
        if end + 4 > len(data):
            return
        assert int.from_bytes(data[end : end + 4], "big") == 11 + size
        yield FlvTag(kind, time_ms, data[position + 11 : end])
        position = end + 4


def dechunk(data: bytes) -> bytes:
    """The whole chunks of a chunked body."""
    out = bytearray()
    position = 0
    while (line := data.find(b"\r\n", position)) >= 0:
        size = int(data[position:line], 16)
        if not size or line + 2 + size + 2 > len(data):
            break
        out += data[line + 2 : line + 2 + size]
        position = line + 2 + size + 2
    return bytes(out)


class SocketReader:
    """Reads everything that a sink writes into one end of a socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = bytearray()
        self.ended = False
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.data += data
        if not data:
            self.ended = True
            asyncio.get_running_loop().remove_reader(self.sock)

    @property
    def tags(self) -> list[FlvTag]:
        """Of a chunked FLV answer."""
        body = dechunk(bytes(self.data))
        return list(flv_tags(body)) if len(body) >= 13 else []

    @property
    def frames(self) -> list[FlvTag]:
        """Tags that carry pictures or sound."""
        return [tag for tag in self.tags if tag.kind != 18 and not tag.is_configuration]

    def close(self) -> None:
        if not self.ended:
            asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()
