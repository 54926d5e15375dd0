"""What a document tells about the edition that its sender speaks, when `X-GB-Ver` did not (versions differ by
annexes A, J, N of the editions)."""

from __future__ import annotations

from itertools import islice

from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.document import Document, Element
from gb28181gw.gb.manscdp.names import local_name, words

_ONLY_2022 = frozenset(
    words(
        "CapturePositionType PhotoelectricImagingType StreamNumberList GrassrootsCode PointType "
        "SecurityLevelCode MobileDeviceType"
    )
)
_UNTIL_2016 = frozenset(words("Owner SafetyWay CertNum PositionType UseType"))
_MAX_ITEMS = 64
"""Items looked at; one device speaks one edition."""


def detect_edition(document: Document) -> Edition | None:
    """The edition, if the document shows what only one of them has.

    `Edition.V3_0` for 2022, `Edition.V2_0` for "2016 or older"; None when it shows neither, or both (vendors mix, and
    the older one then is the safe way to write: the caller's default).
    """
    newer = "ExtraInfo" in document.fields
    older = False
    if document.cmd_type == "MobilePosition" and document.root == "Notify":
        listed = "DeviceList" in document.fields
        newer, older = newer or listed, not listed
    elif document.cmd_type == "PresetQuery" and document.root == "Response":
        counted = "SumNum" in document.fields
        newer, older = newer or counted, not counted
    elif document.cmd_type == "Catalog":
        for item in islice(document.items("DeviceList"), _MAX_ITEMS):
            item_newer, item_older = _item_evidence(item, notify=document.root == "Notify")
            newer, older = newer or item_newer, older or item_older
    if newer == older:
        return None
    return Edition.V3_0 if newer else Edition.V2_0


def _item_evidence(item: Element, *, notify: bool) -> tuple[bool, bool]:
    """Whether a catalogue item has something that only 2022, or only 2016 and before, has."""
    texts = {local_name(str(child.tag)): (child.text or "").strip() for child in item}
    inner = {
        local_name(str(child.tag)): (child.text or "").strip()
        for group in item.findall("Info")
        for child in group
    }
    names = texts.keys() | inner.keys()
    ptz_type = inner.get("PTZType") or texts.get("PTZType", "")
    newer = (
        not names.isdisjoint(_ONLY_2022)
        or texts.get("RegisterWay") == "4"
        or "/" in ptz_type
        or ptz_type in {"5", "6", "7"}
        or (notify and "Event" not in texts and "Name" in texts)  # 9.11.4.3 b
    )
    older = not names.isdisjoint(_UNTIL_2016) or "BusinessGroupID" in inner
    return newer, older
