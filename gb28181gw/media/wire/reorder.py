"""Puts the packets of one SSRC back into order (MED-23, MED-24).

A packet that comes early waits for the missing ones, for at most `window_s` and 512 packets; then the missing are
given up and a `Gap` stands in the result. The window begins at 200 ms and grows to 500 when packets come just too
late, and shrinks again after half a minute in which the path kept order. Order is by sequence number alone;
timestamps prove nothing (MED-20). For UDP: bytes that come over one TCP connection are in order already.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from gb28181gw.media.wire.rtp import RtpPacket

_MODULUS = 1 << 16
_HALF = 1 << 15
_CALM_S = 30.0
_MAX_DROPOUT = 3000  # RFC 3550 A.1: farther than this is a new sequence
_RESTART_PACKETS = 8


class Gap(NamedTuple):
    """Packets are missing here."""

    lost: int
    """How many; 0 where the device began a new sequence and nobody knows."""
    restart: bool = False
    """The sequence numbers begin anew (MED-23): a new epoch of the same source."""


class _OldRun(NamedTuple):
    """Old numbers in a row, while nothing else came."""

    expected: int
    """What was expected when it began; a new packet changes that and thereby ends the run."""
    following: int
    packets: int
    since: float


class ReorderBuffer:
    """Packets in, packets and gaps in order out. One per SSRC."""

    def __init__(self, *, window_s: float = 0.2, max_window_s: float = 0.5, max_packets: int = 512) -> None:
        self.window_s = window_s
        """Now in force."""
        self.lost = 0
        self.reordered = 0
        """Packets that came early or out of turn and were put right."""
        self.duplicated = 0
        self.late = 0
        """Packets that came after they had been given up; they count as lost as well."""
        self.restarts = 0
        self._least_window_s = window_s
        self._max_window_s = max_window_s
        self._max_packets = max_packets
        self._expected = -1
        self._held: dict[int, tuple[RtpPacket, float]] = {}
        self._given_up: deque[tuple[int, int, float]] = deque(maxlen=64)  # first, count, when
        self._suspect: RtpPacket | None = None
        self._old_run: _OldRun | None = None
        self._last_trouble = 0.0

    @property
    def held(self) -> int:
        """Packets that wait."""
        return len(self._held)

    @property
    def deadline(self) -> float | None:
        """When `poll` will give something up; None: nothing waits."""
        if not self._held:
            return None
        # Insertion order is arrival order.
        return next(iter(self._held.values()))[1] + self.window_s

    def push(self, packet: RtpPacket, now: float) -> list[RtpPacket | Gap]:
        """Take a packet that arrived at `now`; returns what can go on."""
        sequence_number = packet.sequence_number
        expected = self._expected
        if sequence_number == expected:
            self._expected = (expected + 1) % _MODULUS
            if not self._held:
                self._suspect = None
                return [packet]
            out: list[RtpPacket | Gap] = [packet]
            self._drain(out)
            return self._expire(out, now)
        if expected < 0:
            self._expected = (sequence_number + 1) % _MODULUS
            self._last_trouble = now
            return [packet]
        return self._out_of_turn(packet, now)

    def poll(self, now: float) -> list[RtpPacket | Gap]:
        """Give up what has been missing for longer than the window."""
        return self._expire([], now) if self._held else []

    def flush(self) -> list[RtpPacket | Gap]:
        """Everything that waits, in order, with its gaps."""
        out: list[RtpPacket | Gap] = []
        while self._held:
            self._skip(out, None)
        return out

    def _out_of_turn(self, packet: RtpPacket, now: float) -> list[RtpPacket | Gap]:
        ahead = (packet.sequence_number - self._expected) % _MODULUS
        if ahead >= _HALF:
            ahead -= _MODULUS
        if 0 < ahead <= self._max_packets:
            self._suspect = None
            if packet.sequence_number in self._held:
                self.duplicated += 1
                return []
            self._held[packet.sequence_number] = (packet, now)
            self.reordered += 1
            if now - self._last_trouble > _CALM_S:
                self.window_s = self._least_window_s
            self._last_trouble = now
            return self._expire([], now)
        if -self._max_packets <= ahead < 0:
            self._behind(packet.sequence_number, now)
            return self._restarted_behind(packet, now)
        return self._confirm(packet)

    def _confirm(self, packet: RtpPacket) -> list[RtpPacket | Gap]:
        """A jump: believed when the next packet continues it (RFC 3550 A.1)."""
        suspect, self._suspect = self._suspect, packet
        if suspect is None or (suspect.sequence_number + 1) % _MODULUS != packet.sequence_number:
            return []
        ahead = (suspect.sequence_number - self._expected) % _MODULUS
        out = self.flush()
        if ahead < _MAX_DROPOUT:
            self.lost += ahead
            out.append(Gap(ahead))
        else:
            self.restarts += 1
            out.append(Gap(0, True))
        out += (suspect, packet)
        self._expected = (packet.sequence_number + 1) % _MODULUS
        self._suspect = None
        self._given_up.clear()
        return out

    def _behind(self, sequence_number: int, now: float) -> None:
        """Late or duplicate: late if it is one of those given up."""
        for index, (first, count, when) in enumerate(self._given_up):
            place = (sequence_number - first) % _MODULUS
            if place < count:
                self.late += 1
                # Split the range, so that a second copy counts as duplicate.
                del self._given_up[index]
                if place:
                    self._given_up.append((first, place, when))
                if place + 1 < count:
                    self._given_up.append(((sequence_number + 1) % _MODULUS, count - place - 1, when))
                needed = now - when + self.window_s
                self.window_s = min(self._max_window_s, max(self.window_s, needed * 1.1))
                self._last_trouble = now
                return
        self.duplicated += 1

    def _restarted_behind(self, packet: RtpPacket, now: float) -> list[RtpPacket | Gap]:
        """A restart by a few hundred packets looks like old packets (MED-23).

        It is believed when old numbers, each following the one before, are all that comes for longer than the
        window may be: packets that were delayed or doubled on the way come among new ones.
        """
        number = packet.sequence_number
        run = self._old_run
        if run is None or run.expected != self._expected or run.following != number:
            self._old_run = _OldRun(self._expected, (number + 1) % _MODULUS, 1, now)
            return []
        self._old_run = run = run._replace(following=(number + 1) % _MODULUS, packets=run.packets + 1)
        if run.packets < _RESTART_PACKETS or now - run.since < self._max_window_s:
            return []
        out = self.flush()
        self.restarts += 1
        out += (Gap(0, True), packet)
        self._expected = run.following
        self._suspect = self._old_run = None
        self._given_up.clear()
        return out

    def _drain(self, out: list[RtpPacket | Gap]) -> None:
        held = self._held
        while held and self._expected in held:
            out.append(held.pop(self._expected)[0])
            self._expected = (self._expected + 1) % _MODULUS

    def _expire(self, out: list[RtpPacket | Gap], now: float) -> list[RtpPacket | Gap]:
        while self._held:
            oldest = next(iter(self._held.values()))[1]
            if now < oldest + self.window_s and len(self._held) < self._max_packets:
                return out
            self._skip(out, now)
        return out

    def _skip(self, out: list[RtpPacket | Gap], now: float | None) -> None:
        """Give up what is missing before the first packet that waits."""
        expected = self._expected
        first = min(self._held, key=lambda number: (number - expected) % _MODULUS)
        missing = (first - expected) % _MODULUS
        if missing:
            self.lost += missing
            out.append(Gap(missing))
            if now is not None:
                self._given_up.append((expected, missing, now))
        self._expected = first
        self._drain(out)
