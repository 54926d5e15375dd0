"""What is learnt of a device from the documents that it sends: its edition and the character set that it writes.

A device that labels what it sends GB2312 may know no other label, and one that sends UTF-8 may read nothing else; so we
answer in its own words. One document is no habit: three of the same label in a row are.
"""

from __future__ import annotations

from typing import Final

from gb28181gw.devices.dialects import dialect_of
from gb28181gw.devices.models import Device
from gb28181gw.devices.registry import Registry
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import DEFAULT
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.version import detect_edition

HABIT: Final = 3
_TELLING: Final = frozenset(("MobilePosition", "PresetQuery"))
"""Besides the catalogue, whose answers are judged by who asked for them."""


class Learning:
    """Owner of the counts; what was learnt is in `Device.learnt` and `Device.detected_edition`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._labels: dict[str, tuple[Charset, int]] = {}
        """Devices whose label is not the one that we write, and how often it came in a row."""
        registry.on_removed(self._forget)

    def heard(self, device: Device, document: Document) -> None:
        """A document of the device, on its bound path."""
        if not device.edition and document.cmd_type in _TELLING:
            edition = detect_edition(document)
            if edition is not None:
                self._registry.learn_edition(device, edition, document.cmd_type)
        if document.declared:
            self._label(device, document)

    def _forget(self, device: Device) -> None:
        self._labels.pop(device.id, None)

    def _label(self, device: Device, document: Document) -> None:
        try:
            label = Charset.parse(document.declared)
        except ValueError:
            return
        if Quirk.CHARSET_DECLARATION_LIED in document.quirks:
            return  # neither the label nor the bytes can be relied on
        if label is dialect_of(device).charset_used:
            if self._labels:
                self._labels.pop(device.id, None)
            return
        before, count = self._labels.get(device.id, (label, 0))
        count = count + 1 if before is label else 1
        self._labels[device.id] = (label, count)
        if count >= HABIT:
            del self._labels[device.id]
            by_edition = DEFAULT.with_switches({"edition": dialect_of(device).edition.value}).charset_used
            value = "" if label is by_edition else label.value.lower()
            self._registry.learn(device, "charset", value, f"{HABIT} documents in a row are labelled so")
