"""Catalogue messages (GB/T 28181-2022 A.2.4.3, A.2.6.4, Annex N) and their items (A.2.1.9).

Counts are hints (`SumNum`, `Num`: CAT-02, CAT-05); the items are what counts. Strings that repeat from item to item
(manufacturer, model, owner, regions, parents) are interned, so that 100,000 channels share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from sys import intern

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.ids import NodeKind, clean_id, node_kind, normalise_civil_code
from gb28181gw.gb.manscdp.document import Document, Element, parse_float, parse_int
from gb28181gw.gb.manscdp.names import INFO_FIELDS, ITEM_FIELDS, local_name, words
from gb28181gw.gb.manscdp.writer import Writer, number
from gb28181gw.gb.quirks import Quirk

MAX_TEXT = 255
"""Characters kept of a text (XML-23)."""
MAX_EXTRA = 16
"""Unknown elements kept of an item."""


class Status(StrEnum):
    """What the device says of a channel. UNKNOWN is shown as playable (CAT-09)."""

    ON = "ON"
    OFF = "OFF"
    UNKNOWN = "UNKNOWN"


class CatalogEvent(StrEnum):
    """Events of catalogue notifications (Annex N). VLOST and DEFECT: listed, but not playable now (CAT-20)."""

    ON = "ON"
    OFF = "OFF"
    VLOST = "VLOST"
    DEFECT = "DEFECT"
    ADD = "ADD"
    DEL = "DEL"
    UPDATE = "UPDATE"


_STATUS = {
    **dict.fromkeys(("ON", "OK", "ONLINE", "1", "TRUE", "NORMAL", "UP", "在线", "正常"), Status.ON),
    **dict.fromkeys(
        (
            "OFF",
            "OFFLINE",
            "0",
            "FALSE",
            "DOWN",
            "ERROR",
            "NOTOK",
            "VLOST",
            "DEFECT",
            "FAULT",
            "离线",
            "不在线",
            "故障",
        ),
        Status.OFF,
    ),
    "": Status.UNKNOWN,
}

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogItem:
    """One node of a catalogue: region, system, group, organisation, device or channel."""

    device_id: str
    name: str = ""
    manufacturer: str = ""
    model: str = ""
    owner: str = ""
    civil_code: str = ""
    """Region of 2, 4, 6 or 8 digits, normalised (CAT-10); empty when none was given."""
    block: str = ""
    address: str = ""
    parental: bool | None = None
    """Has children; None when not told."""
    parent_id: str = ""
    """As sent; several joined by ``/``."""
    parent_ids: tuple[str, ...] = ()
    """The parts of `parent_id` without ``0`` and blanks, in order; a path's nearest parent is the last (CAT-07).
    Parts that name the server or the item itself are for the caller to ignore."""
    safety_way: int | None = None
    register_way: int | None = None
    secrecy: int | None = None
    ip_address: str = ""
    port: int | None = None
    status: Status = Status.UNKNOWN
    status_text: str = ""
    """`Status` as sent."""
    longitude: float | None = None
    """Degrees, WGS-84; None when absent or impossible."""
    latitude: float | None = None
    business_group_id: str = ""
    """From the item or from its `Info` (addressing differs between 2016 and 2022)."""
    ptz_type: str = ""
    """A code 1..7, in 2022 also several joined by ``/``."""
    event: CatalogEvent | None = None
    """Of notifications; None in responses without one."""
    details: Pairs = ()
    """Other members that the standard knows (certificate fields, members of `Info`), by element name."""
    extra: Pairs = ()
    """Elements that the standard does not know, at most `MAX_EXTRA`."""

    @property
    def kind(self) -> NodeKind:
        """What the code says; a hint (CAT-16, REG-14)."""
        return node_kind(self.device_id)

    def detail(self, name: str) -> str:
        """Text of a member by its element name; empty when absent."""
        return next((text for key, text in self.details if key == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogQuery:
    """Query/Catalog: asks for the items at and below `device_id`."""

    sn: int | None
    device_id: str
    start_time: str = ""
    """Only devices added since; empty: no limit."""
    end_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogResponse:
    """Response/Catalog: one part of an answer."""

    sn: int | None
    device_id: str
    sum_num: int | None
    """Items of all parts, as the device believes; None when unreadable."""
    items: tuple[CatalogItem, ...] = ()
    quirks: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogNotify:
    """Notify/Catalog, or Response/Catalog in the body of a NOTIFY (2011, 2016): changes of the catalogue.

    Every item has an `event`; without one in the text it is UPDATE (CAT-20).
    """

    sn: int | None
    device_id: str
    sum_num: int | None
    items: tuple[CatalogItem, ...] = ()
    quirks: tuple[Quirk, ...] = ()


# --- reading -----------------------------------------------------------------------------------------------------

# Members that become attributes of their own.
_ATTRIBUTES = frozenset(
    words(
        "DeviceID Name Manufacturer Model Owner CivilCode Block Address Parental ParentID SafetyWay RegisterWay "
        "Secrecy IPAddress Port Status Longitude Latitude BusinessGroupID PTZType Event"
    )
)
_SKIPPED = frozenset({"Info", "Password"})
"""Handled apart; a password in a catalogue is never kept."""
_DETAILS = frozenset(ITEM_FIELDS + INFO_FIELDS) - _ATTRIBUTES - _SKIPPED
_HANDLED = _ATTRIBUTES | _SKIPPED


def read_catalog_query(document: Document) -> CatalogQuery:
    return CatalogQuery(
        sn=document.sn,
        device_id=document.device_id,
        start_time=document.text("StartTime")[:32],
        end_time=document.text("EndTime")[:32],
    )


def read_catalog_response(document: Document) -> CatalogResponse:
    """Lenient reader of one part. Items without an id are left out and named by a quirk.

    What was read is kept with the document, so that it can be read ahead in a thread.
    """
    kept = document.kept.get("catalog")
    if isinstance(kept, CatalogResponse):
        return kept
    quirks: dict[Quirk, None] = dict.fromkeys(document.quirks)
    items = _read_items(document, quirks)
    response = CatalogResponse(
        sn=document.sn,
        device_id=document.device_id,
        sum_num=parse_int(document.text("SumNum")),
        items=tuple(items),
        quirks=tuple(quirks),
    )
    document.kept["catalog"] = response
    return response


def read_catalog_notify(document: Document) -> CatalogNotify:
    """Lenient reader of a notification of any edition."""
    quirks: dict[Quirk, None] = dict.fromkeys(document.quirks)
    items = _read_items(document, quirks, default_event=CatalogEvent.UPDATE)
    return CatalogNotify(
        sn=document.sn,
        device_id=document.device_id,
        sum_num=parse_int(document.text("SumNum")),
        items=tuple(items),
        quirks=tuple(quirks),
    )


def _read_items(
    document: Document, quirks: dict[Quirk, None], default_event: CatalogEvent | None = None
) -> list[CatalogItem]:
    items: list[CatalogItem] = []
    seen = 0
    for element in document.items("DeviceList"):
        seen += 1
        item = _read_item(element, document, quirks, default_event)
        if item is None:
            quirks[Quirk.CATALOG_ITEM_WITHOUT_ID] = None
        else:
            items.append(item)
    announced = document.num("DeviceList")
    if announced is not None and announced != seen:
        quirks[Quirk.CATALOG_COUNT_DIFFERS] = None
    return items


def _read_item(
    element: Element, document: Document, quirks: dict[Quirk, None], default_event: CatalogEvent | None
) -> CatalogItem | None:
    """One item. Written flat and without helpers where it can be: it runs 12,000 times a second."""
    texts: dict[str, str | None] = {child.tag: child.text for child in element}
    if "Info" in texts:
        for child in element:
            if child.tag == "Info":
                for member in child:
                    texts.setdefault(str(member.tag), member.text)
    extra: Pairs = ()
    details: Pairs = ()
    rest = texts.keys() - _HANDLED
    if rest:
        details, extra = _sort_rest(element, texts, rest, quirks)
    get = texts.get
    device_id = (get("DeviceID") or "").strip()
    if not device_id or (document.recovered and len(texts) == 1 and element.getnext() is None):
        return None  # nothing to key it by, or the last item of a cut body, cut inside its id
    if ";" in device_id or len(device_id) > 64:
        device_id = clean_id(device_id)[:64]
        quirks[Quirk.ID_FORM] = None
    if device_id == document.device_id:
        quirks[Quirk.CATALOG_SELF_ITEM] = None

    parent_id = intern((get("ParentID") or "").strip()[:MAX_TEXT])
    status_text = (get("Status") or "").strip()
    status = _STATUS.get(status_text)
    if status is None or (status_text != "ON" and status_text != "OFF"):
        status = _read_status(status_text, quirks)
    civil_text = (get("CivilCode") or "").strip()
    civil_code = normalise_civil_code(civil_text)
    if civil_code != civil_text:
        quirks[Quirk.CATALOG_CIVIL_CODE] = None
    return CatalogItem(
        device_id=device_id,
        name=_text(get("Name"), quirks),
        manufacturer=_repeated(get("Manufacturer"), "Manufacturer", quirks),
        model=_repeated(get("Model"), "Model", quirks),
        owner=_repeated(get("Owner"), "Owner", quirks),
        civil_code=intern(civil_code),
        block=_repeated(get("Block"), "Block", quirks),
        address=_repeated(get("Address"), "Address", quirks),
        parental=_parental(get("Parental"), quirks),
        parent_id=parent_id,
        parent_ids=_parents(parent_id, quirks),
        safety_way=_int(get("SafetyWay")),
        register_way=_int(get("RegisterWay")),
        secrecy=_int(get("Secrecy")),
        ip_address=(get("IPAddress") or "").strip()[:64],
        port=_int(get("Port")),
        status=status,
        status_text=intern(status_text[:32]),
        longitude=_degrees(get("Longitude"), 180.0),
        latitude=_degrees(get("Latitude"), 90.0),
        business_group_id=intern((get("BusinessGroupID") or "").strip()[:64]),
        ptz_type=intern((get("PTZType") or "").strip()[:16]),
        event=_event(get("Event"), default_event, quirks),
        details=details,
        extra=extra,
    )


def _sort_rest(
    element: Element, texts: dict[str, str | None], rest: Iterable[str], quirks: dict[Quirk, None]
) -> tuple[Pairs, Pairs]:
    """Members beyond the attributes: known ones, and unknown ones whose name may only be in another case."""
    details: list[tuple[str, str]] = []
    extra: list[tuple[str, str]] = []
    for tag in sorted(rest):
        name = local_name(tag)
        if name != tag:
            quirks[Quirk.XML_NAME_FORM] = None
            if name in _HANDLED:
                if name == "Info":
                    for member in element.findall(tag):
                        for inner in member:
                            texts.setdefault(local_name(str(inner.tag)), inner.text)
                else:
                    texts.setdefault(name, texts[tag])
                continue
        text = (texts[tag] or "").strip()[:MAX_TEXT]
        if name in _DETAILS:
            if text:
                details.append((name, intern(text)))
        elif len(extra) < MAX_EXTRA:
            extra.append((name[:64], text or _inner_text(element, tag)))
    return tuple(details), tuple(extra)


def _inner_text(element: Element, tag: str) -> str:
    """Text inside an unknown element that has children of its own."""
    found = next(element.iter(tag), None)
    return "" if found is None else " ".join("".join(map(str, found.itertext())).split())[:MAX_TEXT]


def _text(value: str | None, quirks: dict[Quirk, None]) -> str:
    if value is None:
        return ""
    text = value.strip()
    if len(text) > MAX_TEXT:
        quirks[Quirk.XML_TEXT_CUT] = None
        return text[:MAX_TEXT]
    return text


def _repeated(value: str | None, name: str, quirks: dict[Quirk, None]) -> str:
    """A text that many items share. One that only repeats its element's name says nothing (CAT-11)."""
    if value is None:
        return ""
    text = _text(value, quirks)
    if len(text) == len(name) and text.lower() == name.lower():
        quirks[Quirk.CATALOG_PLACEHOLDER] = None
        return ""
    return intern(text)


