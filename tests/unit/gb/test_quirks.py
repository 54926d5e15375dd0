from __future__ import annotations

import re

from gb28181gw.gb.quirks import Quirk


def test_every_tolerance_has_its_row() -> None:
    assert all(re.fullmatch(r"(XML|CAT|CTL|INV|REG|TK|PB)-\d\d", quirk.row) for quirk in Quirk)


def test_names_are_stable_tokens() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z0-9_]+", quirk.value) for quirk in Quirk)
    assert Quirk("xml.illegal_control_char").row == "XML-04"
    assert str(Quirk.SDP_NO_Y) == "sdp.no_y"
