"""All messages in one place: the dataclasses, `read` and `write`.

Each message is a frozen dataclass with a lenient reader ``read_<message>(document)`` and a strict writer in its own
module; `read` and `write` choose by root and `CmdType`, or by the dataclass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.broadcast import (
    BroadcastNotify,
    BroadcastResponse,
    read_broadcast_notify,
    read_broadcast_response,
    write_broadcast_notify,
    write_broadcast_response,
)
from gb28181gw.gb.manscdp.catalogue import (
    CatalogEvent,
    CatalogItem,
    CatalogNotify,
    CatalogQuery,
    CatalogResponse,
    Status,
    read_catalog_notify,
    read_catalog_query,
    read_catalog_response,
    write_catalog_notify,
    write_catalog_query,
    write_catalog_response,
)
from gb28181gw.gb.manscdp.device import (
    DeviceInfoQuery,
    DeviceInfoResponse,
    DeviceStatusQuery,
    DeviceStatusResponse,
    Duty,
    read_device_info_query,
    read_device_info_response,
    read_device_status_query,
    read_device_status_response,
    write_device_info_query,
    write_device_info_response,
    write_device_status_query,
    write_device_status_response,
)
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.keepalive import Keepalive, read_keepalive, sniff_keepalive, write_keepalive
from gb28181gw.gb.manscdp.media_status import (
    SENT_COMPLETELY,
    MediaStatus,
    read_media_status,
    write_media_status,
)
from gb28181gw.gb.manscdp.presets import (
    Preset,
    PresetQuery,
    PresetResponse,
    read_preset_query,
    read_preset_response,
    write_preset_query,
    write_preset_response,
)
from gb28181gw.gb.manscdp.records import (
    RecordInfoQuery,
    RecordInfoResponse,
    read_record_info_query,
    read_record_info_response,
    write_record_info_query,
    write_record_info_response,
)

__all__ = [
    "CONTENT_TYPE",
    "SENT_COMPLETELY",
    "BroadcastNotify",
    "BroadcastResponse",
    "CatalogEvent",
    "CatalogItem",
    "CatalogNotify",
    "CatalogQuery",
    "CatalogResponse",
    "DeviceInfoQuery",
    "DeviceInfoResponse",
    "DeviceStatusQuery",
    "DeviceStatusResponse",
    "Duty",
    "Keepalive",
    "MediaStatus",
    "Message",
    "Preset",
    "PresetQuery",
    "PresetResponse",
    "Status",
    "read",
    "read_broadcast_notify",
    "read_broadcast_response",
    "read_catalog_notify",
    "read_catalog_query",
    "read_catalog_response",
    "read_device_info_query",
    "read_device_info_response",
    "read_device_status_query",
    "read_device_status_response",
    "read_keepalive",
    "read_media_status",
    "read_preset_query",
    "read_preset_response",
    "read_record_info_query",
    "read_record_info_response",
    "sniff_keepalive",
    "write",
]

CONTENT_TYPE = "Application/MANSCDP+xml"
"""As sent; on input the content decides, not the type (XML-17)."""

Message = (
    Keepalive
    | CatalogQuery
    | CatalogResponse
    | CatalogNotify
    | DeviceInfoQuery
    | DeviceInfoResponse
    | DeviceStatusQuery
    | DeviceStatusResponse
    | MediaStatus
    | BroadcastNotify
    | BroadcastResponse
    | PresetQuery
    | PresetResponse
    | RecordInfoQuery
    | RecordInfoResponse
)

_READERS: dict[tuple[str, str], Callable[[Document], Message]] = {
    ("Notify", "Keepalive"): read_keepalive,
    ("Query", "Catalog"): read_catalog_query,
    ("Response", "Catalog"): read_catalog_response,
    ("Notify", "Catalog"): read_catalog_notify,
    ("Query", "DeviceInfo"): read_device_info_query,
    ("Response", "DeviceInfo"): read_device_info_response,
    ("Query", "DeviceStatus"): read_device_status_query,
    ("Response", "DeviceStatus"): read_device_status_response,
    ("Notify", "MediaStatus"): read_media_status,
    ("Notify", "Broadcast"): read_broadcast_notify,
    ("Response", "Broadcast"): read_broadcast_response,
    ("Query", "PresetQuery"): read_preset_query,
    ("Response", "PresetQuery"): read_preset_response,
    ("Query", "RecordInfo"): read_record_info_query,
    ("Response", "RecordInfo"): read_record_info_response,
}


def read(document: Document) -> Message | None:
    """The message of a document, or None for a kind that has no reader here.

    A `Response`/`Catalog` in the body of a NOTIFY is a notification of 2011 or 2016: its receiver calls
    `read_catalog_notify`, since only the SIP method tells.
    """
    reader = _READERS.get((document.root, document.cmd_type))
    return None if reader is None else reader(document)


def write(message: Message, charset: Charset, edition: Edition = Edition.V2_0) -> bytes:
    """Body of a message for a peer of this character set and edition (`Dialect` has both).

    Raises `GbLocalError` for a message without SN.
    """
    match message:
        case Keepalive():
            return write_keepalive(message, charset)
        case CatalogQuery():
            return write_catalog_query(message, charset)
        case CatalogResponse():
            return write_catalog_response(message, charset, edition)
        case CatalogNotify():
            return write_catalog_notify(message, charset, edition)
        case DeviceInfoQuery():
            return write_device_info_query(message, charset)
        case DeviceInfoResponse():
            return write_device_info_response(message, charset)
        case DeviceStatusQuery():
            return write_device_status_query(message, charset)
        case DeviceStatusResponse():
            return write_device_status_response(message, charset)
        case MediaStatus():
            return write_media_status(message, charset)
        case BroadcastNotify():
            return write_broadcast_notify(message, charset)
        case BroadcastResponse():
            return write_broadcast_response(message, charset)
        case PresetQuery():
            return write_preset_query(message, charset)
        case PresetResponse():
            return write_preset_response(message, charset, edition)
        case RecordInfoQuery():
            return write_record_info_query(message, charset, edition)
        case RecordInfoResponse():
            return write_record_info_response(message, charset)
        case _:
            assert_never(message)
