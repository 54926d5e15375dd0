"""Sends a recording: an `RtpStream` that can be paused, moved, sped up and turned round, and that has an end.

What steers it comes as MANSRTSP in INFO (GB/T 28181-2022 Annex B); `Steering` reads it apart from the gateway's codec,
for the same reason as `bodies`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gb28181gw.sim.media_links import Link
from gb28181gw.sim.media_sender import SLOT_S, RtpStream, Source
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import Recorded

PAUSED_S = 0.02
"""How often a paused stream looks whether it goes on."""
MIDDLE_S = 4
"""PB-11-MIDDLE: seconds of the recording that are sent."""


class ReplayStream(RtpStream):
    """One playback or download, from the key frame at or before its start to the end of what was recorded."""

    def __init__(
        self,
        source: Source,
        link: Link,
        recorded: Recorded,
        *,
        ssrc: int,
        payload_type: int,
        rng: random.Random,
        quirks: frozenset[Quirk],
        scale: float,
        on_end: Callable[[], None],
        on_file_end: Callable[[], None],
    ) -> None:
        super().__init__(source, link, ssrc=ssrc, payload_type=payload_type, rng=rng, quirks=quirks)
        self.recorded = recorded
        self.paused = False
        self.scale = scale
        self._on_end = on_end
        self._on_file_end = on_file_end
        self._ended = False
        self._told_end = False
        self._pace()

    def _pace(self) -> None:
        self._interval = float(1 / self.recorded.fps) / abs(self.scale)

    # --- steering -------------------------------------------------------------------------------------------------

    def change_scale(self, scale: float) -> None:
        if scale < 0 <= self.scale:
            self._number = self.recorded.key_at_or_before(self._number)
        self.scale = scale
        self._pace()

    def seek(self, seconds: float) -> None:
        """Go on from a time (seconds since 1970)."""
        self._pending.clear()
        self._number = self.recorded.begin(self.recorded.number_at(seconds))
        self._shift_90k = 0
        self._ended = self._told_end = False

    def rtp_info(self) -> str:
        """Of the packet that is sent next."""
        times = self.recorded.access(self._number).dts_90k + self._shift_90k
        return f"seq={self._sequence};rtptime={(self._timestamp_base + times) & 0xFFFFFFFF}"

    # --- sending --------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> float:
        if self.paused:
            self._next_at = now
            return now + PAUSED_S
        if self.link.congested:
            # A recording waits for a receiver that is slow, it leaves nothing out.
            return now + SLOT_S
        if not self._ended:
            return super().advance(now)
        if self._pending:
            self._next_at = now + 1.0  # no further picture, only what is left of the last one
            return super().advance(now)
        if not self._told_end:
            self._told_end = True
            self._on_end()
        return now + PAUSED_S

    def _next_picture(self, now: float) -> None:
        if Quirk.PB_11_MIDDLE in self._quirks and self.frames >= MIDDLE_S * self.recorded.fps:
            self.paused = True
            return
        self.frames += 1
        number = self._number
        bursts = self.source.bursts(number, self._shift_90k)
        # Backwards there are pictures alone (B.2.4): the first burst; sound played backwards is none.
        for burst in bursts if self.scale > 0 else bursts[:1]:
            self._packetise(burst)
        following = self.recorded.following(number, backwards=self.scale < 0)
        if following is None:
            self._ended = True
            return
        if Quirk.PB_08_TIMES in self._quirks and following == number + 1:
            step = self.recorded.access(following).dts_90k - self.recorded.access(number).dts_90k
            self._shift_90k -= round(step * (1 - 1 / abs(self.scale)))
        if self.scale > 0 and self.recorded.begins_file(number, following):
            self._on_file_end()
        self._number = following


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """A MANSRTSP request, as far as a device looks at it."""

    method: str
    version: str
    cseq: str
    scale: float | None = None
    npt: float | None = None
    """Start of a Range in seconds; None: absent, or ``now``."""


def read_steering(body: bytes) -> Steering | None:
    """None for what is no MANSRTSP."""
    lines = [line.strip() for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
    words = lines[0].split() if lines else []
    if len(words) != 2 or not words[1].upper().endswith("RTSP/1.0"):
        return None
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
    }
    scale = npt = None
    try:
        if "scale" in headers:
            scale = float(headers["scale"])
        start = headers.get("range", "").removeprefix("npt=").partition("-")[0]
        if start and start != "now":
            npt = float(start)
    except ValueError:
        return None
    return Steering(
        method=words[0].upper(), version=words[1].upper(), cseq=headers.get("cseq", ""), scale=scale, npt=npt
    )
