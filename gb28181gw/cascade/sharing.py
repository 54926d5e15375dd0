"""Which channels one upper sees, and under which ids: the mapping both ways, stable over restarts.

A channel keeps its own id above unless it was given another, or its id is taken (nearly all NVRs number their channels
alike: CAT-13, CS-09). Then one is made, and both ids that met are stored, so that no order of loading swaps them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from gb28181gw.cascade.models import Upper
from gb28181gw.cascade.store import ShareRow
from gb28181gw.devices.models import Channel, Device, listed_channels
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import is_gb_id, valid_lenient_id

SHARE_LIMIT: Final = 100_000
_SLICE: Final = 1_000
"""Channels looked at before others get their turn (I8)."""
_FIRST_MADE: Final = 900_000
"""Serials of made ids: beyond what devices number their channels with."""


class Key(NamedTuple):
    """A channel of ours."""

    device_id: str
    channel_id: str


def _channel_of(row: tuple[Key, str]) -> str:
    return row[0].channel_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareItem:
    """One row of what a person shares."""

    device_id: str
    channel_id: str
    shared_id: str = ""
    """Empty: the channel's own id, or a made one."""


class ChannelBook(Protocol):
    """The registry (`devices.registry.Registry`)."""

    def __iter__(self) -> Iterator[Device]: ...

    def get(self, device_id: str) -> Device | None: ...


class Sharing:
    """The mapping of one upper. Changed by `Uppers`, read by everything that talks to that upper."""

    def __init__(self, upper: Upper, *, share_all: bool, rows: Iterable[ShareRow] = ()) -> None:
        self.upper = upper
        self.share_all = share_all
        self._by_key: dict[Key, str] = {}
        self._by_id: dict[str, Key] = {}
        self._stored: set[Key] = set()
        self._ordered: list[tuple[Key, str]] | None = None
        for row in rows:
            key = Key(row.device_id, row.channel_id)
            self._enter(key, row.shared_id)
            self._stored.add(key)

    def __len__(self) -> int:
        return len(self._by_key)

    def items(self) -> list[tuple[Key, str]]:
        """Everything that is shared, also what no device has now; in the order of devices and channels."""
        if self._ordered is None:
            self._ordered = sorted(self._by_key.items())
        return self._ordered

    async def ordered(self) -> list[tuple[Key, str]]:
        """As `items`, in slices: one sort of 100,000 rows would hold up everybody (I8)."""
        if self._ordered is not None:
            return self._ordered
        by_device: dict[str, list[tuple[Key, str]]] = {}
        snapshot = list(self._by_key.items())
        for number, row in enumerate(snapshot, 1):
            by_device.setdefault(row[0].device_id, []).append(row)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        found: list[tuple[Key, str]] = []
        for device_id in sorted(by_device):
            found += sorted(by_device[device_id], key=_channel_of)
            await asyncio.sleep(0)
        if len(snapshot) == len(self._by_key):
            self._ordered = found  # else somebody came meanwhile; who asks later gets all
        return found

    def shared_id(self, device_id: str, channel_id: str) -> str | None:
        return self._by_key.get(Key(device_id, channel_id))

    def key_of(self, shared_id: str) -> Key | None:
        """The channel behind an id that the upper uses."""
        return self._by_id.get(shared_id)

    def rows(self) -> list[ShareRow]:
        """For the store: all rows of a list; of "all" only those that must not change."""
        keys = self._stored if self.share_all else self._by_key.keys()
        return [ShareRow(key.device_id, key.channel_id, self._by_key[key]) for key in sorted(keys)]

    # -- "all" follows the catalogues ----------------------------------------------------------------------

    async def follow(self, book: ChannelBook) -> list[ShareRow]:
        """Take in what devices have now, if everything is shared. Returns the rows that must be stored."""
        if not self.share_all:
            return []
        fresh: list[ShareRow] = []
        looked = 0
        for device in sorted(book, key=lambda one: one.id):
            if not device.approved or device.id == self.upper.id:
                continue  # never back to where it came from (CS-11)
            for channel in listed_channels(device):
                looked += 1
                if looked % _SLICE == 0:
                    await asyncio.sleep(0)
                fresh += self.take_in(channel)
        return fresh

    def take_in(self, channel: Channel) -> list[ShareRow]:
        """One channel that appeared while everything is shared. Returns rows to store."""
        key = Key(channel.device_id, channel.id)
        if not self.share_all or key in self._by_key or len(self._by_key) >= SHARE_LIMIT:
            return []
        if self._free(channel.id):
            self._enter(key, channel.id)
            return []
        fresh: list[ShareRow] = []
        holder = self._by_id.get(channel.id)
        if holder is not None and holder not in self._stored:
            self._stored.add(holder)
            fresh.append(ShareRow(*holder, channel.id))
        made = self._make(channel.id)
        self._enter(key, made)
        self._stored.add(key)
        fresh.append(ShareRow(*key, made))
        return fresh

    # -- inside --------------------------------------------------------------------------------------------

    def _enter(self, key: Key, shared_id: str) -> None:
        self._ordered = None
        self._by_key[key] = shared_id
        self._by_id[shared_id] = key

    def _free(self, shared_id: str) -> bool:
        return shared_id not in self._by_id and shared_id not in (self.upper.local_id, self.upper.id)

    def _make(self, wanted: str) -> str:
        """A free id in the form of the wanted one: its centre, type and network digits, a serial of our own."""
        stem = wanted[:14] if is_gb_id(wanted) else f"{self.upper.local_id[:10]}1320"
        serial = _FIRST_MADE + len(self._by_key) % 100_000
        while True:
            made = f"{stem}{serial:06d}"
            if self._free(made):
                return made
            serial = serial + 1 if serial < 999_999 else 1


