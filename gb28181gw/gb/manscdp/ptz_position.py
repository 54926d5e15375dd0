"""PTZPosition as a notification (GB/T 28181-2022 9.11.2.3 d, A.2.6.15): where a camera looks."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.document import Document, parse_float
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk


@dataclass(frozen=True, slots=True, kw_only=True)
class PtzPositionNotify:
    """Notify/PTZPosition. Every value is optional."""

    sn: int | None
    device_id: str
    """The camera; empty: the sender."""
    pan: float | None = None
    """Degrees, 0 to 360; clockwise seen from above increases."""
    tilt: float | None = None
    """Degrees; 0 is horizontal, up is negative."""
    zoom: float | None = None
    horizontal_angle: float | None = None
    """Of the field of view, degrees."""
    vertical_angle: float | None = None
    max_distance: float | None = None
    """Metres that can be seen."""
    quirks: tuple[Quirk, ...] = ()


_MEMBERS = (
    ("pan", "Pan"),
    ("tilt", "Tilt"),
    ("zoom", "Zoom"),
    ("horizontal_angle", "HorizontalFieldAngle"),
    ("vertical_angle", "VerticalFieldAngle"),
    ("max_distance", "MaxViewDistance"),
)


def read_ptz_position(document: Document) -> PtzPositionNotify:
    """What is no number is absent."""
    values = {name: parse_float(document.text(element)) for name, element in _MEMBERS}
    return PtzPositionNotify(
        sn=document.sn, device_id=document.device_id[:64], quirks=tuple(document.quirks), **values
    )


def write_ptz_position(message: PtzPositionNotify, charset: Charset) -> bytes:
    writer = Writer("Notify", "PTZPosition", message.sn, message.device_id)
    for name, element in _MEMBERS:
        writer.optional(element, getattr(message, name))
    return writer.finish(charset)
