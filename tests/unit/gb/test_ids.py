from __future__ import annotations

import pytest

from gb28181gw.gb.ids import (
    NodeKind,
    clean_id,
    is_gb_id,
    is_region_code,
    node_kind,
    normalise_civil_code,
    ssrc_domain,
    type_code,
    valid_lenient_id,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("34020000001320000007", True),
        ("3402000000132000000", False),
        ("340200000013200000078", False),
        ("3402000000132000000a", False),
        ("３４０２００００００１３２０００００７", False),
        ("", False),
    ],
)
def test_a_code_is_twenty_ascii_digits(text: str, expected: bool) -> None:
    assert is_gb_id(text) is expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("34020000002000000001", NodeKind.SYSTEM),
        ("34020000001180000001", NodeKind.DEVICE),
        ("34020000001110000001", NodeKind.DEVICE),
        ("34020000001300000001", NodeKind.DEVICE),
        ("34020000001310000001", NodeKind.CAMERA),
        ("34020000001320000001", NodeKind.CAMERA),
        ("34020000001330000001", NodeKind.OTHER),
        ("34020000001340000001", NodeKind.ALARM),
        ("34020000001350000001", NodeKind.ALARM),
        ("34020000001400000001", NodeKind.ALARM),
        ("34020000001360000001", NodeKind.AUDIO_IN),
        ("34020000001370000001", NodeKind.AUDIO_OUT),
        ("34020000001380000001", NodeKind.MOBILE),
        ("34020000002150000001", NodeKind.GROUP),
        ("34020000002160000001", NodeKind.ORGANISATION),
        ("34", NodeKind.REGION),
        ("3402", NodeKind.REGION),
        ("340202", NodeKind.REGION),
        ("34020201", NodeKind.REGION),
        ("340", NodeKind.OTHER),
        ("camera-7", NodeKind.OTHER),
    ],
)
def test_reg14_cat16_kind_by_type_digits_is_total(text: str, kind: NodeKind) -> None:
    assert node_kind(text) is kind


def test_type_code_only_of_whole_codes() -> None:
    assert type_code("34020000001320000007") == 132
    assert type_code("340200") is None


@pytest.mark.parametrize("text", ["340200000013200007", "3402000000132000007", "ABC_1.2-x", "1"])
def test_reg13_ids_outside_the_form_are_usable(text: str) -> None:
    assert valid_lenient_id(text)


@pytest.mark.parametrize("text", ["", "a b", "x" * 65, "a;b", "a\r\nb", "设备", "../x", "a/b"])
def test_reg13_ids_that_could_break_something_are_not(text: str) -> None:
    assert not valid_lenient_id(text)


def test_reg13_blanks_and_parameters_are_cut_off() -> None:
    assert clean_id("  34020000001320000007;user=phone") == "34020000001320000007"


@pytest.mark.parametrize(
    ("platform", "domain"), [("34020000002000000001", "20000"), ("13010000002000000001", "10000")]
)
def test_ssrc_domain_is_digits_4_to_8(platform: str, domain: str) -> None:
    assert ssrc_domain(platform) == domain


def test_ssrc_domain_refuses_a_platform_id_of_another_length() -> None:
    with pytest.raises(ValueError, match="20 digits"):
        ssrc_domain("3402000000")


def test_region_codes_have_2_4_6_or_8_digits() -> None:
    assert [n for n in range(12) if is_region_code("3" * n)] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("340202", "340202"),
        ("34", "34"),
        ("34020201", "34020201"),
        ("34020000", "34020000"),
        ("3402000000", "340200"),
        ("34020201001320000007", "34020201"),
        ("34020000001320000007", "340200"),
        ("3402021", "340202"),
        ("3", ""),
        ("CivilCode", ""),
        ("", ""),
        ("000000", ""),
        ("34020x", ""),
        ("三四", ""),
    ],
)
def test_cat10_civil_code_longest_valid_prefix(text: str, code: str) -> None:
    assert normalise_civil_code(text) == code