def _int(value: str | None) -> int | None:
    return None if value is None else parse_int(value)


def _degrees(value: str | None, limit: float) -> float | None:
    if value is None:
        return None
    degrees = parse_float(value)
    return degrees if degrees is not None and -limit <= degrees <= limit else None


def _parental(value: str | None, quirks: dict[Quirk, None]) -> bool | None:
    """Any number but 0 means children (CAT-08)."""
    if value == "0":
        return False
    if value == "1":
        return True
    count = _int(value)
    if count is None:
        return None
    if count not in {0, 1}:
        quirks[Quirk.CATALOG_PARENTAL_VALUE] = None
    return count != 0


def _parents(text: str, quirks: dict[Quirk, None]) -> tuple[str, ...]:
    """Each part of a `ParentID` (Annex J allows several); ``0`` is no parent (CAT-07)."""
    if not text:
        return ()
    if "/" not in text and text.strip("0"):
        return (text,)
    parts = [part.strip() for part in text.split("/")]
    kept = tuple(intern(part[:64]) for part in parts if part.strip("0"))
    if len(kept) != len(parts):
        quirks[Quirk.CATALOG_PARENT_FORM] = None
    return kept[:16]


def _read_status(text: str, quirks: dict[Quirk, None]) -> Status:
    if text:
        quirks[Quirk.CATALOG_STATUS_SYNONYM] = None
    return _STATUS.get(text.upper(), Status.UNKNOWN)


