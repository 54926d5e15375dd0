"""A stream as RTP for the viewers of the RTSP server: packed once, sent to each over its own transport.

Owner of one frame sink and one packetiser a track. All viewers of a stream and sound share SSRC, sequence numbers and
packets; the packets since the last key frame are kept, so that a new viewer begins with a picture.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.outputs.rtsp_sdp import Medium
from gb28181gw.outputs.sender_reports import ReportClock, Sent

_MAX_KEPT_BYTES = 16 * 1024 * 1024


class Player(Protocol):
    """A viewer that plays."""

    def send(self, medium: Medium, packets: Sequence[bytes], *, key: bool) -> None:
        """RTP packets of one frame; `key`: it can begin here."""
        ...

    def report(self, medium: Medium, data: bytes) -> None:
        """A compound RTCP packet."""
        ...

    def ended(self, reason: str) -> None:
        """The stream is over."""
        ...


@dataclass(slots=True)
class _Sender:
    """One track on its way out."""

    medium: Medium
    packetiser: EsPacketiser
    sent: Sent


class RtspStream:
    """Closes when the owner says so; `players` come and go."""

    def __init__(
        self,
        engine: Engine,
        stream_id: str,
        media: Sequence[Medium],
        *,
        made_audio: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.media = media
        self.users = 0
        """Connections that hold this, playing or about to."""
        self.is_over = False
        self._engine = engine
        self._monotonic = monotonic
        self._players: set[Player] = set()
        self._senders = {medium.track.codec: _sender(medium) for medium in media}
        self._has_video = any(medium.track.kind is TrackKind.VIDEO for medium in media)
        self._clock = ReportClock(monotonic)
        self._kept: list[tuple[Medium, list[bytes], bool]] = []
        self.kept_bytes = 0
        """Of the packets since the last key frame."""
        self._sink = engine.add_frame_sink(
            stream_id,
            self._on_frames,
            made_audio=made_audio,
            on_closed=self._over,
        )

    def play(self, player: Player) -> None:
        """From the kept group on, without a break."""
        for medium, packets, key in self._kept:
            player.send(medium, packets, key=key)
        self._players.add(player)

    def leave(self, player: Player) -> None:
        self._players.discard(player)

    def position(self, medium: Medium) -> tuple[int, int, int]:
        """(SSRC, sequence number, RTP time) of the first packet that a new viewer gets of a medium."""
        sender = self._senders[medium.track.codec]
        for kept, packets, _ in self._kept:
            if kept is medium:
                first = packets[0]
                return (
                    sender.packetiser.ssrc,
                    int.from_bytes(first[2:4], "big"),
                    int.from_bytes(first[4:8], "big"),
                )
        return sender.packetiser.ssrc, sender.packetiser.sequence_number, sender.sent.last_timestamp

    def report(self) -> None:
        """Sender reports to all that play; call every few seconds."""
        for sender in self._senders.values():
            if not sender.sent.packets:
                continue
            data = self._clock.report(sender.sent)
            for player in tuple(self._players):
                player.report(sender.medium, data)

    def close(self) -> None:
        self._engine.close_sink(self._sink)
        self._over("closed")

    def _on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            sender = self._senders.get(frame.track.codec)
            if sender is not None:
                self._send(sender, frame)
            elif frame.track.kind is TrackKind.VIDEO:
                self._over("tracks_changed")  # the description says another codec
                return

    def _send(self, sender: _Sender, frame: Frame) -> None:
        video = frame.track.kind is TrackKind.VIDEO
        packets = sender.packetiser.packetise(with_parameter_sets(frame))
        if not packets:
            return
        size = sender.sent.add(packets, frame.pts_90k, frame.arrival or self._monotonic())
        key = frame.key if video else not self._has_video
        if video and frame.key:
            self._kept, self.kept_bytes = [], 0
        if self._kept or (video and frame.key):
            self._kept.append((sender.medium, packets, key))
            self.kept_bytes += size
            if self.kept_bytes > _MAX_KEPT_BYTES:
                self._kept, self.kept_bytes = [], 0
        for player in tuple(self._players):
            player.send(sender.medium, packets, key=key)

    def _over(self, reason: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._kept = []
        players, self._players = self._players, set()
        for player in players:
            player.ended(reason)


def _sender(medium: Medium) -> _Sender:
    ssrc = secrets.randbits(32)
    packetiser = EsPacketiser(
        medium.track.codec,
        ssrc=ssrc,
        payload_type=medium.payload_type,
        sequence_number=secrets.randbits(15),
    )
    return _Sender(medium, packetiser, Sent(ssrc=ssrc, clock_rate=medium.clock_rate))


def audio_codecs(audio: str) -> tuple[Codec, ...]:
    """What may be heard with ``audio=``."""
    if audio == "none":
        return ()
    if audio == "aac":
        return (Codec.AAC,)
    return (Codec.AAC, Codec.PCMA, Codec.PCMU)
