"""Answers in several parts, joined (GB/T 28181-2022 Annex M). Pure: no clock, no I/O.

Counts lie in both directions (CAT-01, CAT-02, CAT-05), so the union of the items is the answer, and `SumNum` only
tells when to stop waiting early. `Assembly` is that rule: for the catalogue, recordings, presets and commands.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

from gb28181gw.devices.models import Device
from gb28181gw.gb.manscdp.commands import Command, read_answer
from gb28181gw.gb.manscdp.configs import CONFIGS
from gb28181gw.gb.manscdp.document import Document, result_ok
from gb28181gw.gb.manscdp.schema import Group, Value, read_values

MAX_ITEMS: Final = 20_000
"""Items kept of one answer; a device that sends more is cut."""
MORE_QUIRK: Final = "answer.more_than_announced"
"""A device whose `SumNum` was less than what it sent (CAT-02)."""
LATE_S: Final = 1.0
"""After an answer that is complete by its own count, when that count may be the number of one message (CAT-02)."""
_HEAD: Final = frozenset({"CmdType", "SN", "DeviceID", "Result", "Reason", "ExtraInfo", "Info"})

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Assembly(Generic[Key, Item]):
    """The items of one answer by key, and how many were announced. Owns its items until they are taken."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: most items kept; what is beyond is counted in `dropped`."""
        self.items: dict[Key, Item] = {}
        self.expected: int | None = None
        """Largest `SumNum` seen."""
        self.doubtful = True
        """Each part so far announced just what was in it: that may be all, or the number of this message (CAT-02)."""
        self.parts = 0
        self.dropped = 0
        self._limit = limit

    def take(self, items: Iterable[tuple[Key, Item]], sum_num: int | None) -> None:
        """One part, whichever it is. The last of equal keys counts."""
        self.parts += 1
        kept = self.items
        number = 0
        for key, item in items:
            number += 1
            if key not in kept and len(kept) >= self._limit:
                self.dropped += 1
                continue
            kept[key] = item
        self.doubtful = self.doubtful and sum_num == number > 0
        if sum_num is not None and sum_num >= 0:
            self.expected = max(sum_num, self.expected or 0)

    @property
    def received(self) -> int:
        """Different items so far."""
        return len(self.items)

    @property
    def reached(self) -> bool:
        """The announced number is there."""
        return self.parts > 0 and self.expected is not None and self.received + self.dropped >= self.expected

    @property
    def beyond(self) -> bool:
        """More is there than was announced (CAT-02)."""
        return self.expected is not None and self.received + self.dropped > self.expected

    def patience(self, device: Device, between_s: float) -> float:
        """How long more may come behind what seems the last part, in seconds; 0: nothing.

        `between_s`: from part to part, for a `device` that is known for wrong counts.
        """
        if not self.doubtful:
            return 0.0
        return between_s if MORE_QUIRK in device.quirks else LATE_S


class Parts:
    """Collects a list that is counted by SumNum; items that come twice are taken once."""

    def __init__(self, command: Command) -> None:
        self.all: Assembly[str, Value] = Assembly(limit=MAX_ITEMS)
        self._command = command
        self._head: dict[str, Value] = {}
        self._listed = False
        self._nameless = 0

    @property
    def fields(self) -> dict[str, Value]:
        """The first part, its list replaced by all items."""
        if not self._listed:
            return self._head
        return {
            **self._head,
            self._command.list_name: {self._command.item_name: list(self.all.items.values())},
        }

    def take(self, answer: dict[str, Value]) -> bool:
        """A part as it was read; `answer` loses its list. True when as many items are there as were announced."""
        list_name, item_name = self._command.list_name, self._command.item_name
        listed = answer.pop(list_name, None)
        found = listed.get(item_name, []) if isinstance(listed, dict) else []
        items = found if isinstance(found, list) else []
        total = answer.get("SumNum")
        announced = total if isinstance(total, int) else None
        if not self._head:
            self._head = answer
        self.all.take([(self._key(item), item) for item in items], announced)
        self._listed = self._listed or listed is not None
        # Without SumNum (2016 presets) an answer is one message; a SumNum below what came is none (CTL-10).
        return self.all.expected is None or self.all.reached

    def _key(self, item: Value) -> str:
        names = self._command.keys
        if not names or not isinstance(item, dict) or not any(item.get(name) for name in names):
            self._nameless += 1
            return f"#{self._nameless}"  # nothing to tell it by: each counts
        return json.dumps([item.get(name) for name in names])


class ConfigParts:
    """Collects the types of a ConfigDownload: one Response for each, or all in one."""

    def __init__(self, command: Command, asked: list[str]) -> None:
        self.fields: dict[str, Value] = {}
        self.renamed: list[str] = []
        """Types that came under another name (CTL-09)."""
        self.refused = ""
        """What a Response with an ERROR said; empty: none came."""
        self._command = command
        self._asked = asked

    @property
    def missing(self) -> list[str]:
        return [name for name in self._asked if name not in self.fields]

    def add(self, document: Document) -> bool:
        """Take a part; True when it was the last one."""
        answer = read_answer(self._command, document)
        result = document.text("Result")
        for name, value in answer.items():
            if name in _HEAD:
                self.fields.setdefault(name, value)
        found = {name: value for name, value in answer.items() if name not in _HEAD}
        if not found and not result_ok(result):
            self.refused = document.text("Reason") or result
            return True
        for name, value in found.items():
            wanted = name if name in self._asked else self._meant(name, value, found)
            if wanted and wanted not in self.fields:
                if wanted != name:
                    self.renamed.append(wanted)
                    value = _typed(wanted, document, name)
                self.fields[wanted] = value
        return not self.missing

    def _meant(self, name: str, value: Value, found: dict[str, Value]) -> str:
        """CTL-09: which type an element under a foreign name is; empty: none that can be told."""
        missing = self.missing
        alike = [
            type_name for type_name in missing if name.startswith(type_name) or type_name.startswith(name)
        ]
        if len(alike) == 1:
            return alike[0]
        alone = len(missing) == 1 and not any(other in self._asked for other in found)
        return missing[0] if alone and isinstance(value, dict) else ""


def _typed(wanted: str, document: Document, name: str) -> Value:
    """The element `name` read as the type `wanted`."""
    element = document.fields[name]
    for node in CONFIGS:
        if node.name == wanted and isinstance(node, Group):
            return read_values(element, node.members)
    return read_values(element) if len(element) else (element.text or "").strip()
