"""The SIP trace and its capture files."""

from __future__ import annotations

import ipaddress
import struct
from datetime import timedelta, timezone

import pytest

from gb28181gw.observability.pcap import _checksum, write_pcap
from gb28181gw.observability.trace import Direction, SipTrace, show_message
from gb28181gw.sip.path import Path

PATH = Path("udp", "192.0.2.10", 5061, "192.0.2.1", 5060)
V6 = Path("tcp", "2001:db8::10", 40000, "2001:db8::1", 5060, 7)
KEEPALIVE = b"MESSAGE sip:x SIP/2.0\r\nCSeq: 9 MESSAGE\r\n\r\n<Notify><CmdType>Keepalive</CmdType></Notify>"
OK = b"SIP/2.0 200 OK\r\nCSeq: 9 MESSAGE\r\n\r\n"


def message(number: int, size: int = 0) -> bytes:
    return b"OPTIONS sip:x SIP/2.0\r\nCSeq: %d OPTIONS\r\n\r\n" % number + b"x" * size


def make(**more: int) -> SipTrace:
    return SipTrace(zone=timezone(timedelta(hours=8)), wall=lambda: 1_700_000_000.5, **more)


def test_messages_come_back_in_order_with_their_addresses() -> None:
    trace = make()
    trace.record("d", Direction.IN, PATH, message(1))
    trace.record("d", Direction.OUT, PATH, OK)
    trace.record("other", Direction.IN, V6, message(2))
    first, second = trace.messages("d")
    assert (first.direction, second.direction) == (Direction.IN, Direction.OUT)
    assert (first.remote, first.local, first.transport) == ("192.0.2.10:5061", "192.0.2.1:5060", "udp")
    assert first.timestamp == "2023-11-15T06:13:20.500+08:00"
    assert (first.first_line, first.cseq) == ("OPTIONS sip:x SIP/2.0", "1 OPTIONS")
    assert [m.number for m in trace.messages("d", after=first.number)] == [second.number]
    assert trace.messages("other")[0].remote == "[2001:db8::10]:40000"
    assert trace.messages("nobody") == []


def test_the_ring_keeps_the_newest() -> None:
    trace = make(per_device=3)
    for number in range(10):
        trace.record("d", Direction.IN, PATH, message(number))
    assert [m.cseq for m in trace.messages("d")] == ["7 OPTIONS", "8 OPTIONS", "9 OPTIONS"]
    assert [m.cseq for m in trace.messages("d", limit=1)] == ["9 OPTIONS"]


def test_keepalives_do_not_push_the_rest_out() -> None:
    trace = make(per_device=3)
    trace.record("d", Direction.IN, PATH, message(1))
    for _ in range(50):
        trace.record("d", Direction.IN, PATH, KEEPALIVE)
        trace.record("d", Direction.OUT, PATH, OK)
    trace.record("d", Direction.OUT, PATH, message(2))
    assert [m.cseq for m in trace.messages("d")] == ["1 OPTIONS", "9 MESSAGE", "9 MESSAGE", "2 OPTIONS"]
    assert trace.keepalives("d") == 50
    assert trace.keepalives("nobody") == 0


def test_memory_is_bounded_over_all_devices() -> None:
    trace = make(max_bytes=100_000)
    for number in range(2000):
        trace.record(f"d{number % 100}", Direction.IN, PATH, message(number, 500))
    assert trace.bytes <= 100_000
    kept = [int(m.cseq.split()[0]) for n in range(100) for m in trace.messages(f"d{n}")]
    assert sorted(kept) == list(range(2000 - len(kept), 2000))
    for number in range(100):
        trace.forget(f"d{number}")
    assert trace.bytes == 0


def test_the_order_is_forgotten_with_the_messages() -> None:
    trace = make(per_device=2)
    for number in range(1000):
        trace.record("d", Direction.IN, PATH, message(number))
    assert len(trace._order) <= 8


def test_a_long_message_is_cut_and_says_its_length() -> None:
    trace = make()
    trace.record("d", Direction.IN, PATH, message(1, 50_000))
    (kept,) = trace.messages("d")
    assert kept.bytes > 50_000
    assert len(kept.text) == 16_384


