"""The media source rule, packet by packet."""

from __future__ import annotations

import random

import pytest

from gb28181gw.media.reference.source import HostSet, Looks, Source, SourceGate, Verdict, ssrc_variant

DEVICE: Source = ("203.0.113.7", 30000)
MOVED: Source = ("203.0.113.7", 31999)
ROAMED: Source = ("198.51.100.9", 30000)
STRANGER: Source = ("192.0.2.66", 4444)
SSRC = 200000001
PS = frozenset({96})


class Feed:
    """A gate with a clock and a sender whose sequence goes on by itself."""

    def __init__(
        self, *, strict: bool = False, expected: frozenset[str] = frozenset({"203.0.113.7"})
    ) -> None:
        self.gate = SourceGate(ssrc=SSRC, payload_types=PS, expected=expected, strict=strict)
        self.now = 100.0
        self.sequence = 65500

    def packet(
        self,
        source: Source = DEVICE,
        *,
        ssrc: int = SSRC,
        pt: int = 96,
        sequence: int | None = None,
        looks: Looks = Looks.PLAUSIBLE,
        after: float = 0.01,
    ) -> Verdict:
        self.now += after
        if sequence is None:
            self.sequence = (self.sequence + 1) & 0xFFFF
            sequence = self.sequence
        return self.gate.receive(self.now, source, ssrc, pt, sequence, looks, b"%d" % sequence)

    def latch(self) -> None:
        assert self.packet() is Verdict.HOLD
        assert self.packet() is Verdict.LATCHED
        self.gate.take_held()


def test_latches_on_two_consecutive_packets_and_returns_both() -> None:
    feed = Feed()
    assert feed.packet() is Verdict.HOLD
    assert feed.packet() is Verdict.LATCHED
    assert feed.gate.take_held() == [b"65501", b"65502"]
    assert feed.gate.take_held() == []
    assert feed.gate.source == DEVICE
    assert feed.packet() is Verdict.ACCEPT


def test_doubled_packet_is_not_a_second_one() -> None:
    feed = Feed()
    assert feed.packet(sequence=10) is Verdict.HOLD
    assert feed.packet(sequence=10) is Verdict.HOLD
    assert feed.packet(sequence=11) is Verdict.LATCHED
    assert feed.gate.take_held() == [b"10", b"11"]


def test_f09_sequence_wraps_without_a_break() -> None:
    feed = Feed()
    feed.latch()
    assert [feed.packet() for _ in range(200)] == [Verdict.ACCEPT] * 200
    assert feed.gate.sequence < 1000


def test_reordered_packets_of_the_latched_source_are_accepted() -> None:
    feed = Feed()
    feed.latch()
    base = feed.sequence
    for offset in (3, 1, 2, 5, 4):
        assert feed.packet(sequence=base + offset) is Verdict.ACCEPT
    assert feed.gate.sequence == base + 5


def test_foreign_payload_type_waits_until_the_payload_is_recognised_med19() -> None:
    feed = Feed()
    assert feed.packet(pt=40) is Verdict.HOLD
    assert feed.packet(pt=40) is Verdict.HOLD
    assert feed.packet(pt=40, looks=Looks.RECOGNISED) is Verdict.LATCHED
    assert len(feed.gate.take_held()) == 3


def test_inv03_other_ssrc_of_the_expected_address_is_accepted_after_the_payload_check() -> None:
    feed = Feed()
    assert feed.packet(ssrc=77) is Verdict.HOLD
    assert feed.packet(ssrc=77) is Verdict.HOLD
    assert feed.packet(ssrc=77, looks=Looks.RECOGNISED) is Verdict.LATCHED
    assert feed.gate.ssrc == 77
    assert feed.gate.take_mismatch() == 77
    assert feed.gate.take_mismatch() is None


def test_inv03_other_ssrc_of_another_address_is_dropped() -> None:
    feed = Feed()
    feed.gate.acknowledged(0.0)
    for _ in range(20):
        assert feed.packet(STRANGER, ssrc=77, looks=Looks.RECOGNISED) is Verdict.DROP
    assert feed.gate.take_mismatch() == 77
    assert feed.gate.source is None


def test_inv03_strict_drops_an_ssrc_that_was_not_agreed() -> None:
    feed = Feed(strict=True)
    assert feed.packet(ssrc=77, looks=Looks.RECOGNISED) is Verdict.DROP
    assert feed.packet(ssrc=77, looks=Looks.RECOGNISED) is Verdict.DROP
    feed.latch()


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (0, "zero"),
        (int.from_bytes(SSRC.to_bytes(4, "big"), "little"), "byte_swapped"),
        (int("0200000001", 16) & 0xFFFFFFFF, "read_as_hex"),
        (5, "other"),
    ],
)
def test_inv03_how_the_ssrc_came_about(seen: int, name: str) -> None:
    assert ssrc_variant(seen, frozenset({SSRC})) == name


def test_inv02_answered_ssrc_is_agreed_in_place() -> None:
    feed = Feed(strict=True)
    feed.gate.agree(999)
    assert feed.packet(ssrc=999) is Verdict.HOLD
    assert feed.packet(ssrc=999) is Verdict.LATCHED
    assert feed.gate.take_mismatch() is None


