"""Frames into the bytes of segments: fragmented MP4 files that begin at a key frame. Pure.

A file is an initialisation segment, a box with what it is (`about`), and a fragment for each second: what was written
before a kill can be read. Sound has to be AAC, which the gateway makes from G.711. A file is announced with the tracks
that are known; other ones begin a new file with the next key frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.fmp4 import (
    TIMESCALE,
    Sample,
    can_announce,
    fragment,
    init_segment,
    sample_data,
    sample_duration,
)

ABOUT_UUID: Final = bytes.fromhex("6762323831383167779c0c2f6b1e4d5a")
"""Of the `uuid` box (ISO 14496-12 4.2) that says of a file what it is."""
FRAGMENT_90K: Final = TIMESCALE
AUDIO_WAIT_90K: Final = TIMESCALE * 3 // 2
"""So much video is held for the first sound of a stream that will have some: with the rest of the way less than the two
seconds that a kill may cost."""
_GAP_90K: Final = 2 * TIMESCALE
"""Two pictures so far apart do not follow each other: a new file."""
MAX_SEGMENT_90K: Final = 50 * 60 * TIMESCALE
"""A stream without further key frames does not make a file without end."""
_MAX_FRAGMENT: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """A new file; `data` is its head."""

    data: bytes
    form: str
    start: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Written:
    """More of the file that is open."""

    data: bytes
    end: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The file has its end."""

    end: float


Piece = Opened | Written | Closed


def about_box(start: float, tracks: Iterable[Track], form: str) -> bytes:
    """What a reader of the gateway needs: when it begins, and its tracks."""
    text = json.dumps(
        {
            "start": round(start, 3),
            "form": form,
            "tracks": [
                {
                    "kind": track.kind.value,
                    "codec": track.codec.value,
                    "width": track.width,
                    "height": track.height,
                    "fps": track.fps,
                    "sample_rate": track.sample_rate,
                    "channels": track.channels,
                    "parameter_sets": [unit.hex() for unit in track.parameter_sets],
                }
                for track in tracks
            ],
        },
        separators=(",", ":"),
    ).encode()
    return (24 + len(text)).to_bytes(4, "big") + b"uuid" + ABOUT_UUID + text


def read_about(text: bytes) -> tuple[float, str, tuple[Track, ...]]:
    """(start, form, tracks). Raises ValueError, KeyError, TypeError."""
    found = json.loads(text)
    tracks = tuple(
        Track(
            kind=TrackKind(one["kind"]),
            codec=Codec(one["codec"]),
            width=one["width"],
            height=one["height"],
            fps=one["fps"],
            sample_rate=one["sample_rate"],
            channels=one["channels"],
            parameter_sets=tuple(bytes.fromhex(unit) for unit in one["parameter_sets"]),
        )
        for one in found["tracks"]
    )
    return float(found["start"]), str(found["form"]), tracks


