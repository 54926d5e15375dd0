"""MANSCDP bodies as a device writes them, correct or spoilt by quirks (GB/T 28181-2022 Annex A).

Written apart from the gateway's own writer on purpose: a mistake shared by both ends would stay unseen, and a
device must be able to write what the gateway's writer refuses to.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from xml.sax.saxutils import escape

from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import RecordFile

_BEIJING = timezone(timedelta(hours=8))
WHOLE_BYTES = 1_050
"""A body that with its headers still is one packet on Ethernet."""
_HALF = "@half-character@"
_GARBAGE = "@garbage@"
_GB_NAMES = frozenset({"GB2312", "GBK", "GB18030"})


@dataclass(frozen=True, slots=True)
class Element:
    """One XML element. `raw` text is written without escaping."""

    name: str
    text: str = ""
    children: tuple[Element, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    raw: bool = False


@dataclass(frozen=True, slots=True)
class SimChannel:
    """One camera of a device."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a device knows of itself when it writes bodies."""

    device_id: str
    name: str
    server_id: str
    charset: str = "GB2312"
    edition: str = "3.0"
    channels: tuple[SimChannel, ...] = ()
    page: int = 2
    quirks: frozenset[Quirk] = field(default_factory=frozenset)
    states: Mapping[str, str] = field(default_factory=dict)
    """Channel -> the last event told of it (Annex N); without one it is ON."""


def leaf(name: str, value: object) -> Element:
    return Element(name, str(value))


def render(root: Element, charset: str, quirks: frozenset[Quirk] = frozenset()) -> bytes:
    """The document as bytes in `charset`, spoilt as the XML rows say."""
    declared = charset
    encoding = "gb18030" if charset.upper() in _GB_NAMES else "utf-8"
    if Quirk.XML_01 in quirks:
        declared, encoding = "GB2312", "gb18030"
    if Quirk.XML_02 in quirks:
        declared, encoding = "GB2312", "utf-8"
    if Quirk.XML_10 in quirks:
        root = _with_attributes(root)
    parts: list[str] = []
    if Quirk.XML_03 in quirks:
        encoding = "utf-8"
        parts.append("\ufeff\r\n\r\n")
    else:
        parts.append(f'<?xml version="1.0" encoding="{declared}"?>\r\n')
    _write(root, parts, lower=Quirk.XML_10 in quirks)
    if Quirk.XML_18 in quirks:
        parts.append("<Notify><CmdType>VendorState</CmdType><SN>1</SN></Notify>\r\n")
    text = "".join(parts)
    if Quirk.XML_08 in quirks:
        text = text.replace("</Item>", "</Item></Item>", 1)
    data = text.encode(encoding, "replace")
    # The first byte of a two-byte character, cut off from its second.
    data = data.replace(_HALF.encode(), b"\xb5")
    data = data.replace(_GARBAGE.encode(), b"\x00\xfe\x80\x1b\xff\xc3<\x9a&#")
    if Quirk.XML_08_CUT in quirks:
        data = data.rstrip()[:-3]
    if Quirk.XML_16 in quirks:
        middle = len(data) // 2
        data = data[:middle] + b"\x7f\x15" + data[middle + 2 :]
    if Quirk.XML_16_ALL in quirks and root.name == "Response":
        data = data.translate(None, b"<>")
    if Quirk.XML_04 in quirks:
        data += b"\0\0\0"
    return data


def _write(element: Element, parts: list[str], *, lower: bool) -> None:
    name = element.name.lower() if lower else element.name
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in element.attributes)
    parts.append(f"<{name}{attributes}>")
    if element.children:
        parts.append("\r\n")
        for child in element.children:
            _write(child, parts, lower=lower)
    else:
        parts.append(element.text if element.raw else escape(element.text))
    parts.append(f"</{name}>\r\n")


def _with_attributes(root: Element) -> Element:
    """CmdType and SN moved from children to attributes (XML-10)."""
    moved = tuple((child.name, child.text) for child in root.children if child.name in ("CmdType", "SN"))
    rest = tuple(child for child in root.children if child.name not in ("CmdType", "SN"))
    return Element(root.name, root.text, rest, root.attributes + moved)


# --- notifications ------------------------------------------------------------------------------------------------


def keepalive(me: Identity, sn: int) -> Element:
    """A.2.5.2."""
    fields = [leaf("CmdType", "Keepalive"), leaf("SN", sn), leaf("DeviceID", me.device_id)]
    if Quirk.KA_06 in me.quirks:
        return Element("Response", children=tuple(fields))
    if Quirk.KA_06_ERROR in me.quirks:
        faulty = tuple(leaf("DeviceID", channel.id) for channel in me.channels[:3])
        fields += [leaf("Status", "ERROR"), Element("Info", children=faulty)]
    else:
        fields.append(leaf("Status", "OK"))
    return Element("Notify", children=tuple(fields))