def test_inv02_device_that_sent_before_its_answer_stays_latched() -> None:
    feed = Feed()
    feed.packet(ssrc=999, looks=Looks.RECOGNISED)
    assert feed.packet(ssrc=999) is Verdict.LATCHED
    feed.gate.agree(999)
    assert feed.packet(ssrc=999) is Verdict.ACCEPT


def test_nat_other_address_waits_two_seconds_after_the_ack() -> None:
    feed = Feed()
    assert {feed.packet(ROAMED) for _ in range(20)} == {Verdict.HOLD}, "no ACK yet"
    feed.gate.acknowledged(feed.now)
    assert {feed.packet(ROAMED, after=0.1) for _ in range(19)} == {Verdict.HOLD}
    assert feed.packet(ROAMED, after=0.2) is Verdict.LATCHED
    assert feed.gate.by_grace


def test_nat_expected_address_that_sent_keeps_others_out() -> None:
    feed = Feed()
    feed.gate.acknowledged(feed.now)
    feed.packet(STRANGER, after=3)
    assert feed.packet(DEVICE, sequence=5) is Verdict.HOLD
    assert feed.packet(STRANGER) is Verdict.HOLD, "the device sends, though nothing has latched yet"
    assert feed.packet(DEVICE, sequence=6) is Verdict.LATCHED


def test_nat_expected_address_takes_over_from_one_that_latched_by_grace() -> None:
    feed = Feed()
    feed.gate.acknowledged(feed.now)
    feed.packet(STRANGER, after=3)
    assert feed.packet(STRANGER) is Verdict.LATCHED
    feed.gate.take_held()
    assert feed.packet(DEVICE, sequence=40000) is Verdict.HOLD
    assert feed.packet(DEVICE, sequence=40001) is Verdict.TAKEN_OVER
    assert feed.gate.take_held() == [b"40000", b"40001"]
    assert feed.gate.source == DEVICE
    assert feed.packet(STRANGER) is Verdict.DROP


def test_s06_strict_never_latches_on_another_address() -> None:
    feed = Feed(strict=True)
    feed.gate.acknowledged(0.0)
    assert {feed.packet(STRANGER, after=1) for _ in range(10)} == {Verdict.DROP}


def test_s06_injection_during_play_is_dropped_and_reported() -> None:
    feed = Feed()
    feed.latch()
    randomness = random.Random(7)
    accepted = 0
    for _ in range(2000):
        assert feed.packet(after=0.001) is Verdict.ACCEPT
        for _ in range(10):
            verdict = feed.packet(STRANGER, sequence=randomness.randrange(65536), after=0.0)
            accepted += verdict not in (Verdict.DROP, Verdict.HOLD)
    assert accepted == 0
    assert feed.gate.source == DEVICE
    assert feed.gate.foreign == 20000
    assert feed.gate.take_conflict()
    assert not feed.gate.take_conflict()


@pytest.mark.parametrize("order", ["random", "sweep"])
def test_s06_injection_during_silence_finds_no_window(order: str) -> None:
    feed = Feed()
    feed.latch()
    randomness = random.Random(11)
    for index in range(100_000):
        sequence = randomness.randrange(65536) if order == "random" else (30000 + index) & 0xFFFF
        verdict = feed.packet(STRANGER, sequence=sequence, after=0.0001)
        assert verdict in (Verdict.DROP, Verdict.HOLD)
    assert feed.gate.source == DEVICE


def test_f07_port_of_the_same_host_moves_after_200_ms() -> None:
    feed = Feed()
    feed.latch()
    for _ in range(50):
        feed.packet(after=0.04)
    verdicts = [feed.packet(MOVED, after=0.02) for _ in range(12)]
    assert verdicts[:9] == [Verdict.HOLD] * 9
    assert Verdict.SWITCHED in verdicts[9:11]
    assert feed.gate.source == MOVED
    assert len(feed.gate.take_held()) >= 10, "nothing of the gap is lost"
    assert feed.gate.ssrc == SSRC


def test_f07_old_source_that_still_sends_keeps_the_stream() -> None:
    feed = Feed()
    feed.latch()
    for _ in range(100):
        assert feed.packet(after=0.02) is Verdict.ACCEPT
        assert feed.packet(MOVED, after=0.02) is Verdict.HOLD
    assert feed.gate.source == DEVICE


def test_f07_another_host_moves_after_two_seconds() -> None:
    feed = Feed()
    feed.latch()
    silent_since = feed.now
    verdict = Verdict.DROP
    while verdict is not Verdict.SWITCHED:
        verdict = feed.packet(ROAMED, after=0.05)
        assert feed.now < silent_since + 3
    assert feed.now >= silent_since + 2
    assert feed.gate.source == ROAMED


def test_reg18_new_signalling_address_counts_as_near() -> None:
    feed = Feed()
    feed.latch()
    feed.gate.expect(frozenset({ROAMED[0]}))
    verdicts = [feed.packet(ROAMED, after=0.03) for _ in range(8)]
    assert verdicts[-1] is Verdict.SWITCHED


