"""What a receiver counts about one RTP source (RFC 3550 A.1, A.3, A.8)."""

from __future__ import annotations

from gb28181gw.media.wire.rtcp import ReportBlock, SenderReport

MAX_DROPOUT = 3000
MAX_MISORDER = 100
_MODULUS = 1 << 16


class ReceptionStatistics:
    """Sequence, loss and jitter of one SSRC.

    A jump over `MAX_DROPOUT` that the next packet confirms restarts the counting (MED-23): `restarts`. The first
    packet is believed at once: a receiver that waits for a second one loses the start of a key frame.
    """

    def __init__(self, clock_rate: int = 90000) -> None:
        self.clock_rate = clock_rate
        self.received = 0
        self.duplicated_or_late = 0
        """Packets whose sequence number was not ahead."""
        self.restarts = 0
        self._base = 0
        self._highest = 0
        self._cycles = 0
        self._epoch_received = 0
        self._suspect = -1
        self._earlier_lost = 0
        self._expected_before = 0
        self._received_before = 0
        self._transit: float | None = None
        self._jitter = 0.0
        self._report_middle = 0
        self._report_arrival = 0.0

    def update(self, sequence_number: int, timestamp: int, arrival: float) -> None:
        """Count a packet; `arrival` in monotonic seconds."""
        self.received += 1
        if self._epoch_received == 0:
            self._restart(sequence_number)
        else:
            step = (sequence_number - self._highest) % _MODULUS
            if 0 < step < MAX_DROPOUT:
                if sequence_number < self._highest:
                    self._cycles += _MODULUS
                self._highest = sequence_number
                self._suspect = -1
            elif step == 0 or step > _MODULUS - MAX_MISORDER:
                self.duplicated_or_late += 1
            elif sequence_number == self._suspect:
                self._earlier_lost += max(0, self.lost)
                self.restarts += 1
                self._restart(sequence_number)
            else:
                self._suspect = (sequence_number + 1) % _MODULUS
                return
        self._epoch_received += 1
        # A.8, in units of the timestamp; a jump of the device's clock must not stay in the average for long.
        transit = arrival * self.clock_rate - timestamp
        if self._transit is not None:
            difference = abs(transit - self._transit) % (1 << 32)
            difference = min(difference, (1 << 32) - difference)
            if difference < self.clock_rate:
                self._jitter += (difference - self._jitter) / 16
        self._transit = transit

    def _restart(self, sequence_number: int) -> None:
        self._base = self._highest = sequence_number
        self._cycles = 0
        self._epoch_received = 0
        self._suspect = -1
        self._expected_before = 0
        self._received_before = 0
        self._transit = None

    def sender_report(self, report: SenderReport, arrival: float) -> None:
        """Note a sender report, so that the next receiver report can answer it."""
        self._report_middle = report.middle_ntp
        self._report_arrival = arrival

    @property
    def extended_highest_sequence_number(self) -> int:
        return self._cycles + self._highest

    @property
    def expected(self) -> int:
        """Packets that the sequence numbers call for, since the last restart."""
        return self._cycles + self._highest - self._base + 1 if self._epoch_received else 0

    @property
    def lost(self) -> int:
        """Cumulative number of packets lost since the last restart; negative with duplicates (A.3)."""
        return self.expected - self._epoch_received

    @property
    def total_lost(self) -> int:
        """Lost in all epochs, never negative."""
        return self._earlier_lost + max(0, self.lost)

    @property
    def jitter(self) -> int:
        """Interarrival jitter in units of the timestamp."""
        return int(self._jitter)

    @property
    def jitter_ms(self) -> float:
        return self._jitter * 1000 / self.clock_rate

    def report_block(self, ssrc: int, now: float) -> ReportBlock:
        """The block of the next receiver report; ends the interval of `fraction_lost`."""
        expected = self.expected - self._expected_before
        lost = expected - (self._epoch_received - self._received_before)
        self._expected_before = self.expected
        self._received_before = self._epoch_received
        delay = round((now - self._report_arrival) * 65536) if self._report_middle else 0
        return ReportBlock(
            ssrc=ssrc,
            fraction_lost=min(255, lost * 256 // expected) if expected > 0 and lost > 0 else 0,
            cumulative_lost=self.lost,
            extended_highest_sequence_number=self.extended_highest_sequence_number,
            interarrival_jitter=self.jitter,
            last_sender_report=self._report_middle,
            delay_since_last_sender_report=max(0, delay),
        )
