"""The SIP trace: the last messages of each device, for the ladder and for Wireshark (O-05).

Kept raw and cheap on the way in; credentials are removed on the way out, and there is no other way out. Keepalives
would push everything else out of the ring, so of them only the last one is kept, with its answer and a count.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from gb28181gw.observability.redact import clean_text, hide_secrets
from gb28181gw.sip.path import Path

MESSAGES_PER_DEVICE: Final = 200
MAX_MESSAGE_BYTES: Final = 16_384
"""Of a longer message the beginning is kept."""
MAX_TOTAL_BYTES: Final = 4 * 1024 * 1024
"""Over all devices; the oldest messages leave first."""
_ENTRY_OVERHEAD: Final = 300
"""Estimated bytes of one entry besides its message."""
_KEEPALIVE: Final = b"<CmdType>Keepalive<"
_MAX_STRANGERS: Final = 100
"""Ids of senders that are no devices (yet); the one that is silent longest is forgotten for a new one (I10)."""
_MESSAGES_PER_STRANGER: Final = 20
_FROM: Final = re.compile(rb"[\r\n](?:from|f)[ \t]*:[^\r\n]{0,200}?sips?:([0-9A-Za-z]{1,32})@", re.IGNORECASE)


class Direction(StrEnum):
    IN = "in"
    """From the device."""
    OUT = "out"


class _Entry(NamedTuple):
    number: int
    wall: float
    direction: Direction
    path: Path
    raw: bytes
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceMessage:
    """One message as it may be shown: without credentials."""

    number: int
    """Grows over all devices; ask for what came `after` the last one seen."""
    timestamp: str
    """ISO 8601 with offset."""
    direction: Direction
    transport: str
    local: str
    remote: str
    first_line: str
    cseq: str
    bytes: int
    """Length on the wire."""
    text: str
    """The message with CR LF as received, credentials replaced, possibly cut."""
    path: Path
    wall: float


class _DeviceTrace:
    __slots__ = ("answer_due", "keepalive", "keepalive_answer", "keepalives", "ring")

    def __init__(self) -> None:
        self.ring: list[_Entry] = []  # an empty deque is ten times as big
        self.keepalive: _Entry | None = None
        self.keepalive_answer: _Entry | None = None
        self.keepalives = 0
        self.answer_due = False


class SipTrace:
    """Owner of the rings. `record` is called for every message and must stay short."""

    def __init__(
        self,
        *,
        per_device: int = MESSAGES_PER_DEVICE,
        max_bytes: int = MAX_TOTAL_BYTES,
        zone: tzinfo = UTC,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._per_device = per_device
        self._max_bytes = max_bytes
        self._zone = zone
        self._wall = wall
        self._devices: dict[str, _DeviceTrace] = {}
        self._strangers: dict[str, list[_Entry]] = {}
        """By the id they gave themselves, longest silent first. Apart from the rings, so that nobody can push a
        device's messages out by using its id."""
        self._order: deque[tuple[int, str]] = deque()
        """(number, device) of every message in a ring, oldest first; some may have left their ring already."""
        self._number = 0
        self.bytes = 0
        """Estimated memory of all rings: a gauge."""

    def record(self, device_id: str, direction: Direction, path: Path, raw: bytes) -> None:
        """Keep one message. `raw` is not copied unless it is longer than `MAX_MESSAGE_BYTES`."""
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = _DeviceTrace()
        self._number += 1
        entry = _Entry(
            self._number,
            self._wall(),
            direction,
            path,
            bytes(raw[:MAX_MESSAGE_BYTES]),
            len(raw),
        )
        if direction is Direction.IN and _KEEPALIVE in raw:
            device.keepalive = entry
            device.keepalives += 1
            device.answer_due = True
            return
        if device.answer_due and direction is Direction.OUT and raw.startswith(b"SIP/2.0 "):
            device.keepalive_answer = entry
            device.answer_due = False
            return
        device.ring.append(entry)
        self._order.append((entry.number, device_id))
        self.bytes += len(entry.raw) + _ENTRY_OVERHEAD
        if len(device.ring) > self._per_device:
            self._drop_oldest(device)
        while self.bytes > self._max_bytes and self._order:
            number, other_id = self._order.popleft()
            other = self._devices.get(other_id)
            if other is not None and other.ring and other.ring[0].number == number:
                self._drop_oldest(other)
        if len(self._order) > 2 * self._per_device * len(self._devices):
            self._tidy()

    def record_stranger(self, direction: Direction, path: Path, raw: bytes) -> None:
        """Keep a message on a path that is no device's: a first REGISTER, a refused one. Without it the trace
        could not tell why a device does not come in. What names no sender is left out."""
        found = _FROM.search(raw, 0, 4096)
        if found is None:
            return
        name = found[1].decode("ascii")
        entries = self._strangers.pop(name, None)
        if entries is None:
            entries = []
            if len(self._strangers) >= _MAX_STRANGERS:
                del self._strangers[next(iter(self._strangers))]
        self._strangers[name] = entries
        self._number += 1
        entries.append(
            _Entry(self._number, self._wall(), direction, path, bytes(raw[:MAX_MESSAGE_BYTES]), len(raw))
        )
        del entries[:-_MESSAGES_PER_STRANGER]

    def _drop_oldest(self, device: _DeviceTrace) -> None:
        self.bytes -= len(device.ring.pop(0).raw) + _ENTRY_OVERHEAD

    def _tidy(self) -> None:
        """Forget the order of messages that left their ring by its own limit."""
        self._order = deque(
            sorted(
                (entry.number, device_id)
                for device_id, device in self._devices.items()
                for entry in device.ring
            )
        )

    def forget(self, device_id: str) -> None:
        """The device was removed."""
        self._strangers.pop(device_id, None)
        device = self._devices.pop(device_id, None)
        while device is not None and device.ring:
            self._drop_oldest(device)

    def keepalives(self, device_id: str) -> int:
        """Keepalives seen; only the last one is among the messages."""
        device = self._devices.get(device_id)
        return device.keepalives if device is not None else 0

    def messages(
        self, device_id: str, *, after: int = 0, limit: int = MESSAGES_PER_DEVICE
    ) -> list[TraceMessage]:
        """The newest `limit` messages numbered above `after`, oldest first; also of a sender that is no device."""
        entries = [entry for entry in self._strangers.get(device_id, ()) if entry.number > after]
        device = self._devices.get(device_id)
        if device is not None:
            entries += [entry for entry in device.ring if entry.number > after]
            for extra in (device.keepalive, device.keepalive_answer):
                if extra is not None and extra.number > after:
                    entries.append(extra)
        entries.sort()
        return [self._show(entry) for entry in entries[-limit:]]

    def _show(self, entry: _Entry) -> TraceMessage:
        text = show_message(entry.raw)
        first_line = text.partition("\n")[0].rstrip("\r")
        path = entry.path
        return TraceMessage(
            number=entry.number,
            timestamp=datetime.fromtimestamp(entry.wall, self._zone).isoformat(timespec="milliseconds"),
            direction=entry.direction,
            transport=path.transport,
            local=_authority(path.local_host, path.local_port),
            remote=path.peer,
            first_line=clean_text(first_line),
            cseq=clean_text(_header(text, "cseq")),
            bytes=entry.length,
            text=text,
            path=path,
            wall=entry.wall,
        )


def show_message(raw: bytes) -> str:
    """Text of a message without credentials. Control characters other than CR, LF and TAB are escaped."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("gb18030", "replace")
    text = hide_secrets(text)
    if all(char.isprintable() or char in "\r\n\t" for char in text):
        return text
    return "".join(c if c.isprintable() or c in "\r\n\t" else f"\\x{ord(c):02x}" for c in text)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _header(text: str, name: str) -> str:
    for line in text.splitlines():
        if not line:
            break
        found, colon, value = line.partition(":")
        if colon and found.strip().lower() == name:
            return value.strip()
    return ""