def _event(value: str | None, default: CatalogEvent | None, quirks: dict[Quirk, None]) -> CatalogEvent | None:
    text = "" if value is None else value.strip()
    if not text:
        if default is not None:
            quirks[Quirk.CATALOG_EVENT_FORM] = None
        return default
    try:
        return CatalogEvent(text)
    except ValueError:
        quirks[Quirk.CATALOG_EVENT_FORM] = None
    try:
        return CatalogEvent(text.upper())
    except ValueError:
        return default


# --- writing -----------------------------------------------------------------------------------------------------


def write_catalog_query(message: CatalogQuery, charset: Charset) -> bytes:
    writer = Writer("Query", "Catalog", message.sn, message.device_id)
    writer.optional("StartTime", message.start_time)
    writer.optional("EndTime", message.end_time)
    return writer.finish(charset)


def write_catalog_response(
    message: CatalogResponse, charset: Charset, edition: Edition = Edition.V2_0
) -> bytes:
    """One part. With no items and `sum_num` 0 the list is left out (Annex M)."""
    writer = Writer("Response", "Catalog", message.sn, message.device_id)
    sum_num = len(message.items) if message.sum_num is None else message.sum_num
    writer.leaf("SumNum", str(sum_num))
    if message.items or sum_num:
        _write_items(writer, message.items, edition)
    return writer.finish(charset)


