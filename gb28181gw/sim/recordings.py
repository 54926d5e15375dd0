"""What a simulated device has recorded: files in a row, of every channel, up to now.

Nothing is stored. A recording shows the channel's loop as it stood at the time: picture n since 1970 is picture n of
the loop, so the clock burnt into it shows the seconds of that time, and every picture carries the full time
in an SEI message (user data, H.264 7.3.2.3.1) that `embedded_time` reads. PTS count from midnight UTC, so a seek is
seen in them, as it is with recorders that stamp with their own clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import Access, Loop
from gb28181gw.sim.quirks import Quirk

DAY_S: Final = 86_400
GAP_S: Final = 5
"""PB-13: what every file lacks at its end."""
EARLY_S: Final = 6
"""PB-07: playback begins so much before what was asked for."""
_UUID: Final = b"gb28181gw-clock!"
_TIME = re.compile(re.escape(_UUID) + rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """One file; seconds since 1970 UTC."""

    start: int
    end: int

    @property
    def kind(self) -> str:
        """``time``, and every fourth ``alarm``."""
        return "alarm" if self.start // max(self.end - self.start, 1) % 4 == 3 else "time"


def files(
    start: float, end: float, *, now: float, hours: float, file_s: int, quirks: frozenset[Quirk]
) -> list[RecordFile]:
    """Files that touch [start, end), oldest first. Kept are the last `hours`, in files of `file_s` seconds."""
    gap = GAP_S if Quirk.PB_13 in quirks else 0
    oldest = int(now - hours * 3600) // file_s * file_s
    first = max(int(start) // file_s * file_s, oldest)
    found = []
    while first < min(end, now):
        last = min(first + file_s - gap, int(now))
        if last > first and last > start:
            found.append(RecordFile(start=first, end=last))
        first += file_s
    return found


class Recorded:
    """`content.Content` of a span of a loop's recordings. Picture 0 is midnight UTC of the day that it begins on."""

    def __init__(self, loop: Loop, parts: Sequence[RecordFile], start: int, end: int) -> None:
        """`parts` are what was recorded of [start, end), at least one file, in order."""
        self.video: Codec = loop.video
        self.audio: Codec | None = loop.audio
        self.fps: Fraction = loop.fps
        self.width = loop.width
        self.height = loop.height
        self.midnight = start // DAY_S * DAY_S
        self._loop = loop
        self._epoch = int(self.midnight * loop.fps)
        self.spans = [
            (self.number_at(max(part.start, start)), self.number_at(min(part.end, end))) for part in parts
        ]
        """Pictures [first, behind the last) of each file."""

    def number_at(self, seconds: float) -> int:
        """The picture of a time (seconds since 1970)."""
        return int(Fraction(seconds) * self.fps) - self._epoch

    def time_of(self, number: int) -> Fraction:
        """Seconds since 1970 of a picture."""
        return (self._epoch + number) / self.fps

    def begin(self, number: int) -> int:
        """Where playing from `number` starts: the key frame at or before it, of its file or the next."""
        for index, (first, behind) in enumerate(self.spans):
            if number < behind:
                key = self.key_at_or_before(max(number, first))
                return key if key >= first or not index else self._key_at_or_after(first)
        return self.spans[-1][1]

    def following(self, number: int, *, backwards: bool = False) -> int | None:
        """The picture that is sent behind `number`; None at the end.

        Backwards goes group by group, each of them forwards (B.2.4).
        """
        after = number + 1
        if not backwards:
            last = -1
            for index, (first, behind) in enumerate(self.spans):
                if after < behind:
                    # From the key frame before the first file it goes straight on; what was not recorded between two
                    # is left out up to the next key frame.
                    straight = not index or after > first or first == last
                    return after if straight else self._key_at_or_after(first)
                last = behind
            return None
        if self.key_at_or_before(after) != after:
            return after
        earlier = self.key_at_or_before(number) - 1
        return self.key_at_or_before(earlier) if earlier >= self.spans[0][0] else None

    def begins_file(self, number: int, following: int) -> bool:
        """Whether the step from one picture to the next leads into another file."""
        return any(number < first <= following for first, _ in self.spans[1:])

    def _key_at_or_after(self, number: int) -> int:
        while self.key_at_or_before(number) != number:
            number += 1
        return number

    def access(self, number: int) -> Access:
        found = self._loop.access(self._epoch + number)
        origin = self._loop.dts_90k(self._epoch)
        dts = self._loop.dts_90k(self._epoch + number) - origin
        return Access(
            number=number,
            dts_90k=dts,
            pts_90k=dts + found.pts_90k - found.dts_90k,
            key=found.key,
            data=with_time(found.data, self.video, self.time_of(number)),
            audio=tuple((pts - origin, payload) for pts, payload in found.audio),
        )

    def key_at_or_before(self, number: int) -> int:
        return self._loop.key_at_or_before(self._epoch + number) - self._epoch

    def newest(self) -> None:
        """Every picture exists."""

    def ready(self, number: int) -> bool:
        return True

    def want_key(self) -> None:
        """What is recorded is as it is."""

    def size_bytes(self) -> int:
        """About what the span takes as a program stream."""
        pictures = self._loop.pictures
        mean = sum(len(picture.data) for picture in pictures) / len(pictures)
        return int(mean * sum(behind - first for first, behind in self.spans))


def with_time(picture: bytes, codec: Codec, seconds: Fraction) -> bytes:
    """The access unit (Annex B) with its time in an SEI message before its first slice."""
    moment = datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(seconds % 1 * 1_000_000))
    payload = _UUID + moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
    head = b"\x00\x00\x00\x01\x06" if codec is Codec.H264 else b"\x00\x00\x00\x01\x4e\x01"
    message = head + bytes((5, len(payload))) + payload + b"\x80"
    position = _first_slice(picture, codec)
    return picture[:position] + message + picture[position:]


def _first_slice(picture: bytes, codec: Codec) -> int:
    """Where the start code of the first coded slice begins."""
    position = picture.find(b"\x00\x00\x01")
    while position >= 0:
        header = picture[position + 3]
        is_slice = 1 <= header & 0x1F <= 5 if codec is Codec.H264 else header >> 1 & 0x3F < 32
        if is_slice:
            return position - 1 if position and picture[position - 1] == 0 else position
        position = picture.find(b"\x00\x00\x01", position + 3)
    return 0


def embedded_time(picture: bytes) -> datetime | None:
    """The time that `with_time` wrote into an access unit; None without."""
    match = _TIME.search(picture)
    if match is None:
        return None
    return datetime.strptime(match[1].decode(), "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
