"""A stream as RTP for WebRTC viewers: packed once, encrypted for each by its own transport.

Owner of one frame sink, of a packetiser for each kind of media that viewers take, and of the transcoders behind them:
Opus for viewers that cannot have the stream's own sound, H.264 where the form asks for it. Packets since the last key
frame are kept for new viewers, and the last ones for retransmission (RFC 4585 6.2.1); payload types are the viewer's.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.outputs.sender_reports import ReportClock, Sent
from gb28181gw.outputs.transcode_protocol import Made
from gb28181gw.outputs.webrtc_sdp import OPUS
from gb28181gw.outputs.worker_transcoder import WorkerTranscoder

MAX_PAYLOAD = 1200
"""What SRTP, UDP and tunnels add still fits."""
SOUNDS = (Codec.PCMA, Codec.PCMU)
"""Passed through."""
TRANSCODED = (Codec.AAC, *SOUNDS)
"""Made into Opus."""
_MAX_KEPT_BYTES = 16 * 1024 * 1024
_HISTORY = 1024
"""Packets of one kind that can be sent again."""
_HEADER = struct.Struct("!BBHII")
_CLOCKS = {OPUS: 48_000, Codec.PCMA.value: 8000, Codec.PCMU.value: 8000}
_MADE_VIDEO = Track(kind=TrackKind.VIDEO, codec=Codec.H264)


class Player(Protocol):
    """A viewer whose transport is connected."""

    def takes(self, name: str) -> bool:
        """Was this codec (a `Codec` value, or ``opus``) agreed with it?"""
        ...

    def send(self, name: str, packets: Sequence[bytes], *, key: bool) -> None:
        """RTP packets of one frame without the viewer's payload type; `key`: it can begin here."""
        ...

    def report(self, data: bytes) -> None:
        """A compound RTCP packet."""
        ...

    def ended(self, reason: str) -> None:
        """The stream is over."""
        ...


@dataclass(slots=True)
class _Sender:
    """One codec on its way out."""

    name: str
    sent: Sent
    packetiser: EsPacketiser | None
    """None: Opus, of which a packet is a payload (RFC 7587 4.2)."""
    sequence_number: int = 0
    history: OrderedDict[int, bytes] = field(default_factory=OrderedDict)


