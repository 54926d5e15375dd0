"""Where a recording's stream stands, told by the stream's own times. Pure: counters and `now` in, numbers out.

A stream has two clocks: the output's, which never goes back and takes jumps out, and the device's. While both run
together the recording runs on; where the device's alone moves, it jumped: a seek, a gap in the recording (PB-13), or
backward play, which goes from group of pictures to group of pictures (GB/T 28181-2022 B.2.4).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gb28181gw.media.engine import StreamCounters

_CLOCK: Final = 90_000
JUMP_S: Final = 0.3
"""As in `media.wire.clock`: less is no jump."""
MAX_LEAD_S: Final = 1.0
"""Of sound before the first picture."""
MAX_GAPS: Final = 1_000
WINDOW_S: Final = 2.0
"""Over which the rate is measured."""


class Timeline:
    """Position and rate of one stream. `span_s` is the length asked for."""

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self.position_s = 0.0
        self.jumps = 0
        """Jumps of the device's time so far."""
        self.gaps: list[tuple[float, float]] = []
        """(position, seconds) of forward jumps that nobody asked for: not recorded, or lost (PB-13)."""
        self._target: float | None = None
        self._backwards = False
        self.leaps_back = False
        """The device's time went back since `turn`."""
        self._output: int | None = None
        self._device = 0
        self._fresh = True
        self._window: deque[tuple[float, float, int]] = deque()
        self._frame_s = 0.04

    def restart(self, position_s: float) -> None:
        """A new INVITE begins at `position_s`, forwards: its times have nothing to do with those before."""
        self.position_s = position_s
        self._output = None
        self._fresh = False
        self._target = None
        self._backwards = False
        self._window.clear()

    def expect_seek(self, position_s: float) -> None:
        """The next jump leads to `position_s`."""
        self._target = position_s

    def turn(self, *, backwards: bool) -> None:
        """From now on the recording runs this way round; the rate is measured anew."""
        self._backwards = backwards
        self.leaps_back = False
        self._window.clear()

    def measure_anew(self) -> None:
        """The rate counts from now on."""
        self._window.clear()

    def leap(self, position_s: float) -> None:
        """Nothing was recorded from behind the newest picture up to there, as the device's list says."""
        ended = round(self.position_s + self._frame_s, 3)
        if position_s > ended:
            self.gaps.append((ended, round(position_s - ended, 3)))
            del self.gaps[:-MAX_GAPS]
        self.position_s = position_s

    def observe(self, now: float, counters: StreamCounters, fps: float = 0.0) -> None:
        """Look at the stream's counters; `now` in seconds, `fps` of the picture as its parameter sets tell."""
        if not counters.pictures:
            return
        if fps > 0:
            self._frame_s = 1 / fps
        if self._output is not None:
            shown = (counters.picture_90k - self._output) / _CLOCK
            moved = (counters.device_90k - self._device) / _CLOCK
            self._advance(shown, moved)
        elif self._fresh:
            # A new stream's own clock begins at 0 with its first unit, which may be sound from before the pictures.
            self.position_s = counters.picture_90k / _CLOCK
            seen_s = (counters.pictures - 1) * self._frame_s
            if fps > 0 and 0 < self.position_s - seen_s < MAX_LEAD_S:
                self.position_s = seen_s
        self._output, self._device = counters.picture_90k, counters.device_90k
        window = self._window
        window.append((now, counters.picture_90k / _CLOCK, counters.pictures))
        while len(window) > 2 and window[1][0] <= now - WINDOW_S:
            window.popleft()

    def _advance(self, shown: float, moved: float) -> None:
        if abs(moved - shown) < JUMP_S:
            # Backwards, groups of pictures run forwards; a device whose times never go back counts them anew.
            self.position_s += -shown if self._backwards and not self.leaps_back else shown
        else:
            self.jumps += 1
            self.leaps_back = self.leaps_back or moved < 0
            if self._target is not None:
                self.position_s, self._target = self._target, None
            elif 0 <= self.position_s + moved <= self.span_s:
                if moved > 0 and not self._backwards:
                    self.gaps.append((self.position_s, moved - shown))
                    del self.gaps[:-MAX_GAPS]
                self.position_s += moved
            elif not self._backwards:
                self.position_s += shown
        self.position_s = max(self.position_s, 0.0)

    @property
    def rate(self) -> float | None:
        """Seconds of recording in a second, never negative; None before a second was seen.

        A device may send faster without changing its times (PB-08): the number of pictures counts then.
        """
        if not self._window:
            return None
        (began, first, pictures), (ended, last, all_pictures) = self._window[0], self._window[-1]
        seen = ended - began
        if seen < 1.0:
            return None
        return max(last - first, (all_pictures - pictures) * self._frame_s) / seen