def test_switch_needs_the_same_ssrc_payload_type_and_sequence() -> None:
    for change in ({"ssrc": 5}, {"pt": 8}, {"sequence": 30000}):
        feed = Feed()
        feed.latch()
        feed.now += 3
        assert feed.packet(MOVED, **change) is Verdict.DROP  # type: ignore[arg-type]
        verdicts = {feed.packet(MOVED, after=0.1) for _ in range(20)}
        assert verdicts == {Verdict.DROP}, "refused for a while"


def test_strict_moves_only_within_the_expected_addresses() -> None:
    feed = Feed(strict=True)
    feed.latch()
    feed.now += 5
    assert {feed.packet(ROAMED) for _ in range(20)} == {Verdict.DROP}
    assert Verdict.SWITCHED in {feed.packet(MOVED) for _ in range(20)}


def test_med23_sequence_jump_is_a_new_epoch_after_eight_packets() -> None:
    feed = Feed()
    feed.latch()
    feed.sequence = 30000
    assert [feed.packet() for _ in range(7)] == [Verdict.HOLD] * 7
    assert feed.packet() is Verdict.EPOCH
    assert len(feed.gate.take_held()) == 8
    assert feed.packet() is Verdict.ACCEPT


def test_new_ssrc_of_the_latched_source_is_a_new_epoch() -> None:
    feed = Feed()
    feed.latch()
    assert [feed.packet(ssrc=31337) for _ in range(8)][-1] is Verdict.EPOCH
    assert feed.gate.ssrc == 31337


def test_med30_second_ssrc_of_the_same_address_never_mixes_in() -> None:
    feed = Feed()
    feed.latch()
    for index in range(200):
        assert feed.packet() is Verdict.ACCEPT
        assert feed.packet(ssrc=31337, sequence=index) is Verdict.HOLD
    assert feed.gate.ssrc == SSRC
    assert feed.gate.take_mismatch() == 31337


def test_med30_agreed_ssrc_wins_over_a_locked_one_that_was_not() -> None:
    feed = Feed()
    feed.packet(ssrc=31337, looks=Looks.RECOGNISED)
    assert feed.packet(ssrc=31337) is Verdict.LATCHED
    verdicts = []
    for index in range(10):
        feed.packet(ssrc=31337)
        verdicts.append(feed.packet(sequence=index))
    assert Verdict.EPOCH in verdicts
    assert feed.gate.ssrc == SSRC


def test_strict_ignores_an_epoch_with_an_ssrc_that_was_not_agreed() -> None:
    feed = Feed(strict=True)
    feed.latch()
    assert Verdict.EPOCH not in {feed.packet(ssrc=31337) for _ in range(30)}
    assert feed.gate.ssrc == SSRC


def test_unlatched_tcp_connection_lets_the_next_one_in() -> None:
    feed = Feed()
    first, second = ("203.0.113.7", 5000, 1), ("203.0.113.7", 5001, 2)
    feed.packet(first)
    assert feed.packet(first) is Verdict.LATCHED
    feed.gate.unlatch()
    assert feed.packet(second, sequence=9) is Verdict.HOLD
    assert feed.packet(second, sequence=10) is Verdict.LATCHED


def test_strangers_cannot_fill_the_table_against_the_device() -> None:
    feed = Feed()
    for index in range(50):
        feed.packet(("192.0.2.1", 1000 + index), sequence=index * 100)
    feed.latch()
    assert feed.gate.source == DEVICE


def test_i10_held_packets_and_tables_are_bounded() -> None:
    feed = Feed()
    for index in range(3000):
        feed.packet(STRANGER)
        feed.packet((f"10.0.{index % 256}.1", index), sequence=1)
    assert sum(len(run.held) for run in feed.gate._candidates.values()) <= 4 * 64
    feed.latch()
    for index in range(3000):
        feed.packet((f"10.{index // 256}.{index % 256}.1", 9), sequence=40000)
    assert len(feed.gate._refused) <= 256


def test_payload_that_is_no_media_never_counts() -> None:
    feed = Feed()
    assert {feed.packet(looks=Looks.NOTHING) for _ in range(10)} == {Verdict.DROP}
    assert feed.gate.source is None


def test_host_set_takes_addresses_and_networks_and_skips_nonsense() -> None:
    hosts = HostSet(frozenset({"10.1.2.3", "198.51.0.0/16", "camera.local", "2001:db8::/40"}))
    assert hosts
    assert "10.1.2.3" in hosts
    assert "::ffff:10.1.2.3" in hosts
    assert "198.51.7.7" in hosts
    assert "2001:db8:1::5" in hosts
    assert "10.1.2.4" not in hosts
    assert not HostSet(frozenset({"camera.local"}))


def test_strict_with_nothing_known_believes_nobody() -> None:
    feed = Feed(strict=True, expected=frozenset())
    assert {feed.packet() for _ in range(5)} == {Verdict.DROP}


def test_nat_with_nothing_known_latches_at_once() -> None:
    feed = Feed(expected=frozenset())
    feed.packet(STRANGER)
    assert feed.packet(STRANGER) is Verdict.LATCHED