def write_catalog_notify(message: CatalogNotify, charset: Charset, edition: Edition = Edition.V2_0) -> bytes:
    """`SumNum` is the number of items of this message (N.4.3.2)."""
    writer = Writer("Notify", "Catalog", message.sn, message.device_id)
    writer.leaf("SumNum", str(len(message.items)))
    _write_items(writer, message.items, edition)
    return writer.finish(charset)


def _write_items(writer: Writer, items: tuple[CatalogItem, ...], edition: Edition) -> None:
    with writer.group("DeviceList", len(items)):
        for item in items:
            with writer.group("Item"):
                _write_item(writer, item, edition)


_ONLY_2016_ITEM = frozenset({"Owner", "SafetyWay", "CertNum", "Certifiable", "ErrCode", "EndTime"})
_ONLY_2016_INFO = frozenset({"PositionType", "UseType", "BusinessGroupID"})
_ONLY_2022_ITEM = frozenset({"SecurityLevelCode"})
_ONLY_2022_INFO = frozenset(
    words(
        "PhotoelectricImagingType CapturePositionType StreamNumberList SSVCRatioSupportList MobileDeviceType "
        "HorizontalFieldAngle VerticalFieldAngle MaxViewDistance GrassrootsCode PointType PointCommonName MAC "
        "FunctionType EncodeType InstallTime ManagementUnit ContactInfo RecordSaveDays IndustrialClassification"
    )
)


def _write_item(writer: Writer, item: CatalogItem, edition: Edition) -> None:
    values = _values(item)
    unwritten = _ONLY_2016_ITEM if edition >= Edition.V3_0 else _ONLY_2022_ITEM
    for name in ITEM_FIELDS:
        if name not in unwritten:
            writer.optional(name, values.get(name, ""))
        if name == "DeviceID" and item.event is not None:
            writer.leaf("Event", item.event.value)
    unwritten = _ONLY_2016_INFO if edition >= Edition.V3_0 else _ONLY_2022_INFO
    info = [(name, values[name]) for name in INFO_FIELDS if name not in unwritten and values.get(name)]
    if info:
        with writer.group("Info"):
            for name, value in info:
                writer.leaf(name, value)


def _values(item: CatalogItem) -> dict[str, str]:
    return {
        **dict(item.details),
        "DeviceID": item.device_id,
        "Name": item.name,
        "Manufacturer": item.manufacturer,
        "Model": item.model,
        "Owner": item.owner,
        "CivilCode": item.civil_code,
        "Block": item.block,
        "Address": item.address,
        "Parental": "" if item.parental is None else str(int(item.parental)),
        "ParentID": item.parent_id or "/".join(item.parent_ids),
        "SafetyWay": _number_text(item.safety_way),
        "RegisterWay": _number_text(item.register_way),
        "Secrecy": _number_text(item.secrecy),
        "IPAddress": item.ip_address,
        "Port": _number_text(item.port),
        "Status": "" if item.status is Status.UNKNOWN else item.status.value,
        "Longitude": _number_text(item.longitude),
        "Latitude": _number_text(item.latitude),
        "BusinessGroupID": item.business_group_id,
        "PTZType": item.ptz_type,
    }


def _number_text(value: float | None) -> str:
    return "" if value is None else number(value)
