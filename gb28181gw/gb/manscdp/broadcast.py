"""Broadcast (GB/T 28181-2022 A.2.5.5, A.2.6.11): a loudspeaker is told that somebody wants to speak through it."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastNotify:
    """Notify/Broadcast. The only message of the standard without a DeviceID."""

    sn: int | None
    source_id: str
    """Who will speak: the id that the listener's INVITE goes to."""
    target_id: str
    """The audio output (type 137), or a device, which stands for all of its outputs."""
    quirks: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastResponse:
    """Response/Broadcast: the listener will call, or not."""

    sn: int | None
    device_id: str
    """The audio output; some devices leave it out or repeat `TargetID`."""
    ok: bool
    reason: str = ""
    quirks: tuple[Quirk, ...] = ()


def read_broadcast_notify(document: Document) -> BroadcastNotify:
    return BroadcastNotify(
        sn=document.sn,
        source_id=document.text("SourceID"),
        target_id=document.text("TargetID") or document.device_id,
        quirks=document.quirks,
    )


def write_broadcast_notify(message: BroadcastNotify, charset: Charset) -> bytes:
    writer = Writer("Notify", "Broadcast", message.sn, "")
    writer.leaf("SourceID", message.source_id)
    writer.leaf("TargetID", message.target_id)
    return writer.finish(charset)


def read_broadcast_response(document: Document) -> BroadcastResponse:
    """An answer without a Result is a yes: what counts is the INVITE that follows or does not."""
    return BroadcastResponse(
        sn=document.sn,
        device_id=document.device_id or document.text("TargetID"),
        ok=document.text("Result").upper() in {"", "OK"},
        reason=document.text("Reason")[:255],
        quirks=document.quirks,
    )


def write_broadcast_response(message: BroadcastResponse, charset: Charset) -> bytes:
    writer = Writer("Response", "Broadcast", message.sn, message.device_id)
    writer.leaf("Result", "OK" if message.ok else "ERROR")
    writer.optional("Reason", message.reason)
    return writer.finish(charset)
