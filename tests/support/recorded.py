"""Reads what a playback shows: the time in each picture, and the stream's own times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType

import av

from gb28181gw.sim.recordings import embedded_time


def minutes_ago(minutes: float) -> datetime:
    """A whole second so long ago."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=minutes)


@dataclass(frozen=True)
class Shown:
    """One picture as a player gets it."""

    recorded: datetime
    """Embedded by the recorder."""
    seconds: float
    """Time stamp of the stream."""
    arrived: float
    key: bool


class Player:
    """Reads a play URL picture by picture, as FFmpeg demuxes it. A context manager."""

    def __init__(self, url: str) -> None:
        self._container = av.open(
            url, timeout=20, options={"analyzeduration": "1000000", "probesize": "200000"}
        )
        self._pictures = self._read()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pictures.close()
        self._container.close()

    def _read(self) -> Iterator[Shown]:
        stream = self._container.streams.video[0]
        assert stream.time_base is not None
        for packet in self._container.demux(stream):
            if not packet.size:
                return
            if packet.dts is None:
                continue  # FFmpeg does not know yet where RTP begins
            found = embedded_time(bytes(packet))
            assert found is not None
            yield Shown(found, float(packet.dts * stream.time_base), time.monotonic(), packet.is_keyframe)

    def next(self) -> Shown:
        return next(self._pictures)

    def take(self, seconds: float) -> list[Shown]:
        """What arrives in so many seconds, or until the end."""
        until = time.monotonic() + seconds
        seen = []
        for picture in self._pictures:
            seen.append(picture)
            if picture.arrived > until:
                break
        return seen

    def until(self, recorded: datetime, limit_s: float = 15.0) -> Shown:
        """The first picture within 3 s behind `recorded`."""
        deadline = time.monotonic() + limit_s
        for picture in self._pictures:
            if recorded - timedelta(seconds=3) < picture.recorded < recorded + timedelta(seconds=3):
                return picture
            assert time.monotonic() < deadline, f"{recorded} did not come; last was {picture.recorded}"
        raise AssertionError(f"the stream ended before {recorded}")

    def rest(self) -> list[Shown]:
        """Everything to the end of the stream."""
        return list(self._pictures)
