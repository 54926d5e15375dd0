"""Writes the messages of a trace as a capture file that Wireshark opens (libpcap format, raw IP packets).

The packets are made up around the messages: one UDP packet each, also for what travelled over TCP, so that every
message is dissected as SIP without a stream to reassemble. A packet limited to 64 KB holds the rest cut off.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from gb28181gw.observability.trace import Direction, TraceMessage

_LINKTYPE_RAW = 101
_MAX_PAYLOAD = 65_000


def write_pcap(messages: Iterable[TraceMessage]) -> bytes:
    """A whole capture file; times are those of the messages, in microseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, _LINKTYPE_RAW)]
    for message in messages:
        packet = _packet(message)
        seconds = int(message.wall)
        micros = min(int((message.wall - seconds) * 1_000_000), 999_999)
        parts.append(struct.pack("<IIII", seconds, micros, len(packet), len(packet)))
        parts.append(packet)
    return b"".join(parts)


def _packet(message: TraceMessage) -> bytes:
    path = message.path
    local = (_address(path.local_host), path.local_port)
    remote = (_address(path.remote_host), path.remote_port)
    source, target = (remote, local) if message.direction is Direction.IN else (local, remote)
    payload = message.text.encode("utf-8", "replace")[:_MAX_PAYLOAD]
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", source[1], target[1], length, 0) + payload
    if source[0].version == 4 and target[0].version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, source[0].packed, target[0].packed
        )
        return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp
    v6 = tuple(_as_v6(address) for address in (source[0], target[0]))
    pseudo = v6[0] + v6[1] + struct.pack("!II", length, 17)
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp) or 0xFFFF) + payload
    return struct.pack("!IHBB16s16s", 0x60000000, length, 17, 64, v6[0], v6[1]) + udp


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Where an address is not known (before a path is bound) the unspecified one stands."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ipaddress.IPv4Address(0)


def _as_v6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if isinstance(address, ipaddress.IPv6Address):
        return address.packed
    return b"\0" * 10 + b"\xff\xff" + address.packed


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