def alarm(source: str, sn: int, when: str, *, description: str = "", edition: str = "3.0") -> Element:
    """A.2.5.3: a moving object was seen; the type stands in Info since 2016, beside before."""
    kind = leaf("AlarmType", 2)
    fields = [
        leaf("CmdType", "Alarm"),
        leaf("SN", sn),
        leaf("DeviceID", source),
        leaf("AlarmPriority", 2),
        leaf("AlarmMethod", 5),
        leaf("AlarmTime", when),
    ]
    if description:
        fields.append(leaf("AlarmDescription", description))
    if edition in ("2.0", "3.0"):
        fields.append(Element("Info", children=(kind,)))
    return Element("Notify", children=tuple(fields))


def mobile_position(me: Identity, sn: int, when: str, places: Sequence[tuple[str, float, float]]) -> Element:
    """A.2.5.6 as a list, or in the flat form of 2016 with the first place."""
    head_fields = [leaf("CmdType", "MobilePosition"), leaf("SN", sn)]
    if me.edition != "3.0":
        _, longitude, latitude = places[0]
        flat = (
            leaf("Time", when),
            leaf("Longitude", longitude),
            leaf("Latitude", latitude),
            leaf("Speed", 36),
        )
        return Element("Notify", children=(*head_fields, *flat))
    items = tuple(
        Element(
            "Item",
            children=(
                leaf("DeviceID", source),
                leaf("CaptureTime", when),
                leaf("Longitude", longitude),
                leaf("Latitude", latitude),
                leaf("Speed", 36),
                leaf("Direction", 90),
            ),
        )
        for source, longitude, latitude in places
    )
    listed = Element("DeviceList", children=items, attributes=(("Num", str(len(items))),))
    fields = (leaf("DeviceID", me.device_id), leaf("Time", when), leaf("SumNum", len(items)), listed)
    return Element("Notify", children=(*head_fields, *fields))


# --- answers ------------------------------------------------------------------------------------------------------


def head(me: Identity, command: str, sn: str, device_id: str) -> list[Element]:
    fields = [leaf("CmdType", command)]
    if Quirk.XML_11_OTHER in me.quirks:
        fields.append(leaf("SN", int(sn) + 7 if sn.isdecimal() else 7))
    elif Quirk.XML_11 not in me.quirks:
        fields.append(leaf("SN", sn))
    if Quirk.XML_12 in me.quirks and command != "Catalog" and me.channels:
        device_id = me.channels[0].id
    fields.append(leaf("DeviceID", device_id))
    return fields


def device_info(me: Identity, sn: str, device_id: str) -> Element:
    """A.2.6.5."""
    fields = head(me, "DeviceInfo", sn, device_id)
    fields.append(leaf("DeviceName", me.name))
    if Quirk.XML_13 not in me.quirks:
        fields.append(leaf("Result", "OK"))
    placeholder = Quirk.CAT_11 in me.quirks
    fields += [
        leaf("Manufacturer", "Manufacturer" if placeholder else "gb28181gw"),
        leaf("Model", "Model" if placeholder else "Simulator"),
        leaf("Firmware", "V1.0"),
    ]
    if me.edition == "1.0":
        fields += [leaf("DeviceType", "NVR"), leaf("MaxCamera", len(me.channels)), leaf("MaxAlarm", 0)]
    else:
        fields.append(leaf("Channel", len(me.channels)))
    return Element("Response", children=tuple(fields))


def device_status(
    me: Identity, sn: str, device_id: str, device_time: str, *, recording: bool = False, guarded: bool = False
) -> Element:
    """A.2.6.6; the duty of the alarm input is told while it is armed."""
    fields = head(me, "DeviceStatus", sn, device_id)
    fields += [
        leaf("Result", "成功" if Quirk.XML_13 in me.quirks else "OK"),
        leaf("Online", "ONLINE"),
        leaf("Status", "OK"),
        leaf("Encode", "ON"),
        leaf("Record", "ON" if recording else "OFF"),
        leaf("DeviceTime", device_time),
    ]
    if guarded:
        duty = "Status" if me.edition == "1.0" else "DutyStatus"  # so named in the schema of 2011
        item = Element("Item", children=(leaf("DeviceID", device_id), leaf(duty, "ONDUTY")))
        fields.append(Element("Alarmstatus", children=(item,), attributes=(("Num", "1"),)))
    return Element("Response", children=tuple(fields))


