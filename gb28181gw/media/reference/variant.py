"""One form of a stream, made once and shared by all consumers that want it.

The form is the container with its framing (HTTP chunks, WebSocket messages, plain), the way H.265 is
carried, and which audio goes with it. A variant lives as long as it has sinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from gb28181gw.media.engine import Container, SocketSinkSpec
from gb28181gw.media.reference import websocket
from gb28181gw.media.reference.gop import Role
from gb28181gw.media.reference.socket_sink import SocketSink
from gb28181gw.media.tracks import Codec, Frame, Track
from gb28181gw.media.wire.flv import FlvMuxer
from gb28181gw.media.wire.fmp4 import Fmp4Muxer
from gb28181gw.media.wire.ts_mux import TsMuxer


class Framing(Enum):
    """What stands around the container's bytes."""

    CHUNKED = "chunked"
    PLAIN = "plain"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class VariantKey:
    """Consumers with equal keys get the same bytes, as long as they may share a muxer (`Variant.fits`)."""

    container: Container
    """Over HTTP; the framing tells the rest."""
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

    def waits_for(self, tracks: Mapping[Role, Track]) -> bool:
        """Sound is being made for these consumers and cannot be announced later, or not to all players."""
        source = tracks.get(Role.AUDIO)
        return (
            self.container is not Container.FLV
            and self.audio == "aac"
            and source is not None
            and source.codec in (Codec.PCMA, Codec.PCMU)
            and Role.MADE_AUDIO not in tracks
        )


def variant_key(spec: SocketSinkSpec) -> VariantKey:
    over_http = Framing.CHUNKED if spec.chunked else Framing.PLAIN
    framing = Framing.WEBSOCKET if spec.container.is_websocket else over_http
    container = spec.container.over_http
    return VariantKey(container, framing, spec.hevc if container is Container.FLV else "", spec.audio)


class _Muxer(Protocol):
    """What a container needs to be a form of a stream (`media.wire`)."""

    @property
    def stale(self) -> bool:
        """Its consumers cannot go on: what comes now cannot be said to them."""
        ...

    def fits(self, tracks: Sequence[Track], /) -> bool:
        """A new consumer may join those that are there."""
        ...

    def header(self, tracks: Sequence[Track], at_90k: int | None, /) -> bytes: ...

    def configuration(self, tracks: Sequence[Track], at_90k: int, /) -> bytes: ...

    def mux(self, frame: Frame) -> bytes: ...


def _make_muxer(key: VariantKey, tracks: Sequence[Track], base_90k: int) -> _Muxer:
    if key.container is Container.FMP4:
        return Fmp4Muxer(tracks, base_90k=base_90k)
    if key.container is Container.TS:
        return TsMuxer(tracks, base_90k=base_90k)
    return FlvMuxer(hevc=key.hevc, base_90k=base_90k)


class Variant:
    """Owner of one muxer and of the framed bytes of the kept group of pictures.

    Its times count from `base_90k`, so that they start near 0 and do not reach the sign bit of FLV's 32 bits
    before one consumer has watched for 24 days.
    """

    def __init__(self, key: VariantKey, tracks: Mapping[Role, Track], base_90k: int) -> None:
        self.key = key
        self._muxer = _make_muxer(key, self._select(tracks), base_90k)
        self.sinks: set[SocketSink] = set()
        self.group: list[bytes] = []
        """Framed bytes since the last key frame."""
        self._group_at: int | None = None

    @property
    def stale(self) -> bool:
        """What comes now cannot be said to its consumers: they have to begin anew."""
        return self._muxer.stale

    def fits(self, key: VariantKey, tracks: Mapping[Role, Track]) -> bool:
        """A consumer with this key may join."""
        return key == self.key and self._muxer.fits(self._select(tracks))

    def head(self, tracks: Mapping[Role, Track]) -> bytes:
        """What a new consumer gets first: file header, metadata, codec configurations."""
        return self._frame(self._muxer.header(self._select(tracks), self._group_at))

    def configuration(self, tracks: Mapping[Role, Track], at_90k: int) -> bytes:
        """What a consumer has to know that skipped over a place: configurations that may have changed there."""
        return self._frame(self._muxer.configuration(self._select(tracks), at_90k))

    def add(self, role: Role, frame: Frame, *, kept: bool) -> bytes:
        """The framed bytes of a frame, empty when it has no place here. `kept`: it is in the group."""
        if role is Role.VIDEO:
            if frame.key:
                self.group = []
                self._group_at = frame.dts_90k
        elif not self._wants(role, frame.track):
            return b""
        data = self._frame(self._muxer.mux(frame))
        if not data:
            return b""
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
        if self.key.audio == "none":
            return False
        if self.key.audio == "aac":
            return track.codec is Codec.AAC
        return role is Role.AUDIO

    def _select(self, tracks: Mapping[Role, Track]) -> Sequence[Track]:
        return tuple(
            track for role, track in tracks.items() if role is Role.VIDEO or self._wants(role, track)
        )

    def _frame(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self.key.framing is Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self.key.framing is Framing.WEBSOCKET:
            return websocket.frame_head(websocket.BINARY, len(data)) + data
        return data
