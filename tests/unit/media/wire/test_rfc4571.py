"""RTP over TCP: framing, dialects, and getting back into step."""

from __future__ import annotations

import random

import pytest

from gb28181gw.media.wire import rtcp
from gb28181gw.media.wire.exceptions import FramingError
from gb28181gw.media.wire.rfc4571 import RESYNC_LIMIT, Framer, Framing, frame
from gb28181gw.media.wire.rtp import RtpPacket

SSRC = 200000001


def _packets(count: int, size: int = 700, *, first: int = 0, ssrc: int = SSRC) -> list[bytes]:
    chance = random.Random(first * 1000 + count)
    return [
        RtpPacket(96, (first + n) % 65536, n * 3600, ssrc, chance.randbytes(size)).serialise()
        for n in range(count)
    ]


def _feed(framer: Framer, data: bytes, step: int) -> list[bytes | None]:
    out: list[bytes | None] = []
    for start in range(0, len(data), step):
        out += framer.feed(data[start : start + step])
    return out


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 702, 1000, 65536])
def test_whole_packets_for_any_cut(step: int) -> None:
    packets = _packets(10)
    packets.insert(5, rtcp.build_receiver_report(SSRC, (), "x"))
    framer = Framer()
    assert _feed(framer, b"".join(map(frame, packets)), step) == packets
    assert (framer.framing, framer.resyncs, framer.quirks) == (Framing.LENGTH, 0, set())
    assert framer.buffered == 0


def test_a_packet_is_delivered_with_its_last_byte() -> None:
    packets = _packets(3)
    framer = Framer()
    for packet in packets:
        data = frame(packet)
        assert framer.feed(data[:-1]) == []
        assert framer.feed(data[-1:]) == [packet]


def test_med27_frames_up_to_64_kb() -> None:
    packets = _packets(3, 65_523)
    framer = Framer()
    assert _feed(framer, b"".join(map(frame, packets)), 4096) == packets
    with pytest.raises(ValueError, match="65,535"):
        frame(bytes(65_536))


def test_null_frames_are_passed_over() -> None:
    packets = _packets(2)
    assert Framer().feed(frame(packets[0]) + b"\x00\x00" + frame(packets[1])) == packets


@pytest.mark.parametrize("step", [1, 5, 704, 65536])
def test_med26_interleaved_framing(step: int) -> None:
    packets = _packets(6)
    data = b"".join(b"\x24\x00" + frame(packet) for packet in packets)
    framer = Framer()
    assert _feed(framer, data, step) == packets
    assert framer.framing is Framing.INTERLEAVED
    assert framer.quirks == {"rtp.interleaved_framing"}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("step", [1, 5, 300, 65536])
def test_med28_private_header_is_skipped(step: int, interleaved: bool) -> None:
    packets = _packets(4)
    header = b"\x01\x00\x01" + bytes(253)
    lead = b"\x24\x00" if interleaved else b""
    framer = Framer()
    assert _feed(framer, header + b"".join(lead + frame(packet) for packet in packets), step) == packets
    assert "rtp.ehome_header" in framer.quirks
    assert framer.framing is (Framing.INTERLEAVED if interleaved else Framing.LENGTH)


def test_a_first_packet_of_256_bytes_is_no_private_header() -> None:
    packets = _packets(3, 244)
    framer = Framer()
    assert framer.feed(b"".join(map(frame, packets))) == packets
    assert framer.quirks == set()


@pytest.mark.parametrize("step", [1, 13, 700, 4096, 65536])
@pytest.mark.parametrize("kept", [1, 20, 350, 699])
def test_med25_partial_write(step: int, kept: int) -> None:
    """The corpus case: a frame is cut short and the next one follows at once."""
    packets = _packets(12)
    frames = list(map(frame, packets))
    frames[5] = frames[5][: 2 + 12 + kept]
    framer = Framer()
    out = _feed(framer, b"".join(frames), step)
    delivered = [packet for packet in out if packet is not None]
    assert out.count(None) == framer.resyncs == 1
    assert "rtp.framing_lost" in framer.quirks
    good = [packet for packet in packets if packet in delivered]
    assert good[:5] == packets[:5]
    assert good[-5:] == packets[-5:]  # at most the cut one and its neighbour are gone
    # A packet that swallowed its successor may go out before that is seen, but then the gap comes right behind.
    for index, packet in enumerate(out):
        if packet is not None and packet not in packets:
            assert out[index + 1] is None


def test_med25_the_neighbour_is_saved_when_the_bytes_are_there() -> None:
    packets = _packets(12)
    frames = list(map(frame, packets))
    frames[5] = frames[5][:300]
    out = Framer().feed(b"".join(frames))
    assert out == [*packets[:5], None, *packets[6:]]


def test_med25_garbage_between_frames() -> None:
    packets = _packets(8)
    frames = list(map(frame, packets))
    framer = Framer()
    out = framer.feed(b"".join(frames[:4]) + b"\x13" * 40 + b"".join(frames[4:]))
    assert [packet for packet in out if packet is not None] == packets[:3] + packets[4:]
    assert framer.skipped_bytes == len(frames[3]) + 40


def test_med25_interleaved_resync() -> None:
    packets = _packets(8)
    frames = [b"\x24\x00" + frame(packet) for packet in packets]
    frames[3] = frames[3][:100]
    out = Framer().feed(b"".join(frames))
    assert out == [*packets[:3], None, *packets[4:]]


def test_f09_framing_lost_for_good_ends_within_256_kb() -> None:
    framer = Framer()
    framer.feed(b"".join(map(frame, _packets(4))))
    chance = random.Random(3)
    with pytest.raises(FramingError):
        for _ in range(RESYNC_LIMIT // 1000 + 70):
            framer.feed(bytes(byte & 0x7F for byte in chance.randbytes(1000)))
    assert framer.skipped_bytes >= RESYNC_LIMIT


def test_a_new_source_on_the_connection_is_followed() -> None:
    first, second = _packets(4), _packets(4, ssrc=77)
    framer = Framer()
    out = framer.feed(b"".join(map(frame, first + second)))
    assert out == first + second
    assert framer.resyncs == 0


def test_stream_that_begins_in_the_middle_is_found() -> None:
    packets = _packets(120)
    framer = Framer(ssrc=SSRC)
    out = framer.feed(b"".join(map(frame, packets))[100:])
    assert out == [None, *packets[1:]]


def test_stream_that_begins_in_the_middle_without_known_ssrc() -> None:
    packets = [RtpPacket(96, n, 0, SSRC, b"\x11" * 700).serialise() for n in range(8)]
    framer = Framer()
    out = framer.feed(b"".join(map(frame, packets))[100:])
    assert out == [None, *packets[1:]]


def test_inv03_another_ssrc_than_the_expected_one_is_believed() -> None:
    packets = _packets(4)
    assert _feed(Framer(ssrc=5), b"".join(map(frame, packets)), 50) == packets[:4]
