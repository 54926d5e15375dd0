"""MobilePosition (GB/T 28181-2022 A.2.5.6): where something is, as a list (2022) or flat (2016)."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.alarm import place
from gb28181gw.gb.manscdp.document import Document, Element, parse_float
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk

MAX_POSITIONS = 10_000
"""Of one message (Annex M)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One place (WGS-84)."""

    device_id: str
    """Empty in the flat form of 2016, whose schema has none: it is the sender's."""
    time: str = ""
    """As sent."""
    longitude: float
    latitude: float
    speed: float | None = None
    """km/h."""
    direction: float | None = None
    """Degrees clockwise from north."""
    altitude: float | None = None
    """Metres above sea level."""
    height: float | None = None
    """Metres above ground (2022)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionNotify:
    """Notify/MobilePosition."""

    sn: int | None
    device_id: str
    time: str = ""
    positions: tuple[Position, ...] = ()
    quirks: tuple[Quirk, ...] = ()


def read_position_notify(document: Document) -> PositionNotify:
    """CTL-04: what is no place is left out."""
    quirks = dict.fromkeys(document.quirks)
    when = document.text("Time")[:64]
    listed = "DeviceList" in document.fields
    sources = list(document.items("DeviceList"))[:MAX_POSITIONS] if listed else [document.element]
    found: list[Position] = []
    for element in sources:
        position = _read(element, when, document.device_id if not listed else "")
        if position is None:
            quirks[Quirk.POSITION_UNUSABLE] = None
        else:
            found.append(position)
    return PositionNotify(
        sn=document.sn,
        device_id=document.device_id,
        time=when,
        positions=tuple(found),
        quirks=tuple(quirks),
    )


def _read(element: Element, when: str, device_id: str) -> Position | None:
    texts: dict[str, str] = {}
    for child in element:
        if child.text:
            texts.setdefault(child.tag, child.text.strip())

    def told(name: str) -> str:
        return texts.get(name, "")

    longitude, latitude = place(told("Longitude"), told("Latitude"))
    if longitude is None or latitude is None:
        return None
    return Position(
        device_id=(told("DeviceID") or device_id)[:64],
        time=(told("CaptureTime") or told("Time") or when)[:64],
        longitude=longitude,
        latitude=latitude,
        speed=parse_float(told("Speed")),
        direction=parse_float(told("Direction")),
        altitude=parse_float(told("Altitude")),
        height=parse_float(told("Height")),
    )


def write_position_notify(message: PositionNotify, charset: Charset, edition: Edition) -> bytes:
    """A list since 2022, before that one place a message. Raises `GbLocalError` for several of them."""
    writer = Writer("Notify", "MobilePosition", message.sn, message.device_id)
    writer.leaf("Time", message.time)
    if edition >= Edition.V3_0:
        writer.leaf("SumNum", str(len(message.positions)))
        if message.positions:
            with writer.group("DeviceList", len(message.positions)):
                for position in message.positions:
                    with writer.group("Item"):
                        writer.leaf("DeviceID", position.device_id or message.device_id)
                        writer.leaf("CaptureTime", position.time or message.time)
                        _write(writer, position)
                        writer.optional("Height", position.height)
        return writer.finish(charset)
    if len(message.positions) != 1:
        raise GbLocalError("before 2022 a MobilePosition has one place")
    _write(writer, message.positions[0])
    return writer.finish(charset)


def _write(writer: Writer, position: Position) -> None:
    writer.optional("Longitude", position.longitude)
    writer.optional("Latitude", position.latitude)
    writer.optional("Speed", position.speed)
    writer.optional("Direction", position.direction)
    writer.optional("Altitude", position.altitude)
