"""Assembly of one catalogue answer: a pure collector, fed with parts and `now` (rows CAT-01 to CAT-06, F-12).

Parts may come in any order, twice, or not at all; then silence ends the waiting: 30 s before the first part, 10 s
between parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from gb28181gw.devices.assembly import Assembly
from gb28181gw.devices.models import Channel, Device
from gb28181gw.gb.datum import Datum, to_wgs84
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


class Collector(Assembly[str, Channel]):
    """One answer to one query of ours."""

    def __init__(self, *, now: float, limit: int, waits: Waits) -> None:
        super().__init__(limit=limit)
        self.deadline = now + waits.first_part_s
        """When silence ends the waiting."""
        self._waits = waits

    def feed(self, channels: Iterable[Channel], sum_num: int | None, now: float) -> None:
        """Take one part in, whichever it is."""
        self.take([(channel.id, channel) for channel in channels], sum_num)
        self.deadline = now + self._waits.between_parts_s

    def progress(self, now: float) -> Progress:
        if self.reached:
            return Progress.COMPLETE
        if now < self.deadline:
            return Progress.RUNNING
        if not self.parts:
            return Progress.SILENT
        # Without any SumNum quiet is the only end there is.
        return Progress.COMPLETE if self.expected is None and self.items else Progress.PARTIAL


def channel_of(
    device: Device, item: CatalogItem, ours: frozenset[str], datum: Datum = Datum.WGS84
) -> Channel:
    """A catalogue item as we keep it. `ours`: ids of this platform, which are nobody's parent (CAT-07); `datum`: what
    the device's positions mean (CTL-04)."""
    own_id = item.device_id
    parent_ids = item.parent_ids
    if parent_ids:
        if len(parent_ids) == 1:
            parent = parent_ids[0]
            if parent == own_id or parent in ours:
                parent_ids = ()
        else:
            parent_ids = tuple(parent for parent in parent_ids if parent != own_id and parent not in ours)
    longitude, latitude = item.longitude, item.latitude
    if datum is not Datum.WGS84 and longitude is not None and latitude is not None:
        longitude, latitude = to_wgs84(longitude, latitude, datum)
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
        longitude,
        latitude,
        item.ip_address,
        item.port,
        item.register_way,
        item.secrecy,
        item.details,
    )
