"""Assembly of one catalogue answer: a pure collector, fed with parts and `now` (rows CAT-01 to CAT-06, F-12).

Counts lie in both directions, so the union of the items by id is the answer, and `SumNum` only tells when to stop
waiting early. Parts may come in any order, twice, or not at all; then silence ends the waiting: 30 s before the
first part, 10 s between parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from gb28181gw.devices.models import Channel, Device
from gb28181gw.gb.manscdp.catalogue import CatalogItem


class Progress(Enum):
    """How far an answer is."""

    RUNNING = auto()
    COMPLETE = auto()
    """As many items as announced, or more."""
    PARTIAL = auto()
    """Quiet before the announced number was reached."""
    SILENT = auto()
    """Nothing came at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds of silence that end the waiting."""

    first_part_s: float = 30.0
    between_parts_s: float = 10.0


class Collector:
    """One answer to one query of ours. Owns its items until they are taken."""

    def __init__(self, *, now: float, limit: int, waits: Waits) -> None:
        """`limit`: most items kept; what is beyond is counted in `dropped`."""
        self.items: dict[str, Channel] = {}
        self.expected: int | None = None
        """Largest `SumNum` seen."""
        self.parts = 0
        self.dropped = 0
        self.deadline = now + waits.first_part_s
        """When silence ends the waiting."""
        self._limit = limit
        self._waits = waits

    def feed(self, channels: Iterable[Channel], sum_num: int | None, now: float) -> None:
        """Take one part in, whichever it is. The last of equal ids counts."""
        self.parts += 1
        items = self.items
        for channel in channels:
            if channel.id not in items and len(items) >= self._limit:
                self.dropped += 1
                continue
            items[channel.id] = channel
        if sum_num is not None and sum_num >= 0:
            self.expected = max(sum_num, self.expected or 0)
        self.deadline = now + self._waits.between_parts_s

    @property
    def received(self) -> int:
        """Different items so far."""
        return len(self.items)

    def progress(self, now: float) -> Progress:
        if self.parts and self.expected is not None and self.received + self.dropped >= self.expected:
            return Progress.COMPLETE
        if now < self.deadline:
            return Progress.RUNNING
        if not self.parts:
            return Progress.SILENT
        # Without any SumNum quiet is the only end there is.
        return Progress.COMPLETE if self.expected is None and self.items else Progress.PARTIAL


def channel_of(device: Device, item: CatalogItem, ours: frozenset[str]) -> Channel:
    """A catalogue item as we keep it. `ours`: ids of this platform, which are nobody's parent (CAT-07)."""
    own_id = item.device_id
    parent_ids = item.parent_ids
    if parent_ids:
        if len(parent_ids) == 1:
            parent = parent_ids[0]
            if parent == own_id or parent in ours:
                parent_ids = ()
        else:
            parent_ids = tuple(parent for parent in parent_ids if parent != own_id and parent not in ours)
    return Channel(
        device.id,
        own_id,
        item.name,
        item.kind,
        item.status,
        item.ptz_type,
        item.parental,
        parent_ids,
        item.business_group_id,
        item.civil_code,
        item.block,
        item.address,
        item.owner,
        item.manufacturer,
        item.model,
        item.longitude,
        item.latitude,
        item.ip_address,
        item.port,
        item.register_way,
        item.secrecy,
        item.details,
    )
