"""Writes frames into an MP4 file with PyAV: pictures as they came, sound as AAC. Runs in a worker thread.

Nothing is decoded but G.711, which MP4 players do not know. The file is whole only after `close`, which also moves its
index to the front; what is written before stands beside it under another name.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av

from gb28181gw.downloads.models import FileError
from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.media.wire.aac import build_adts
from gb28181gw.outputs.aac_encoder import AacEncoder

if TYPE_CHECKING:
    from av import Packet
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_TICK: Final = Fraction(1, 90_000)
_CLOCK: Final = 90_000
AUDIO_WAIT_90K: Final = 2 * _CLOCK
"""How much video may come before the first sound that still is in the file."""
_FORMATS = {Codec.H264: "h264", Codec.H265: "hevc"}
_G711 = (Codec.PCMA, Codec.PCMU)


class Mp4Writer:
    """One file. Not thread-safe: one call at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        """Pictures written."""
        self.end_90k = 0
        self.notes: list[str] = []
        self._container: OutputContainer | None = None
        self._video: VideoStream | None = None
        self._audio: AudioStream | None = None
        self._encoder: AacEncoder | None = None
        self._waiting: list[tuple[Frame, int]] = []
        self._duration = 3600

    def write(self, frames: list[tuple[Frame, int]]) -> None:
        """Frames with what is to be added to their times. Raises FileError."""
        try:
            if self._container is None:
                self._waiting += frames
                if not self._ready():
                    return
                frames, self._waiting = self._waiting, []
                self._open(frames)
            for frame, offset in frames:
                self._put(frame, offset)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise FileError(f"{self.path.name} cannot be written: {error}.") from error

    def close(self) -> None:
        """Finish the file; without a picture there is none. Raises FileError."""
        try:
            if self._container is None and any(f.track.kind is TrackKind.VIDEO for f, _ in self._waiting):
                frames, self._waiting = self._waiting, []
                self._open(frames)
                for frame, offset in frames:
                    self._put(frame, offset)
            container, self._container = self._container, None
            if container is not None:
                container.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise FileError(f"{self.path.name} cannot be finished: {error}.") from error

    def _ready(self) -> bool:
        """Which tracks there are is known: sound has come, or so much video that none will."""
        times = [frame.dts_90k for frame, _ in self._waiting if frame.track.kind is TrackKind.VIDEO]
        heard = any(frame.track.kind is TrackKind.AUDIO for frame, _ in self._waiting)
        return bool(times) and (heard or times[-1] - times[0] > AUDIO_WAIT_90K)

    def _open(self, frames: list[tuple[Frame, int]]) -> None:
        first = next(frame for frame, _ in frames if frame.track.kind is TrackKind.VIDEO)
        name = _FORMATS.get(first.track.codec)
        if name is None:
            raise FileError(f"MP4 has no {first.track.codec} video.")
        container = av.open(str(self.path), "w", format="mp4", options={"movflags": "+faststart"})
        self._container = container
        with av.open(io.BytesIO(first.payload), format=name) as template:
            self._video = container.add_stream_from_template(template.streams.video[0])
        self._video.time_base = _TICK
        if first.track.fps:
            self._duration = round(_CLOCK / first.track.fps)
        sound = next((frame for frame, _ in frames if frame.track.kind is TrackKind.AUDIO), None)
        if sound is None:
            return
        if sound.track.codec in _G711:
            self._encoder = AacEncoder()
            sample = self._silence(sound)
        elif sound.track.codec is Codec.AAC and sound.track.parameter_sets:
            sample = _adts(sound.track.parameter_sets[0], sound.payload)
        else:
            self.notes.append(f"Sound in {sound.track.codec} was left out: MP4 has none of it.")
            return
        with av.open(io.BytesIO(sample * 4), format="aac") as template:
            self._audio = container.add_stream_from_template(template.streams.audio[0])
        self._audio.time_base = _TICK

    def _silence(self, sound: Frame) -> bytes:
        """An ADTS frame as the encoder will make them, to tell the container of it."""
        encoder = AacEncoder()
        quiet = b"\xd5" if sound.track.codec is Codec.PCMA else b"\xff"
        packets = []
        for number in range(8):
            frame = Frame(
                track=sound.track,
                pts_90k=number * 1024 * _CLOCK // 8000,
                dts_90k=number * 1024 * _CLOCK // 8000,
                key=False,
                payload=quiet * 1024,
            )
            packets += encoder.encode([frame])
        return _adts(packets[-1].configuration, packets[-1].payload)

    def _put(self, frame: Frame, offset: int) -> None:
        if frame.track.kind is TrackKind.VIDEO:
            self._put_picture(frame, offset)
        elif self._audio is None:
            if not self.notes:
                self.notes.append("Sound that began later is not in the file.")
        elif self._encoder is not None and frame.track.codec in _G711:
            moved = Frame(
                track=frame.track,
                pts_90k=frame.pts_90k + offset,
                dts_90k=frame.dts_90k + offset,
                key=False,
                payload=frame.payload,
            )
            for packet in self._encoder.encode([moved]):
                self._put_sound(_adts(packet.configuration, packet.payload), packet.pts_90k)
        elif self._encoder is None and frame.track.codec is Codec.AAC and frame.track.parameter_sets:
            data = _adts(frame.track.parameter_sets[0], frame.payload)
            self._put_sound(data, frame.pts_90k + offset)

    def _put_picture(self, frame: Frame, offset: int) -> None:
        packet: Packet[Any] = av.Packet(frame.payload)
        packet.stream = self._video
        packet.time_base = _TICK
        packet.pts = frame.pts_90k + offset
        packet.dts = frame.dts_90k + offset
        packet.duration = self._duration
        packet.is_keyframe = frame.key
        self._mux(packet)
        self.frames += 1
        self.end_90k = frame.dts_90k + offset + self._duration

    def _put_sound(self, data: bytes, pts_90k: int) -> None:
        packet: Packet[Any] = av.Packet(data)
        packet.stream = self._audio
        packet.time_base = _TICK
        packet.pts = packet.dts = pts_90k
        packet.is_keyframe = True
        self._mux(packet)

    def _mux(self, packet: Packet[Any]) -> None:
        if self._container is not None:
            self._container.mux(packet)


def _adts(config: bytes, payload: bytes) -> bytes:
    return build_adts(config, len(payload)) + payload