@pytest.mark.parametrize(
    "header",
    [
        b'Authorization: Digest username="u", response="0123456789abcdef0123456789abcdef"',
        b"Authorization: Digest username=u,response=0123456789abcdef0123456789abcdef",
        b"X: password=0123456789abcdef",
    ],
)
def test_o05_s14_a_trace_has_no_credentials(header: bytes) -> None:
    text = show_message(b"REGISTER sip:x SIP/2.0\r\n" + header + b"\r\n\r\n")
    assert "0123456789abcdef" not in text
    assert "REGISTER sip:x SIP/2.0\r\n" in text


def test_s14_a_terminal_gets_no_control_characters() -> None:
    text = show_message(b"MESSAGE sip:\x1b[2J SIP/2.0\r\n\tfolded\x00\r\n\r\n\xc3\xfc")
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\\x1b[2J" in text
    assert "\r\n\tfolded" in text


def register(sender: str) -> bytes:
    return (
        b"REGISTER sip:x SIP/2.0\r\nFrom: <sip:%s@3402000000>;tag=1\r\nCSeq: 1 REGISTER\r\n\r\n"
        % sender.encode()
    )


def test_senders_that_are_no_devices_are_kept_by_the_id_they_give() -> None:
    trace = make()
    trace.record_stranger(Direction.IN, PATH, register("340"))
    trace.record_stranger(Direction.OUT, PATH, b"SIP/2.0 401 X\r\nf:sip:340@a;tag=1\r\n\r\n")
    trace.record_stranger(Direction.IN, PATH, b"nonsense from nobody")
    trace.record("340", Direction.IN, PATH, message(3))
    assert [m.first_line.split()[0] for m in trace.messages("340")] == ["REGISTER", "SIP/2.0", "OPTIONS"]
    trace.forget("340")
    assert trace.messages("340") == []


def test_i10_strangers_are_bounded_and_push_no_device_out() -> None:
    trace = make()
    trace.record("d1", Direction.IN, PATH, message(1))
    for number in range(500):
        trace.record_stranger(Direction.IN, PATH, register(f"s{number}"))
        trace.record_stranger(Direction.IN, PATH, register("d1"))
    assert len(trace._strangers) == 100
    assert trace.messages("s0") == []
    assert len(trace.messages("s499")) == 1
    found = trace.messages("d1")
    assert found[0].cseq == "1 OPTIONS"
    assert len(found) == 21


def read_pcap(data: bytes) -> list[tuple[float, bytes]]:
    magic, major, minor, _, _, _, link = struct.unpack("<IHHiIII", data[:24])
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 101)
    found, at = [], 24
    while at < len(data):
        seconds, micros, kept, length = struct.unpack("<IIII", data[at : at + 16])
        assert kept == length
        found.append((seconds + micros / 1e6, data[at + 16 : at + 16 + kept]))
        at += 16 + kept
    return found


def test_the_capture_has_valid_ip_and_udp() -> None:
    trace = make()
    trace.record("d", Direction.IN, PATH, message(1))
    trace.record("d", Direction.OUT, PATH, OK)
    packets = read_pcap(write_pcap(trace.messages("d")))
    assert [time for time, _ in packets] == [1_700_000_000.5] * 2
    for (_, packet), ports, raw in zip(packets, ((5061, 5060), (5060, 5061)), (message(1), OK), strict=True):
        assert packet[0] == 0x45
        assert struct.unpack("!H", packet[2:4])[0] == len(packet)
        assert _checksum(packet[:20]) == 0
        assert struct.unpack("!HHH", packet[20:26]) == (*ports, len(raw) + 8)
        assert packet[28:] == raw
    assert packets[0][1][12:16] == ipaddress.ip_address("192.0.2.10").packed


def test_the_capture_of_ipv6_has_a_valid_checksum() -> None:
    trace = make()
    trace.record("d", Direction.IN, V6, message(1))
    ((_, packet),) = read_pcap(write_pcap(trace.messages("d")))
    assert packet[0] >> 4 == 6
    length = struct.unpack("!H", packet[4:6])[0]
    pseudo = packet[8:40] + struct.pack("!II", length, 17)
    assert _checksum(pseudo + packet[40:]) == 0


def test_the_capture_of_an_unknown_local_address_and_an_empty_trace() -> None:
    trace = make()
    trace.record("d", Direction.IN, Path("udp", "192.0.2.10", 5060), message(1))
    ((_, packet),) = read_pcap(write_pcap(trace.messages("d")))
    assert packet[16:20] == b"\0\0\0\0"
    assert read_pcap(write_pcap([])) == []