def media_status(channel_id: str, sn: int, kind: int) -> Element:
    """A.2.5.4: the recording was sent to its end."""
    return Element(
        "Notify",
        children=(
            leaf("CmdType", "MediaStatus"),
            leaf("SN", sn),
            leaf("DeviceID", channel_id),
            leaf("NotifyType", kind),
        ),
    )


RECORDS_PAGE = 4
"""Recordings in one message."""


def record_messages(
    me: Identity, sn: str, device_id: str, found: Sequence[RecordFile], rng: random.Random
) -> list[Element]:
    """A.2.6.7 in parts; with nothing found SumNum 0 and no list (Annex M)."""
    name = next((channel.name for channel in me.channels if channel.id == device_id), me.name)
    page = 1 if Quirk.PB_04 in me.quirks else RECORDS_PAGE
    messages = []
    for first in range(0, max(len(found), 1), page):
        items = tuple(_record(me, device_id, name, file) for file in found[first : first + page])
        fields = [*head(me, "RecordInfo", sn, device_id), leaf("Name", name), leaf("SumNum", len(found))]
        if items:
            fields.append(Element("RecordList", children=items, attributes=(("Num", str(len(items))),)))
        messages.append(Element("Response", children=tuple(fields)))
    if not found and Quirk.PB_06 in me.quirks:
        return []
    if Quirk.PB_04_LOST in me.quirks:
        return [message for number, message in enumerate(messages, 1) if number % 3]
    if Quirk.PB_04_LATE in me.quirks:
        *early, last = messages
        twice = [message for message in early for _ in range(2)]
        rng.shuffle(twice)
        return [*twice, last]
    return messages


def _record(me: Identity, device_id: str, name: str, file: RecordFile) -> Element:
    odd = Quirk.PB_18 in me.quirks
    path = f"/disk 1/{file.start}<{file.end}>.ps" if odd else f"/record/{file.start}.ps"
    return Element(
        "Item",
        children=(
            leaf("DeviceID", device_id),
            leaf("Name", name),
            Element("FilePath", path, raw=odd),
            leaf("Address", "Simulator"),
            leaf("StartTime", record_time(me, file.start)),
            leaf("EndTime", record_time(me, file.end)),
            leaf("Secrecy", " 0 " if odd else "0"),
            leaf("Type", {"time": "3", "alarm": "2"}[file.kind] if odd else file.kind),
            leaf("RecorderID", me.device_id),
        ),
    )


def record_time(me: Identity, seconds: int) -> str:
    """Beijing time without zone; PB-01: in one of the other forms that occur."""
    local = datetime.fromtimestamp(seconds, _BEIJING)
    if Quirk.PB_01 not in me.quirks:
        return local.strftime("%Y-%m-%dT%H:%M:%S")
    if seconds // 600 % 3 == 0:
        return f"{local.year}-{local.month}-{local.day} {local.hour}:{local.minute}:{local.second}"
    if seconds // 600 % 3 == 1:
        return local.strftime("%Y-%m-%dT%H:%M:%S.000")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def basic_param(me: Identity, written: Mapping[str, str], expires_s: int, keepalive_s: float) -> Element:
    """BasicParam (A.2.1.19); what was `written` wins over what the device began with."""
    values = {
        "Name": me.name,
        "Expiration": str(expires_s),
        "HeartBeatInterval": str(max(1, round(keepalive_s))),
        "HeartBeatCount": "3",
        **written,
    }
    if Quirk.KA_02 in me.quirks:
        values |= {"HeartBeatInterval": "0", "HeartBeatCount": "-1"}
    return Element("BasicParam", children=tuple(leaf(name, value) for name, value in values.items()))


def result(me: Identity, command: str, sn: str, device_id: str, outcome: str) -> Element:
    """An answer that is only a result (A.2.6.2, A.2.6.8)."""
    return Element("Response", children=(*head(me, command, sn, device_id), leaf("Result", outcome)))


# --- catalogue ----------------------------------------------------------------------------------------------------

_STATUS_FORMS = ("ON", "OK", "ONLINE", "On", "1", "", "OFF")
_PARENTAL_FORMS = ("65535", "255")


