"""Streams are driven by hand with a clock of the test; nothing waits."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.sim.content import ContentSpec, Loop, Picture, Sound, make
from gb28181gw.sim.media_sender import BURST, PsSource, Pump, RtpStream, TsSource, wire_ssrc
from gb28181gw.sim.ps_edit import map_entries, units
from gb28181gw.sim.quirks import Quirk

SSRC = 200001234
GOP = 25


@dataclass
class ListLink:
    max_payload: int = 1400
    congested: bool = False
    closed: bool = False
    packets: list[bytes] = field(default_factory=list)

    def send(self, packet: bytes) -> int:
        self.packets.append(packet)
        return len(packet)

    def close(self) -> None:
        self.closed = True


def loop(audio: bool = True, size: int = 200) -> Loop:
    """A loop of fifty small pictures, a key frame every 25, with 40 ms of sound in each."""
    pictures = tuple(
        Picture(b"\0\0\0\1" + bytes((0x67 if n % GOP == 0 else 0x41,)) + bytes(size), n % GOP == 0, 0)
        for n in range(50)
    )
    sound = Sound(tuple(bytes((n,)) * 320 for n in range(50)), 320, 8000) if audio else Sound()
    return Loop(
        video=Codec.H264,
        audio=Codec.PCMA if audio else None,
        fps=Fraction(25),
        width=64,
        height=64,
        pictures=pictures,
        sound=sound,
    )


def stream(
    *quirks: Quirk, content: Loop | None = None, link: ListLink | None = None
) -> tuple[RtpStream, ListLink]:
    link = link or ListLink()
    rows = frozenset(quirks)
    made = RtpStream(
        PsSource(content or loop(), rows, link.max_payload),
        link,
        ssrc=SSRC,
        payload_type=96,
        rng=random.Random(5),
        quirks=rows,
    )
    return made, link


def play(made: RtpStream, seconds: float, start: float = 100.0, number: int = 0) -> None:
    """Advance as the pump would."""
    if not made.running:
        made.start(start, number)
    now = start
    while now < start + seconds:
        now = made.advance(now)


def parsed(link: ListLink) -> list[RtpPacket]:
    return [RtpPacket.parse(packet) for packet in link.packets]


def pts_of(packet: RtpPacket) -> int | None:
    """PTS of the PES in a one-packet pack."""
    for kind, unit in units(packet.payload):
        if kind >= 0xC0 and unit[7] & 0x80:
            raw = unit[9:14]
            return (raw[0] >> 1 & 7) << 30 | raw[1] << 22 | (raw[2] >> 1) << 15 | raw[3] << 7 | raw[4] >> 1
    return None


def video(link: ListLink) -> list[RtpPacket]:
    return [packet for packet in parsed(link) if any(kind == 0xE0 for kind, _ in units(packet.payload))]


def audio(link: ListLink) -> list[RtpPacket]:
    return [packet for packet in parsed(link) if any(kind == 0xC0 for kind, _ in units(packet.payload))]


def test_a_second_is_25_pictures_and_25_sounds() -> None:
    made, link = stream()
    play(made, 1.0)
    packets = parsed(link)
    assert len(video(link)) == len(audio(link)) == 25
    assert {packet.ssrc for packet in packets} == {SSRC}
    assert {packet.payload_type for packet in packets} == {96}
    first = packets[0].sequence_number
    assert [packet.sequence_number for packet in packets] == [
        (first + n) % 65536 for n in range(len(packets))
    ]
    stamps = [packet.timestamp for packet in packets]
    assert len(set(stamps)) == len(stamps)
    assert [b - a for a, b in zip(stamps[::2], stamps[2::2], strict=False)] == [3600] * 24


def test_timestamps_go_on_over_the_seam() -> None:
    made, link = stream()
    play(made, 5.0)
    times = [pts_of(packet) for packet in video(link)]
    assert times == [3600 * n for n in range(125)]


def test_a_big_picture_is_cut_and_marked_at_its_end() -> None:
    made, link = stream(content=loop(audio=False, size=5000))
    play(made, 0.03)
    packets = parsed(link)
    assert [packet.marker for packet in packets] == [False, False, False, True]
    assert {packet.timestamp for packet in packets} == {packets[0].timestamp}
    assert max(len(packet.payload) for packet in packets) == 1400


def test_a_key_frame_is_spread_over_its_interval() -> None:
    made, link = stream(content=loop(audio=False, size=100_000))
    made.start(100.0, 0)
    later = made.advance(100.0)
    assert len(link.packets) == BURST
    assert 100.0 < later < 100.01
    made.advance(later)
    assert len(link.packets) == 2 * BURST


def test_late_by_more_than_a_second_goes_on_from_now() -> None:
    made, link = stream()
    made.start(100.0, 0)
    made.advance(100.0)
    sent = len(link.packets)
    assert made.advance(160.0) == pytest.approx(160.04)
    assert len(link.packets) == sent + 2


def test_a_congested_tcp_link_skips_to_the_next_key_frame() -> None:
    made, link = stream()
    made.start(100.0, 0)
    made.advance(100.0)
    link.congested = True
    made.advance(100.05)
    link.congested = False
    play(made, 1.0, start=100.08)
    assert made.dropped_frames == 24
    assert made.frames > 1


def test_streams_of_one_source_share_the_packing() -> None:
    source = PsSource(loop())
    assert source.bursts(3, 0) is source.bursts(3, 0)
    assert source.bursts(3, 0) != source.bursts(3, 90)


def test_iframe_command_goes_back_to_a_key_frame_without_a_step_in_time() -> None:
    made, link = stream(content=loop(audio=False))
    play(made, 0.39)
    made.force_key()
    play(made, 0.1, start=100.4)
    packets = video(link)
    keys = [n for n, packet in enumerate(packets) if any(kind == 0xBC for kind, _ in units(packet.payload))]
    assert keys == [0, 10]
    assert [pts_of(packet) for packet in packets] == [3600 * n for n in range(len(packets))]


def test_stop_closes_the_link_and_drops_what_waits() -> None:
    made, link = stream(content=loop(size=100_000))
    made.start(100.0, 0)
    made.advance(100.0)
    made.stop()
    assert link.closed
    assert not made.running


# --- rows ---------------------------------------------------------------------------------------------------------


def test_inv03_random_ssrc() -> None:
    made, link = stream(Quirk.INV_03)
    play(made, 0.1)
    assert {packet.ssrc for packet in parsed(link)} == {made.ssrc}
    assert made.ssrc != SSRC


def test_inv03_zero_ssrc() -> None:
    assert wire_ssrc(SSRC, frozenset({Quirk.INV_03_ZERO}), random.Random(1)) == 0


def test_inv03_hex_digits_read_as_hexadecimal() -> None:
    assert wire_ssrc(SSRC, frozenset({Quirk.INV_03_HEX}), random.Random(1)) == 0x00001234


def test_inv03_swapped_bytes() -> None:
    swapped = wire_ssrc(SSRC, frozenset({Quirk.INV_03_SWAPPED}), random.Random(1))
    assert swapped.to_bytes(4, "big") == SSRC.to_bytes(4, "little")


def test_med16_audio_declared_never_sent() -> None:
    made, link = stream(Quirk.MED_16)
    play(made, 1.0)
    assert audio(link) == []
    psm = next(unit for kind, unit in units(video(link)[0].payload) if kind == 0xBC)
    assert 0x90 in {kind for kind, _ in map_entries(psm)}


def test_med17_audio_begins_after_five_seconds() -> None:
    made, link = stream(Quirk.MED_17)
    play(made, 6.0)
    first = pts_of(audio(link)[0])
    assert first == 5 * 90_000


def test_med19_payload_type_40() -> None:
    made, link = stream(Quirk.MED_19)
    play(made, 0.1)
    assert {packet.payload_type for packet in parsed(link)} == {40}


def test_med20_timestamp_always_zero() -> None:
    made, link = stream(Quirk.MED_20)
    play(made, 0.2)
    assert {packet.timestamp for packet in parsed(link)} == {0}


def test_med21_pts_jumps_an_hour_and_back() -> None:
    made, link = stream(Quirk.MED_21)
    play(made, 11.0)
    times = [pts_of(packet) or 0 for packet in video(link)]
    steps = [second - first for first, second in pairwise(times)]
    assert steps[124] == 3600 * 90_000 + 3600
    assert steps[249] == -3600 * 90_000 + 3600
    assert set(steps) == {3600, steps[124], steps[249]}


def test_med22_marker_never_set() -> None:
    made, link = stream(Quirk.MED_22)
    play(made, 0.2)
    assert not any(packet.marker for packet in parsed(link))


def test_med22_all_packets_marked() -> None:
    made, link = stream(Quirk.MED_22_ALL, content=loop(size=5000))
    play(made, 0.2)
    assert all(packet.marker for packet in parsed(link))


def test_med23_sequence_restarts() -> None:
    made, link = stream(Quirk.MED_23)
    play(made, 11.0)
    assert [packet.sequence_number for packet in parsed(link)].count(0) == 3


def test_med29_rtcp_of_another_ssrc_first() -> None:
    made, link = stream(Quirk.MED_29)
    play(made, 0.1)
    first = link.packets[0]
    assert (first[0] >> 6, first[1], len(first)) == (2, 200, 28)
    assert int.from_bytes(first[4:8], "big") != SSRC


def test_med30_a_stranger_in_between() -> None:
    made, link = stream(Quirk.MED_30)
    play(made, 1.0)
    others = [packet for packet in parsed(link) if packet.ssrc != SSRC]
    assert len({packet.ssrc for packet in others}) == 1
    assert len(others) >= 5


def test_med34_no_key_frame_until_asked() -> None:
    made, link = stream(Quirk.MED_34, content=loop(audio=False))
    play(made, 3.0, number=3)
    assert not any(kind == 0xBC for packet in video(link) for kind, _ in units(packet.payload))
    made.force_key()
    play(made, 0.1, start=103.0)
    assert any(kind == 0xBC for packet in video(link) for kind, _ in units(packet.payload))


def test_med34_a_key_frame_comes_by_itself_after_20_seconds() -> None:
    made, link = stream(Quirk.MED_34, content=loop(audio=False))
    play(made, 22.0, number=3)
    keys = [
        n for n, packet in enumerate(video(link)) if any(kind == 0xBC for kind, _ in units(packet.payload))
    ]
    assert keys
    assert keys[0] > 20 * 24


def test_med18_transport_stream() -> None:
    content = make(ContentSpec(width=64, height=64, loop_s=1, gop=25, bitrate_kbps=64))
    source = TsSource(content)
    data = b"".join(
        chunk for number in range(10) for burst in source.bursts(number, 0) for chunk in burst.chunks
    )
    source.release()
    assert len(data) % 188 == 0
    assert {data[position] for position in range(0, len(data), 188)} == {0x47}


class ClockLoop:
    """The two methods of an event loop that the pump uses, with time in the hands of the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, work: Callable[[], None]) -> object:
        entry = (when, work)
        self.timers.append(entry)
        timers = self.timers

        class Handle:
            def cancel(self) -> None:
                timers.remove(entry)

        return Handle()

    def run(self, seconds: float) -> int:
        """Run timers for so long; returns how many."""
        end, count = self.now + seconds, 0
        while self.timers and min(self.timers)[0] <= end:
            entry = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(entry)
            self.now = max(self.now, entry[0])
            entry[1]()
            count += 1
        self.now = end
        return count