class SegmentMaker:
    """One stream's files. `take` gets frames with the wall time of each; the answers are in order."""

    def __init__(self, *, segment_s: float, expect_audio: bool) -> None:
        self._segment_90k = round(segment_s * TIMESCALE)
        self._expect_audio = expect_audio
        self._tracks: dict[TrackKind, Track] = {}
        """Announced in the open file; empty: none is open."""
        self._latest: dict[TrackKind, Track] = {}
        self._waiting: list[tuple[Frame, float]] = []
        self._held: tuple[Frame, float] | None = None
        """The last picture: how long it stands is not known yet."""
        self._video: list[Sample] = []
        self._audio: list[Sample] = []
        self._bytes = 0
        self._origin = 0
        self._start = 0.0
        self._end = 0.0
        """Wall time to which the file is complete."""
        self._sequence = 0
        self._step = 3600
        self._pieces: list[Piece] = []

    def take(self, frames: Iterable[tuple[Frame, float]]) -> list[Piece]:
        """Frames in the order of the stream, each with its wall time."""
        for frame, wall in frames:
            if not can_announce(frame.track):
                continue
            self._latest[frame.track.kind] = frame.track
            if self._expect_audio and TrackKind.AUDIO not in self._latest:
                if self._wait(frame, wall):
                    continue
                self._expect_audio = False
            waiting, self._waiting = self._waiting, []
            for one, at in (*waiting, (frame, wall)):
                self._put(one, at)
        return self._drain()

    def finish(self) -> list[Piece]:
        """The stream is over, or nothing more of it is wanted."""
        waiting, self._waiting = self._waiting, []
        for one, at in waiting:
            self._put(one, at)
        self._close()
        return self._drain()

    def _drain(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _wait(self, frame: Frame, wall: float) -> bool:
        if not self._waiting and not frame.key:
            return True
        self._waiting.append((frame, wall))
        if frame.dts_90k - self._waiting[0][0].dts_90k > AUDIO_WAIT_90K:
            self._waiting.pop()
            return False
        return True

    def _put(self, frame: Frame, wall: float) -> None:
        if frame.track.kind is TrackKind.AUDIO:
            self._put_sound(frame)
            return
        held = self._held
        if held is not None:
            step = frame.dts_90k - held[0].dts_90k
            # A stream that was lost and came back goes on with its own clock as if nothing had been.
            silent = abs((wall - held[1]) * TIMESCALE - step) > _GAP_90K
            if 0 < step <= _GAP_90K and not silent:
                self._step = step
                self._add(held[0], step)
            else:
                self._close()
        self._held = None
        if (frame.key and self._is_due(frame)) or (
            self._tracks and frame.dts_90k - self._origin > MAX_SEGMENT_90K
        ):
            self._close()
        if not self._tracks:
            if not frame.key:
                return
            self._open(frame, wall)
        self._held = (frame, wall)

    def _is_due(self, frame: Frame) -> bool:
        """This key frame begins a new file."""
        if not self._tracks:
            return False
        if frame.dts_90k - self._origin >= self._segment_90k:
            return True
        audio, known = self._latest.get(TrackKind.AUDIO), self._tracks.get(TrackKind.AUDIO)
        return not _same(self._tracks[TrackKind.VIDEO], frame.track) or (
            audio is not None and (known is None or not _same(known, audio))
        )

    def _open(self, frame: Frame, wall: float) -> None:
        self._tracks = {TrackKind.VIDEO: frame.track}
        if TrackKind.AUDIO in self._latest:
            self._tracks[TrackKind.AUDIO] = self._latest[TrackKind.AUDIO]
        # Files that follow each other do so without a jump, though the clocks of device and host drift apart.
        early = self._end - wall
        self._start = self._end - max(-0.1, min(early / 8, 0.1)) if abs(early) < 2.0 else wall
        self._origin, self._end, self._sequence = frame.dts_90k, self._start, 0
        head = init_segment(self._tracks.values())
        form = hashlib.blake2b(head, digest_size=8).hexdigest()
        self._pieces.append(
            Opened(head + about_box(self._start, self._tracks.values(), form), form, self._start)
        )

    def _put_sound(self, frame: Frame) -> None:
        known = self._tracks.get(TrackKind.AUDIO)
        dts = frame.dts_90k - self._origin
        if known is None or not _same(known, frame.track) or dts < 0:
            return
        if self._audio and dts <= self._audio[-1].dts_90k:
            return
        duration = sample_duration(frame.track)
        self._audio.append(
            Sample(dts_90k=dts, pts_90k=dts, duration_90k=duration, key=True, data=frame.payload)
        )
        self._bytes += len(frame.payload)

    def _add(self, frame: Frame, duration_90k: int) -> None:
        dts = frame.dts_90k - self._origin
        # A fragment begins at every key frame, so that a reader can begin there.
        if self._video and (
            frame.key or dts - self._video[0].dts_90k >= FRAGMENT_90K or self._bytes > _MAX_FRAGMENT
        ):
            self._flush()
        data = sample_data(frame)
        self._video.append(
            Sample(
                dts_90k=dts,
                pts_90k=max(frame.pts_90k - self._origin, dts),
                duration_90k=duration_90k,
                key=frame.key,
                data=data,
            )
        )
        self._bytes += len(data)
        self._end = self._start + (dts + duration_90k) / TIMESCALE
        if dts + duration_90k - self._video[0].dts_90k >= FRAGMENT_90K:
            self._flush()

    def _flush(self) -> None:
        if not self._video and not self._audio:
            return
        self._sequence += 1
        data = fragment(self._sequence, {TrackKind.VIDEO: self._video, TrackKind.AUDIO: self._audio})
        self._video, self._audio, self._bytes = [], [], 0
        self._pieces.append(Written(data, self._end))

    def _close(self) -> None:
        if not self._tracks:
            return
        if self._held is not None:
            self._add(self._held[0], self._step)
            self._held = None
        self._flush()
        self._pieces.append(Closed(self._end))
        self._tracks = {}


def _same(one: Track, other: Track) -> bool:
    return one.codec is other.codec and one.parameter_sets == other.parameter_sets