def catalog_items(me: Identity) -> list[Element]:
    """The Item elements of everything that the device has, in its order (A.2.1.9)."""
    items = [
        _camera(me, index, channel)
        for index, channel in enumerate(me.channels)
        if me.states.get(channel.id) != "DEL"
    ]
    if Quirk.CAT_16 in me.quirks:
        items += [
            _plain(me, _typed(me.device_id, "134"), "Alarm input 1"),
            _plain(me, _typed(me.device_id, "133"), "Display 1"),
            _plain(me, _typed(me.device_id, "137"), "Loudspeaker 1"),
        ]
    if Quirk.CAT_12 in me.quirks:
        group, first, second = (
            _typed(me.device_id, "215"),
            _typed(me.device_id, "216"),
            _typed(me.device_id, "216", 2),
        )
        items += [
            _plain(me, second, "Second floor", (leaf("ParentID", first),)),
            _plain(me, first, "Building A", (leaf("ParentID", group), leaf("BusinessGroupID", group))),
            _plain(me, group, "Site", (leaf("ParentID", group),)),
        ]
    return items


def _typed(device_id: str, kind: str, number: int = 1) -> str:
    """An id of the device's region with another type."""
    return f"{device_id[:10]}{kind}{device_id[13:18]}{number:02d}"


def _plain(me: Identity, node_id: str, name: str, extra: tuple[Element, ...] = ()) -> Element:
    parent = () if extra else (leaf("ParentID", me.device_id),)
    fields = (leaf("DeviceID", node_id), leaf("Name", name), leaf("Status", "ON"), *parent, *extra)
    return Element("Item", children=fields)


def channel_name(me: Identity, name: str) -> str:
    """The name of a channel as the quirks of names want it."""
    if Quirk.XML_01 in me.quirks:
        # U+9555 and U+3400 are in GB18030 and not in GB 2312; the second takes four bytes.
        name += " 鎕\u3400"
    if Quirk.XML_05 in me.quirks:
        name += " A&B &nosuch;"
    if Quirk.XML_23 in me.quirks:
        name += " 'quote\" \U0001f4f7 " + "x" * 300
    return name


def _camera(me: Identity, index: int, channel: SimChannel) -> Element:
    quirks = me.quirks
    placeholder = Quirk.CAT_11 in quirks
    own_id = me.device_id if Quirk.CAT_14 in quirks and index == 0 else channel.id
    address = f"Gate {index + 1}"
    raw = False
    if placeholder:
        address = "Address"
    if Quirk.XML_04 in quirks:
        address, raw = f"Gate\x01\x02 {index + 1}", True
    if Quirk.XML_05 in quirks:
        address, raw = f"http://192.0.2.1/?a={index}&b=2", True
    if Quirk.XML_06 in quirks:
        # Every other item has the raw <, the rest the half character in front of the closing tag.
        address, raw = ("East < West" if index % 2 == 0 else f"Gate {_HALF}"), True
    if Quirk.XML_07 in quirks:
        address, raw = f"Gate {_GARBAGE}", True
    civil_code = me.device_id[:6]
    if Quirk.CAT_10 in quirks:
        civil_code = ("CivilCode", me.device_id, "34020")[index % 3]
    parent = me.device_id
    if Quirk.CAT_07 in quirks:
        parent = (me.server_id, me.device_id, "0", "", f"{me.server_id}/{me.device_id}")[index % 5]
    if Quirk.CAT_12 in quirks:
        parent = f"{_typed(me.device_id, '215')}/{_typed(me.device_id, '216', 1 + index % 2)}"
    parental = _PARENTAL_FORMS[index % 2] if Quirk.CAT_08 in quirks else "0"
    status = _STATUS_FORMS[index % len(_STATUS_FORMS)] if Quirk.CAT_09 in quirks else "ON"
    if me.states.get(channel.id) in ABNORMAL:
        status = "OFF"
    fields = [
        leaf("DeviceID", own_id),
        Element("Name", channel_name(me, channel.name), raw=Quirk.XML_05 in quirks),
        leaf("Manufacturer", "Manufacturer" if placeholder else "gb28181gw"),
        leaf("Model", "Model" if placeholder else "Simulator"),
    ]
    if me.edition != "3.0" or placeholder:
        fields.append(leaf("Owner", "Owner" if placeholder else "0"))
    fields += [
        leaf("CivilCode", civil_code),
        Element("Address", address, raw=raw),
        leaf("Parental", parental),
        leaf("ParentID", parent),
    ]
    if me.edition != "3.0":
        fields.append(leaf("SafetyWay", 0))
    fields += [leaf("RegisterWay", 1), leaf("Secrecy", 0)]
    if status:
        fields.append(leaf("Status", status))
    fields += [
        # Spread over a small grid, so that a map shows distinct points.
        leaf("Longitude", f"{117.27 + index % 10 / 1000:.6f}"),
        leaf("Latitude", f"{31.86 + index // 10 / 1000:.6f}"),
    ]
    if me.edition != "1.0":
        fields.append(Element("Info", children=(leaf("PTZType", 1 if index % 2 == 0 else 3),)))
    return Element("Item", children=tuple(fields))


