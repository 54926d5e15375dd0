"""Answers in several parts, joined (GB/T 28181-2022 Annex M). Pure: no clock, no I/O."""

from __future__ import annotations

import json
from typing import Final

from gb28181gw.gb.manscdp.commands import Command, read_answer
from gb28181gw.gb.manscdp.configs import CONFIGS
from gb28181gw.gb.manscdp.document import Document, result_ok
from gb28181gw.gb.manscdp.schema import Group, Value, read_values

MAX_ITEMS: Final = 20_000
"""Items kept of one answer; a device that sends more is cut."""
_HEAD: Final = frozenset({"CmdType", "SN", "DeviceID", "Result", "Reason", "ExtraInfo", "Info"})


class Parts:
    """Collects a list that is counted by SumNum; items that come twice are taken once."""

    def __init__(self, command: Command) -> None:
        self.fields: dict[str, Value] = {}
        """The first part, its list replaced by all items."""
        self.expected: int | None = None
        self.cut = False
        self._command = command
        self._items: list[Value] = []
        self._seen: set[str] = set()

    @property
    def received(self) -> int:
        return len(self._items)

    def add(self, document: Document) -> bool:
        """Take a part; True when it was the last one."""
        answer = read_answer(self._command, document)
        list_name, item_name = self._command.list_name, self._command.item_name
        listed = answer.pop(list_name, None)
        items = listed.get(item_name, []) if isinstance(listed, dict) else []
        if not self.fields:
            self.fields = answer
        for item in items if isinstance(items, list) else []:
            key = self._key(item)
            if key in self._seen:
                continue
            if len(self._items) >= MAX_ITEMS:
                self.cut = True
                return True
            self._seen.add(key)
            self._items.append(item)
        if listed is not None or self._items:
            self.fields[list_name] = {item_name: self._items}
        total = answer.get("SumNum")
        if isinstance(total, int):
            self.expected = total
        # Without SumNum (2016 presets) an answer is one message; a SumNum below what came is none (CTL-10).
        return self.expected is None or len(self._items) >= self.expected or not items

    def _key(self, item: Value) -> str:
        names = self._command.keys
        if not names or not isinstance(item, dict) or not any(item.get(name) for name in names):
            return f"#{len(self._items)}"  # nothing to tell it by: each counts
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
