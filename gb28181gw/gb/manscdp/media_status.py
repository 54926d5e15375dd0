"""MediaStatus (GB/T 28181-2022 A.2.5.4): the sender of a recording tells that it has come to its end."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.document import Document, parse_int
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk

SENT_COMPLETELY = 121
"""`NotifyType`: the recorded file has been sent to its end. 122 and 123 are seen as vendors' own values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaStatus:
    """Notify/MediaStatus. The sender may be named wrongly: go by the dialog that carried it (XML-19)."""

    sn: int | None
    device_id: str
    notify_type: int | None
    quirks: tuple[Quirk, ...] = ()


def read_media_status(document: Document) -> MediaStatus:
    return MediaStatus(
        sn=document.sn,
        device_id=document.device_id,
        notify_type=parse_int(document.text("NotifyType")),
        quirks=document.quirks,
    )


def write_media_status(message: MediaStatus, charset: Charset) -> bytes:
    writer = Writer("Notify", "MediaStatus", message.sn, message.device_id)
    writer.optional("NotifyType", message.notify_type)
    return writer.finish(charset)