def catalog_message(
    me: Identity, sn: str, device_id: str, items: Sequence[Element], total: int, num: int
) -> Element:
    """One part of a catalogue answer (A.2.6.4)."""
    fields = [*head(me, "Catalog", sn, device_id), leaf("SumNum", total)]
    if items or (total and num):
        fields.append(Element("DeviceList", children=tuple(items), attributes=(("Num", str(num)),)))
    return Element("Response", children=tuple(fields))


def catalog_messages(me: Identity, sn: str, device_id: str, rng: random.Random) -> list[Element]:
    """The whole answer to a Catalog query, message by message, in the order of sending. Empty: no answer."""
    quirks = me.quirks
    if Quirk.CAT_15 in quirks:
        return []
    items = catalog_items(me)
    if device_id != me.device_id:
        items = [item for item in items if item.children[0].text == device_id]
    total = len(items)
    if not items:
        return [catalog_message(me, sn, device_id, (), 0, 0)]
    messages: list[Element] = []
    if Quirk.CAT_05 in quirks:
        messages.append(catalog_message(me, sn, device_id, (), total, 1))
    for start in range(0, total, me.page):
        part = items[start : start + me.page]
        announced = total
        if Quirk.CAT_01 in quirks:
            announced = total + 5
        elif Quirk.CAT_02 in quirks:
            announced = len(part)
        num = len(part) + 3 if Quirk.CAT_05 in quirks else len(part)
        messages.append(catalog_message(me, sn, device_id, part, announced, num))
    if Quirk.CAT_04 in quirks:
        in_order = [message for message in messages for _ in range(2)]
        messages = in_order.copy()
        rng.shuffle(messages)
        if messages == in_order:
            messages.reverse()
    return messages


ABNORMAL = ("OFF", "VLOST", "DEFECT")
"""Events after which a channel cannot be played."""


def catalog_change(me: Identity, sn: int, target: str, changes: Sequence[tuple[str, str]]) -> Element:
    """A catalogue notification of (channel, event) (N.4.3.2); ADD and UPDATE have full items."""
    full = {channel.id: _camera(me, index, channel) for index, channel in enumerate(me.channels)}
    as_2011 = Quirk.CAT_20_FULL in me.quirks
    items: list[Element] = []
    for channel_id, event in changes:
        word = event.lower() if Quirk.CAT_20 in me.quirks else event
        own = leaf("DeviceID", channel_id)
        whole = full.get(channel_id)
        if as_2011 and whole is not None:
            items.append(whole)
        elif event in ("ADD", "UPDATE") and whole is not None:
            items.append(Element("Item", children=(own, leaf("Event", word), *whole.children[1:])))
        else:
            items.append(Element("Item", children=(own, leaf("Event", word))))
    fields = (
        leaf("CmdType", "Catalog"),
        leaf("SN", sn),
        leaf("DeviceID", target),
        leaf("SumNum", len(items)),
        Element("DeviceList", children=tuple(items), attributes=(("Num", str(len(items))),)),
    )
    return Element("Response" if as_2011 else "Notify", children=fields)


def ptz_position(sn: int, target: str, place: tuple[float, float, float]) -> Element:
    """Notify/PTZPosition (9.11.2.3 d)."""
    pan, tilt, zoom = place
    fields = (
        leaf("CmdType", "PTZPosition"),
        leaf("SN", sn),
        leaf("DeviceID", target),
        leaf("Pan", f"{pan:.2f}"),
        leaf("Tilt", f"{tilt:.2f}"),
        leaf("Zoom", f"{zoom:.2f}"),
    )
    return Element("Notify", children=fields)


def spontaneous_catalog(me: Identity, sn: int) -> Element | None:
    """CAT-03: one item with SumNum 1 that nobody asked for."""
    items = catalog_items(me)
    if not items:
        return None
    return catalog_message(me, str(sn), me.device_id, items[:1], 1, 1)


def is_lost_on_the_way(me: Identity, data: bytes, transport: str) -> bool:
    """XML-15: a long body over UDP goes in fragments, and something on the way drops those."""
    return Quirk.XML_15 in me.quirks and transport == "udp" and len(data) > WHOLE_BYTES


def items_of(body: Element) -> tuple[Element, ...]:
    """Items of a catalogue message."""
    return next((child.children for child in body.children if child.name == "DeviceList"), ())