def test_pump_serves_streams_that_are_a_hair_apart() -> None:
    clock = ClockLoop()
    pump = Pump(clock)  # type: ignore[arg-type]  # two methods of a loop are enough
    made = []
    for step in range(40):
        clock.run(0.00013 * step)
        one, link = stream(content=loop())
        pump.start(one)
        made.append((one, link))
    turns = clock.run(4.0)
    assert turns < 40 * 100 * 1.1
    for one, link in made:
        # The first began a tenth of a second before the last.
        assert 100 <= len(video(link)) <= 104
        assert one.running
    assert pump.late == 0
    pump.close()
    assert not any(one.running for one, _ in made)


def test_pump_starts_at_the_key_frame_before_now() -> None:
    clock = ClockLoop()
    pump = Pump(clock)  # type: ignore[arg-type]  # two methods of a loop are enough
    clock.now += 1.5
    first, _ = stream()
    pump.start(first)
    assert first.number == 25
    second, _ = stream()
    pump.start(second, in_gop=True)
    assert second.number == 26


def test_pump_shares_a_packer_unless_a_row_depends_on_the_stream() -> None:
    pump = Pump(ClockLoop())  # type: ignore[arg-type]  # two methods of a loop are enough
    content = loop()
    none: frozenset[Quirk] = frozenset()
    shared = pump.source_of(content, none, 1400)
    assert pump.source_of(content, frozenset({Quirk.INV_01}), 1400) is shared
    assert pump.source_of(content, frozenset({Quirk.MED_01}), 1400) is not shared
    assert pump.source_of(content, none, 60_000) is not shared
    own = frozenset({Quirk.MED_21})
    assert pump.source_of(content, own, 1400) is not pump.source_of(content, own, 1400)