class WebRtcStream:
    """Closes when the owner says so; players come and go."""

    def __init__(
        self,
        engine: Engine,
        stream_id: str,
        *,
        made_video: bool,
        on_transcoding: Callable[[Made, str, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_transcoding(made, what, detail)`: `what` is started, failed (detail: a sentence) or ended (a reason)."""
        self.stream_id = stream_id
        self.users = 0
        """Sessions that hold this, playing or about to."""
        self.is_over = False
        self.key_frame_asked = -1e9
        """Monotonic seconds; for the owner."""
        self._engine = engine
        self._made_video = made_video
        self._on_transcoding = on_transcoding
        self._monotonic = monotonic
        self._clock = ReportClock(monotonic)
        self._players: set[Player] = set()
        self._senders: dict[str, _Sender] = {}
        self._by_ssrc: dict[int, _Sender] = {}
        self._transcoders: dict[Made, WorkerTranscoder] = {}
        self._failed: set[Made] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._kept: list[tuple[str, list[bytes], bool]] = []
        self.kept_bytes = 0
        """Of the packets since the last key frame."""
        self._video = Codec.H264 if made_video else None
        self._sink = engine.add_frame_sink(stream_id, self._on_frames, on_closed=self._over)

    def ssrc(self, name: str) -> int:
        """Of a codec, before its first packet."""
        return self._sender(name).sent.ssrc

    def play(self, player: Player) -> None:
        """From the kept group on, without a break."""
        for name, packets, key in self._kept:
            player.send(name, packets, key=key)
        self._players.add(player)

    def leave(self, player: Player) -> None:
        self._players.discard(player)
        if not any(p.takes(OPUS) for p in self._players):
            self._end_transcoder(Made.OPUS, "viewer_gone")

    def again(self, ssrc: int, sequence_number: int) -> tuple[str, bytes] | None:
        """(codec name, packet) that a viewer has missed, if it is still here."""
        sender = self._by_ssrc.get(ssrc)
        packet = sender.history.get(sequence_number) if sender is not None else None
        return (sender.name, packet) if sender is not None and packet is not None else None

    def report(self) -> None:
        """Sender reports to all that play; call every few seconds. They keep picture and sound together."""
        for sender in self._senders.values():
            if not sender.sent.packets:
                continue
            data = self._clock.report(sender.sent)
            for player in tuple(self._players):
                if player.takes(sender.name):
                    player.report(data)

    async def close(self) -> None:
        """End the sink and the transcoders. Idempotent."""
        self._engine.close_sink(self._sink)
        self._over("closed")
        while self._closing:
            await asyncio.gather(*self._closing)

    # frames

    def _on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            if self.is_over:
                return
            if frame.track.kind is TrackKind.VIDEO:
                self._take_video(frame)
            elif frame.payload:
                self._take_audio(frame)

    def _take_video(self, frame: Frame) -> None:
        codec = frame.track.codec
        if self._made_video and codec is Codec.H265:
            if frame.key:
                frame = with_parameter_sets(frame)
            transcoder = self._transcoder(Made.H264)
            if transcoder is not None:
                transcoder.feed(frame)
            return
        if self._video is None:
            self._video = codec
        if codec is not self._video:
            self._over("tracks_changed")  # the answer says another codec
            return
        self._send(codec.value, with_parameter_sets(frame) if frame.key else frame)

    def _take_audio(self, frame: Frame) -> None:
        codec = frame.track.codec
        if codec in SOUNDS:
            self._send(codec.value, frame)
        if codec not in TRANSCODED:
            return
        if any(p.takes(OPUS) and not p.takes(codec.value) for p in self._players):
            transcoder = self._transcoder(Made.OPUS)
            if transcoder is not None:
                transcoder.feed(frame)

    def _send(self, name: str, frame: Frame) -> None:
        sender = self._sender(name)
        assert sender.packetiser is not None  # noqa: S101 - only Opus has none
        self._out(sender, sender.packetiser.packetise(frame), frame.pts_90k, frame.key, frame.arrival)

    def _send_made(self, made: Made, pts_90k: int, key: bool, payload: bytes) -> None:
        """What a transcoder gave."""
        if self.is_over:
            return
        if made is Made.H264:
            frame = Frame(track=_MADE_VIDEO, pts_90k=pts_90k, dts_90k=pts_90k, key=key, payload=payload)
            self._send(Codec.H264.value, frame)
            return
        sender = self._sender(OPUS)
        timestamp = pts_90k * 48_000 // 90_000 & 0xFFFFFFFF
        head = _HEADER.pack(0x80, 0, sender.sequence_number, timestamp, sender.sent.ssrc)
        sender.sequence_number = (sender.sequence_number + 1) & 0xFFFF
        self._out(sender, [head + payload], pts_90k, True, 0.0)

    def _out(self, sender: _Sender, packets: list[bytes], pts_90k: int, key: bool, arrival: float) -> None:
        if not packets:
            return
        size = sender.sent.add(packets, pts_90k, arrival or self._monotonic())
        for packet in packets:
            sender.history[int.from_bytes(packet[2:4], "big")] = packet
        while len(sender.history) > _HISTORY:
            sender.history.popitem(last=False)
        video = sender.name not in _CLOCKS
        key = key if video else self._video is None
        if video and key:
            self._kept, self.kept_bytes = [], 0
        if self._kept or (video and key):
            self._kept.append((sender.name, packets, key))
            self.kept_bytes += size
            if self.kept_bytes > _MAX_KEPT_BYTES:
                self._kept, self.kept_bytes = [], 0
        for player in tuple(self._players):
            player.send(sender.name, packets, key=key)

    def _sender(self, name: str) -> _Sender:
        sender = self._senders.get(name)
        if sender is None:
            ssrc, first = secrets.randbits(32), secrets.randbits(15)
            packetiser = None
            if name != OPUS:
                packetiser = EsPacketiser(
                    Codec(name), ssrc=ssrc, payload_type=0, sequence_number=first, max_payload=MAX_PAYLOAD
                )
            sent = Sent(ssrc=ssrc, clock_rate=_CLOCKS.get(name, 90_000))
            sender = _Sender(name, sent, packetiser, sequence_number=first)
            self._senders[name] = self._by_ssrc[ssrc] = sender
        return sender

    # transcoders

    def _transcoder(self, made: Made) -> WorkerTranscoder | None:
        found = self._transcoders.get(made)
        if found is None and made not in self._failed:
            found = self._transcoders[made] = WorkerTranscoder(
                made,
                lambda pts, key, payload: self._send_made(made, pts, key, payload),
                lambda sentence: self._transcoder_failed(made, sentence),
            )
            self._on_transcoding(made, "started", "")
        return found

    def _transcoder_failed(self, made: Made, sentence: str) -> None:
        """The sound goes missing; a picture that does is the end."""
        self._failed.add(made)
        self._on_transcoding(made, "failed", sentence)
        self._end_transcoder(made, "failed")
        if made is Made.H264:
            self._over("transcoding_failed")

    def _end_transcoder(self, made: Made, reason: str) -> None:
        transcoder = self._transcoders.pop(made, None)
        if transcoder is not None:
            self._on_transcoding(made, "ended", reason)
            task = asyncio.get_running_loop().create_task(transcoder.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _over(self, reason: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._kept = []
        players, self._players = self._players, set()
        for player in players:
            player.ended(reason)
        for made in tuple(self._transcoders):
            self._end_transcoder(made, "viewer_gone" if reason == "closed" else reason)
