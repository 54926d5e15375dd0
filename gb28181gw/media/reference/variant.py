"""One form of a stream, made once and shared by all consumers that want it.

The form is the container with its framing (HTTP chunks, WebSocket messages, plain), the way H.265 is
carried, and which audio goes with it. A variant lives as long as it has sinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gb28181gw.media.engine import Container, SocketSinkSpec
from gb28181gw.media.reference import websocket
from gb28181gw.media.reference.gop import Role
from gb28181gw.media.reference.socket_sink import SocketSink
from gb28181gw.media.tracks import Codec, Frame, Track
from gb28181gw.media.wire.flv import FlvMuxer


class Framing(Enum):
    """What stands around the container's bytes."""

    CHUNKED = "chunked"
    PLAIN = "plain"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class VariantKey:
    """Consumers with equal keys get the same bytes."""

    framing: Framing
    hevc: str
    audio: str

    @property
    def terminator(self) -> bytes:
        """What ends the stream in good order."""
        if self.framing is Framing.CHUNKED:
            return b"0\r\n\r\n"
        if self.framing is Framing.WEBSOCKET:
            return websocket.close_frame(websocket.GOING_AWAY)
        return b""


def variant_key(spec: SocketSinkSpec) -> VariantKey:
    if spec.container is Container.WS_FLV:
        framing = Framing.WEBSOCKET
    else:
        framing = Framing.CHUNKED if spec.chunked else Framing.PLAIN
    return VariantKey(framing, spec.hevc, spec.audio)


class Variant:
    """Owner of one muxer and of the framed bytes of the kept group of pictures.

    Its times count from `base_90k`, so that they start near 0 and do not reach the sign bit of FLV's 32 bits
    before one consumer has watched for 24 days.
    """

    def __init__(self, key: VariantKey, base_90k: int) -> None:
        self._framing = key.framing
        self._audio = key.audio
        self._base_90k = base_90k
        self._muxer = FlvMuxer(hevc=key.hevc, base_90k=base_90k)
        self.sinks: set[SocketSink] = set()
        self.group: list[bytes] = []
        """Framed bytes since the last key frame."""
        self._group_at: int | None = None

    def head(self, tracks: Mapping[Role, Track]) -> bytes:
        """What a new consumer gets first: file header, metadata, codec configurations."""
        return self._frame(self._muxer.header(self._select(tracks), pts_90k=self._group_at))

    def configuration(self, tracks: Mapping[Role, Track], at_90k: int) -> bytes:
        """The codec configurations alone, for a consumer that skipped over the place where they changed."""
        time_ms = max(0, at_90k - self._base_90k) // 90
        data = b"".join(self._muxer.sequence_header(track, time_ms) for track in self._select(tracks))
        return self._frame(data) if data else b""

    def add(self, role: Role, frame: Frame, *, kept: bool) -> bytes:
        """The framed bytes of a frame, empty when it has no place here. `kept`: it is in the group."""
        if role is Role.VIDEO:
            if frame.key:
                self.group = []
                self._group_at = frame.dts_90k
        elif not self._wants(role, frame.track):
            return b""
        data = self._muxer.tag(frame)
        if not data:
            return b""
        data = self._frame(data)
        if kept:
            self.group.append(data)
        elif self.group:
            self.clear()
        return data

    def clear(self) -> None:
        """Forget the group of pictures."""
        self.group = []
        self._group_at = None

    def _wants(self, role: Role, track: Track) -> bool:
        if self._audio == "none":
            return False
        if self._audio == "aac":
            return track.codec is Codec.AAC
        return role is Role.AUDIO

    def _select(self, tracks: Mapping[Role, Track]) -> tuple[Track, ...]:
        return tuple(
            track for role, track in tracks.items() if role is Role.VIDEO or self._wants(role, track)
        )

    def _frame(self, data: bytes) -> bytes:
        if self._framing is Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._framing is Framing.WEBSOCKET:
            return websocket.frame_head(websocket.BINARY, len(data)) + data
        return data
