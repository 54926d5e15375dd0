"""RTP, reordering and RFC 4571 framing of the native plane against the Python ones."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gb28181gw.media.wire.exceptions import FramingError, RtpError
from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rfc4571 import Framer, Framing, frame
from gb28181gw.media.wire.rtp import RtpPacket, is_rtcp
from tests.support import native_codecs

codecs = native_codecs.load()

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)


@FAST
@given(
    st.binary(max_size=60)
    | st.builds(lambda first, rest: bytes((first,)) + rest, st.integers(0x80, 0xBF), st.binary(max_size=60))
)
def test_rtp_packets(data: bytes) -> None:
    found = codecs.parse_rtp(data)
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        assert found is None
    else:
        assert found == (
            packet.payload_type,
            packet.sequence_number,
            packet.timestamp,
            packet.ssrc,
            packet.payload,
            packet.marker,
        )
    assert codecs.is_rtcp(data) == is_rtcp(data)


def datagram(sequence_number: int, payload: bytes, *, padding: int = 0, ssrc: int = 7) -> bytes:
    first = 0xA0 if padding else 0x80
    head = bytes((first, 96)) + (sequence_number & 0xFFFF).to_bytes(2, "big") + bytes(4)
    tail = bytes(padding - 1) + bytes((padding,)) if padding else b""
    return head + ssrc.to_bytes(4, "big") + payload + tail


@FAST
@given(SEEDS)
def test_reordering(seed: int) -> None:
    rng = random.Random(seed)
    window = rng.choice((0.2, 0.2, 0.0, 0.05))
    most = max(window, rng.choice((0.5, 0.0)))
    packets = rng.choice((512, 512, 8, 1))
    oracle = ReorderBuffer(window_s=window, max_window_s=most, max_packets=packets)
    native = codecs.ReorderBuffer(window, most, packets)
    start = rng.choice((0, 65500, rng.randrange(1 << 16)))
    disorder = rng.choice((0.0, 0.05, 0.4))
    reach = rng.choice((2, 30, 700, 4000, 40000))
    now = 0.0
    number = 0
    for _ in range(rng.randrange(1, 400)):
        number += 1
        if rng.random() < disorder:
            number += rng.choice((0, 1, 2, rng.randrange(-reach, reach)))
        now += rng.choice((0.0, 0.001, 0.02, 0.1)) + (40.0 if rng.random() < 0.003 else 0.0)
        payload = number.to_bytes(5, "big", signed=True) * rng.choice((0, 1))
        data = datagram(start + number, payload, padding=rng.choice((0, 0, 4)))
        given_out = oracle.push(RtpPacket.parse(data), now)
        assert native.push(data, now) == _plain(given_out)
        if rng.random() < 0.1:
            now += 0.05
            assert native.poll(now) == _plain(oracle.poll(now))
        assert native.state == _state(oracle)
    assert native.flush() == _plain(oracle.flush())
    assert native.state == _state(oracle)


def _plain(items: list[RtpPacket | Gap]) -> list[object]:
    return [(item.lost, item.restart) if isinstance(item, Gap) else item.payload for item in items]


def _state(oracle: ReorderBuffer) -> tuple[object, ...]:
    return (
        oracle.held,
        oracle.window_s,
        oracle.deadline,
        oracle.lost,
        oracle.reordered,
        oracle.duplicated,
        oracle.late,
        oracle.restarts,
    )


def tcp_stream(rng: random.Random) -> bytes:
    """A connection's bytes: RTP and RTCP in frames, with the vendors' ways and with bytes lost."""
    ssrc = rng.choice((0x0BEBC201, 0x80808080, 1))
    interleaved = rng.random() < 0.25
    out = bytearray()
    if rng.random() < 0.15:
        out += b"\x01\x00" + rng.randbytes(254)
    sequence = rng.randrange(1 << 16)
    for _ in range(rng.randrange(1, 120)):
        kind = rng.random()
        if kind < 0.9:
            sequence += rng.choice((1, 1, 1, 1, 2, 5000))
            payload = rng.randbytes(rng.choice((0, 5, 100, 1400)))
            if rng.random() < 0.05:
                payload += (20).to_bytes(2, "big") + datagram(sequence, b"trapdoor", ssrc=ssrc)
            packet = datagram(sequence, payload, ssrc=ssrc)
        elif kind < 0.95:
            packet = b"\x80\xc8\x00\x06" + ssrc.to_bytes(4, "big") + bytes(20)
        elif kind < 0.97:
            packet = b""
        else:
            ssrc = rng.choice((ssrc, 0x0BEBC202))
            packet = datagram(sequence, b"x" * 30, ssrc=ssrc)
        data = frame(packet)
        if interleaved:
            data = b"$" + bytes((rng.choice((0, 0, 1)),)) + data
        if rng.random() < 0.03:
            data = data[: rng.randrange(len(data) + 1)]  # MED-25
        if rng.random() < 0.02:
            data = native_codecs.damage(rng, data, 1)
        out += data
    return bytes(out)


@FAST
@given(SEEDS)
def test_framing(seed: int) -> None:
    rng = random.Random(seed)
    _compare_framers(rng, tcp_stream(rng))


@FAST
@given(st.binary(max_size=2000), SEEDS)
def test_framing_of_anything(data: bytes, seed: int) -> None:
    _compare_framers(random.Random(seed), data)


def test_framing_is_given_up() -> None:
    noise = random.Random(1).randbytes(700_000)
    _compare_framers(random.Random(2), frame(datagram(1, b"x" * 100)) * 3 + noise)


def _compare_framers(rng: random.Random, data: bytes) -> None:
    ssrc = rng.choice((None, 0x0BEBC201))
    oracle, native = Framer(ssrc), codecs.Framer(ssrc)
    sizes = rng.choice(((1,), (3, 17, 400), (1448,), (65536,)))
    settle = rng.random() < 0.5
    position = 0
    while position < len(data):
        size = rng.choice(sizes)
        piece = data[position : position + size]
        position += size
        found, good = native.feed(piece, settle)
        try:
            expected = oracle.feed(piece)
        except FramingError:
            assert not good
            return
        assert good
        assert found == expected
        framing = list(Framing).index(oracle.framing)
        assert native.state == (
            framing,
            oracle.resyncs,
            oracle.skipped_bytes,
            oracle.quirks,
            oracle.buffered,
        )
