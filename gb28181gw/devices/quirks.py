"""The rows of all tolerances that a device's `quirks` may show: of its SIP, its bodies, its media, and of ours here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gb28181gw.gb.quirks import Quirk
from gb28181gw.media.quirks import MEDIA_QUIRKS
from gb28181gw.sip.quirks import SipQuirk

QUIRK_ROWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{quirk.value: quirk.row for quirk in Quirk},
        **{quirk.value: quirk.row for quirk in SipQuirk},
        **MEDIA_QUIRKS,
        "digest.foreign_uri": "REG-01",
        "digest.without_qop": "REG-02",
        "query.sn_differs": "XML-11",
        "notify.unasked": "CAT-21",
        "notify.dialog_differs": "CAT-21",
        "answer.more_than_announced": "CAT-02",
        "config.element_name": "CTL-09",
        "config.ok_without_effect": "CTL-08",
        "config.restart_instead_of_answer": "CTL-08",
        "inv.media_without_answer": "INV-15",
    }
)
"""Name -> row of the field quirks; empty: no row describes it. `docs/reference/quirks.md` lists the same."""
