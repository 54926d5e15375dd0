"""Sender reports of RTP outputs: the RTP time of each track on one wall clock (RFC 3550 6.4.1).

That mapping hardly moves from one report to the next, however unevenly frames arrive or come out of a transcoder:
players move what follows a report in time by as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gb28181gw.media.wire.rtcp import SenderReport, build_sender_report, ntp_time
from gb28181gw.media.wire.rtp import HEADER_SIZE

CNAME = "gb28181gw"
_MAX_SLEW_S = 0.001
"""So much the mapping follows the clocks at a report: 200 ppm of five seconds, more than clocks differ by."""
_MAX_OFF_S = 2.0
"""What is off by more has jumped, as a playback does at a seek, and is mapped anew."""


@dataclass(slots=True, kw_only=True)
class Sent:
    """What went out with one SSRC."""

    ssrc: int
    clock_rate: int
    packets: int = 0
    octets: int = 0
    last_timestamp: int = 0
    """RTP time of the last frame."""
    last_90k: int = 0
    """The same on the clock of the stream."""
    last_at: float = 0.0
    """Monotonic seconds when it came."""

    def add(self, packets: Sequence[bytes], pts_90k: int, at: float) -> int:
        """RTP packets of one frame without extensions; their bytes."""
        size = sum(map(len, packets))
        self.packets += len(packets)
        self.octets += size - HEADER_SIZE * len(packets)
        self.last_timestamp = int.from_bytes(packets[0][4:8], "big")
        self.last_90k = pts_90k
        self.last_at = at
        return size


class ReportClock:
    """The wall clock of one stream as reports tell it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._origin: float | None = None
        """Wall time at which the stream's clock showed 0."""

    def report(self, sent: Sent) -> bytes:
        """A compound packet for now, after the first packet."""
        passed_s = self._monotonic() - sent.last_at
        shown_s = sent.last_90k / 90_000 + passed_s
        passed = int(passed_s * sent.clock_rate)
        report = SenderReport(
            ssrc=sent.ssrc,
            ntp_time=ntp_time(self._follow(time.time() - shown_s) + shown_s),
            rtp_timestamp=(sent.last_timestamp + passed) & 0xFFFFFFFF,
            packet_count=sent.packets & 0xFFFFFFFF,
            octet_count=sent.octets & 0xFFFFFFFF,
        )
        return build_sender_report(report, CNAME)

    def _follow(self, origin: float) -> float:
        """The origin that is told, when it looks like `origin` now."""
        if self._origin is None or abs(origin - self._origin) > _MAX_OFF_S:
            self._origin = origin
        else:
            self._origin += min(max(origin - self._origin, -_MAX_SLEW_S), _MAX_SLEW_S)
        return self._origin