def sharing_of(upper: Upper, items: Sequence[ShareItem], before: Sharing | None = None) -> Sharing:
    """The mapping of a list that a person gave. Raises GatewayError gb.route.invalid naming the row.

    `before`: made ids of channels that stay shared are kept.
    """
    if len(items) > SHARE_LIMIT:
        raise GatewayError("gb.route.invalid", f"items: at most {SHARE_LIMIT} channels can be shared.")
    made = Sharing(upper, share_all=False)
    rows: dict[str, int] = {}
    seen: set[Key] = set()
    for number, item in enumerate(items, 1):
        key = Key(item.device_id, item.channel_id)
        for name, value in (("device_id", item.device_id), ("channel_id", item.channel_id)):
            if not valid_lenient_id(value):
                raise _bad_row(number, f"{name} {value[:64]!r} is no id")
        if key in seen:
            raise _bad_row(number, f"channel {item.channel_id} of device {item.device_id} is listed twice")
        seen.add(key)
        if not item.shared_id:
            continue
        if not valid_lenient_id(item.shared_id):
            raise _bad_row(number, f"shared_id {item.shared_id[:64]!r} is no id")
        if item.shared_id in rows:
            raise _bad_row(
                number, f"shared_id {item.shared_id} is that of row {rows[item.shared_id]} already"
            )
        if not made._free(item.shared_id):
            raise _bad_row(number, f"shared_id {item.shared_id} is the id of a platform")
        rows[item.shared_id] = number
        made._enter(key, item.shared_id)
    for item in items:
        if item.shared_id:
            continue
        key = Key(item.device_id, item.channel_id)
        kept = before.shared_id(*key) if before is not None else None
        for candidate in (kept, item.channel_id):
            if candidate is not None and made._free(candidate):
                made._enter(key, candidate)
                break
        else:
            made._enter(key, made._make(item.channel_id))
    return made


def _bad_row(number: int, why: str) -> GatewayError:
    return GatewayError("gb.route.invalid", f"items, row {number}: {why}.", row=number)
