"""PresetQuery (GB/T 28181-2022 A.2.4.8, A.2.6.10): the presets of a camera."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.document import Document, parse_int
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.ptz import PRESETS
from gb28181gw.gb.quirks import Quirk

MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Preset:
    """One preset; its number is that of `PTZCmd`."""

    number: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetQuery:
    """Query/PresetQuery."""

    sn: int | None
    device_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetResponse:
    """Response/PresetQuery, one part of it."""

    sn: int | None
    device_id: str
    total: int | None = None
    """`SumNum`, without what was left out here; None in the form of 2016, which has none and is complete after one
    message."""
    presets: tuple[Preset, ...] = ()
    quirks: tuple[Quirk, ...] = ()


def read_preset_query(document: Document) -> PresetQuery:
    return PresetQuery(sn=document.sn, device_id=document.device_id)


def read_preset_response(document: Document) -> PresetResponse:
    """CTL-10: an id that no code can call (0, text) is left out; a `SumNum` below the items is none."""
    quirks = dict.fromkeys(document.quirks)
    presets: dict[int, Preset] = {}
    listed = 0
    for item in document.items("PresetList"):
        listed += 1
        number = parse_int(item.findtext("PresetID") or "")
        if number is None or number not in PRESETS:
            quirks[Quirk.PRESET_ID_FORM] = None
            continue
        presets.setdefault(number, Preset(number, (item.findtext("PresetName") or "").strip()[:MAX_NAME]))
    total = parse_int(document.text("SumNum"))
    if total is not None:
        if total < listed:
            quirks[Quirk.PRESET_COUNT_DIFFERS] = None
            total = None
        else:
            total -= listed - len(presets)
    return PresetResponse(
        sn=document.sn,
        device_id=document.device_id,
        total=total,
        presets=tuple(presets.values()),
        quirks=tuple(quirks),
    )


def write_preset_query(message: PresetQuery, charset: Charset) -> bytes:
    return Writer("Query", "PresetQuery", message.sn, message.device_id).finish(charset)


def write_preset_response(message: PresetResponse, charset: Charset, edition: Edition) -> bytes:
    """`SumNum` is new in 2022; the list is there even when it is empty."""
    writer = Writer("Response", "PresetQuery", message.sn, message.device_id)
    if edition >= Edition.V3_0:
        writer.leaf("SumNum", str(len(message.presets) if message.total is None else message.total))
    with writer.group("PresetList", len(message.presets)):
        for preset in message.presets:
            with writer.group("Item"):
                writer.leaf("PresetID", str(preset.number))
                writer.leaf("PresetName", preset.name)
    return writer.finish(charset)
