"""Keepalive (GB/T 28181-2022 A.2.5.2): the message that a gateway reads most, so there are two ways to read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk

MAX_FAULTS = 1024
"""Faulty devices kept of one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """Notify/Keepalive."""

    sn: int | None
    device_id: str
    status: str = "OK"
    """``OK`` or ``ERROR``; as sent."""
    fault_ids: tuple[str, ...] = ()
    """Devices below the sender that are faulty (`Info`)."""
    quirks: tuple[Quirk, ...] = ()


# One whole, sound keepalive without fault list. Possessive repeats: no input makes it go back.
_SOUND = re.compile(
    rb"\s*+(?:<\?xml[^<>]{0,100}+>)?+\s*+<Notify>\s*+<CmdType>Keepalive</CmdType>\s*+<SN>(\d{1,18}+)</SN>\s*+"
    rb"<DeviceID>([0-9A-Za-z]{1,64}+)</DeviceID>\s*+<Status>([A-Za-z]{1,16}+)</Status>\s*+"
    rb"(?:<Info>\s*+</Info>\s*+|<Info\s*+/>\s*+)?+</Notify>\s*+"
)


def sniff_keepalive(body: bytes) -> Keepalive | None:
    """The fast path: a sound keepalive in the standard's order, else None (then use `parse`, `read_keepalive`)."""
    match = _SOUND.fullmatch(body)
    if match is None:
        return None
    sn, device_id, status = match.groups()
    return Keepalive(sn=int(sn), device_id=device_id.decode("ascii"), status=status.decode("ascii"))


def read_keepalive(document: Document) -> Keepalive:
    """Lenient reader: `Status` may be missing, faults may stand in any number of `Info` groups."""
    faults: list[str] = []
    for group in document.element.findall("Info"):
        for child in group:
            if child.tag == "DeviceID" and child.text and len(faults) < MAX_FAULTS:
                faults.append(child.text.strip()[:64])
    return Keepalive(
        sn=document.sn,
        device_id=document.device_id,
        status=document.text("Status")[:16] or "OK",
        fault_ids=tuple(faults),
        quirks=document.quirks,
    )


def write_keepalive(message: Keepalive, charset: Charset) -> bytes:
    writer = Writer("Notify", "Keepalive", message.sn, message.device_id)
    writer.leaf("Status", message.status)
    if message.fault_ids:
        with writer.group("Info"):
            for fault_id in message.fault_ids:
                writer.leaf("DeviceID", fault_id)
    return writer.finish(charset)
