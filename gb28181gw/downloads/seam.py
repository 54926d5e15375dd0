"""Joins the parts of a broken transfer without a lost or doubled picture. Pure.

`t=` has whole seconds and a device begins at a key frame of its choice, so a further part is asked for from some
seconds earlier, and its pictures are compared with those that are there: the first key frame of it that is known tells
where it belongs. Encoded pictures are never alike by chance, but a device might write something of its own into each;
then nothing is found and the part is placed by its time, which is said in the manifest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from typing import Final

from gb28181gw.media.tracks import Frame, TrackKind

KEPT_S: Final = 90
"""Pictures of so many seconds are remembered."""
SEARCH_S: Final = 20
"""How far into a part a known picture is looked for."""
_CLOCK: Final = 90_000
MAX_MISSING: Final = 1_000
_SAME_90K: Final = 450
"""5 ms: what is closer to what is there is the same."""

_USUAL_FPS: Final = 25


def digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


class Seam:
    """Maps the times of parts to the times of the file and leaves out what is there. One for each file."""

    def __init__(self) -> None:
        self.joined = "start"
        self.repeated = 0
        """Pictures of the present part that were there."""
        self.missing: list[tuple[float, float]] = []
        """(file time, seconds) of pictures that never came, neighbours within a second as one."""
        self.length_90k = 0
        """File time at which the newest picture ends."""
        self._keys: deque[tuple[int, bytes]] = deque()
        self._last: dict[TrackKind, int] = {}
        self._offset: int | None = None
        self._waiting: list[Frame] | None = None
        self._by_time: int | None = 0
        """Where a part belongs whose pictures are all new; None: one picture behind the end."""

    @property
    def end_90k(self) -> int:
        """File time of the newest picture; -1 without."""
        return self._last.get(TrackKind.VIDEO, -1)

    def begin_part(self, overlap_s: float | None) -> None:
        """A further part follows that begins about `overlap_s` before the end of what is there; None: right behind."""
        self.repeated = 0
        if self.end_90k < 0:
            self._offset, self._waiting, self.joined = None, None, "start"
            return
        self._offset = None
        self._waiting = []
        self._by_time = self.end_90k - round(overlap_s * _CLOCK) if overlap_s is not None else None
        self.joined = "picture"

    def take(self, frames: Iterable[Frame]) -> list[tuple[Frame, int]]:
        """(frame, what to add to its times) of those that belong into the file."""
        kept: list[tuple[Frame, int]] = []
        for frame in frames:
            if self._waiting is not None:
                kept += self._search(frame)
            else:
                kept += self._keep(frame)
        return kept

    def finish_part(self) -> list[tuple[Frame, int]]:
        """The part has ended: what still waits for its place gets it by time."""
        return self._place(None) if self._waiting else []

    def _search(self, frame: Frame) -> list[tuple[Frame, int]]:
        waiting = self._waiting
        assert waiting is not None  # noqa: S101 - the caller looked
        waiting.append(frame)
        first = next((one for one in waiting if one.track.kind is TrackKind.VIDEO), None)
        if frame.track.kind is not TrackKind.VIDEO or first is None:
            return []
        if frame.key:
            wanted = digest(frame.payload)
            for time, known in reversed(self._keys):
                if known == wanted:
                    return self._place(time - frame.dts_90k)
        if frame.dts_90k - first.dts_90k > SEARCH_S * _CLOCK:
            return self._place(None)
        return []

    def _place(self, offset: int | None) -> list[tuple[Frame, int]]:
        waiting, self._waiting = self._waiting or [], None
        if offset is None:
            self.joined = "time"
            first = next((one for one in waiting if one.track.kind is TrackKind.VIDEO), waiting[0])
            by_time = self._by_time
            if by_time is None:
                by_time = self.end_90k + round(_CLOCK / (first.track.fps or _USUAL_FPS))
            offset = by_time - first.dts_90k
        self._offset = offset
        return [pair for frame in waiting for pair in self._keep(frame)]

    def _keep(self, frame: Frame) -> list[tuple[Frame, int]]:
        kind = frame.track.kind
        if self._offset is None:
            # The file begins with its first picture; sound from before it has no place.
            if kind is not TrackKind.VIDEO or not frame.key:
                return []
            self._offset = -frame.dts_90k
        time = frame.dts_90k + self._offset
        if time < 0 or time <= self._last.get(kind, -_SAME_90K - 1) + _SAME_90K:
            self.repeated += kind is TrackKind.VIDEO
            return []
        self._remember(frame, time)
        return [(frame, self._offset)]

    def recall(self, frame: Frame) -> None:
        """A frame that is in the file already, with its times there: of the process before this one."""
        self._remember(frame, frame.dts_90k)

    def _remember(self, frame: Frame, time: int) -> None:
        kind = frame.track.kind
        if kind is TrackKind.VIDEO:
            interval = round(_CLOCK / (frame.track.fps or _USUAL_FPS))
            if kind in self._last and frame.track.fps:
                self._note_missing(self._last[kind], time, interval)
            self.length_90k = time + interval
        self._last[kind] = time
        if kind is TrackKind.VIDEO and frame.key:
            self._keys.append((time, digest(frame.payload)))
            while self._keys[0][0] < time - KEPT_S * _CLOCK:
                self._keys.popleft()

    def _note_missing(self, before: int, after: int, interval: int) -> None:
        """A step of more than a picture means that one is missing."""
        seconds = (after - before - interval) / _CLOCK
        if after - before < interval * 8 // 5 or len(self.missing) >= MAX_MISSING:
            return
        if self.missing and before / _CLOCK - self.missing[-1][0] < 1.0:
            at_s, had = self.missing[-1]
            self.missing[-1] = (at_s, had + seconds)
        else:
            self.missing.append((before / _CLOCK, seconds))
