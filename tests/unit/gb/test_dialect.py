from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import DEFAULT, DateForm, Dialect, Edition, PayloadSet, parse_gb_version
from gb28181gw.gb.exceptions import GbLocalError


@pytest.mark.parametrize(
    ("text", "edition"),
    [
        ("1.0", Edition.V1_0),
        ("1.1", Edition.V1_1),
        ("2.0", Edition.V2_0),
        ("3.0", Edition.V3_0),
        (" 3.0 ", Edition.V3_0),
        ("V2.0", Edition.V2_0),
        ("2", Edition.V2_0),
        ("2.5", Edition.V2_0),
        ("3.1", Edition.V3_0),
        ("10.0", Edition.V3_0),
        ("1.9", Edition.V1_1),
        ("0.9", Edition.V1_0),
        ("", None),
        ("three", None),
        ("3.0.1", None),
        ("9999.0", None),
    ],
)
def test_x_gb_ver_unknown_but_well_formed_is_the_highest_known_below(
    text: str, edition: Edition | None
) -> None:
    assert parse_gb_version(text) is edition


def test_editions_compare_in_their_order() -> None:
    assert sorted(Edition, reverse=True) == [Edition.V3_0, Edition.V2_0, Edition.V1_1, Edition.V1_0]


def test_charset_follows_the_edition_unless_it_is_set() -> None:
    assert DEFAULT.charset_used is Charset.GB2312
    assert Dialect(edition=Edition.V3_0).charset_used is Charset.GB18030
    assert Dialect(edition=Edition.V3_0, charset=Charset.UTF8).charset_used is Charset.UTF8


def test_switches_round_trip_and_name_only_what_differs() -> None:
    assert DEFAULT.switches() == {}
    dialect = Dialect(
        edition=Edition.V3_0,
        charset=Charset.UTF8,
        date=DateForm.GMT,
        qop=False,
        payloads=PayloadSet.PS_ONLY,
    )
    assert dialect.switches() == {
        "edition": "3.0",
        "charset": "UTF-8",
        "date": "gmt",
        "qop": "false",
        "payloads": "ps-only",
    }
    assert DEFAULT.with_switches(dialect.switches()) == dialect
    assert dialect.with_switches({"charset": ""}).charset is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("edition", "4.0"), ("charset", "latin1"), ("date", "utc"), ("qop", "maybe"), ("payloads", "all")],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(GbLocalError, match=f"'{name}' cannot be '{value}'"):
        DEFAULT.with_switches({name: value})


def test_a_wrong_switch_is_named() -> None:
    with pytest.raises(GbLocalError, match="no switch 'vendor'"):
        DEFAULT.with_switches({"vendor": "any"})
