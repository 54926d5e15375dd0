from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gb28181gw.gb.times import (
    BEIJING,
    format_date_header,
    is_canonical_time,
    parse_time,
    parse_zone,
)

EPOCH = 1714523400.25  # 2024-05-01 00:30:00.25 UTC


def test_tm01_date_header_is_local_with_milliseconds_and_no_zone() -> None:
    assert format_date_header(EPOCH, BEIJING) == "2024-05-01T08:30:00.250"
    assert format_date_header(1714523400.9996, BEIJING) == "2024-05-01T08:30:00.999"


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T08:30:00",
        "2024-05-01T08:30:00.000",
        "2024-5-1T8:30:0",
        "2024-05-01 08:30:00",
        "2024-05-01T08:30",
        "2024/05/01 08:30:00",
        " 2024-05-01T08:30:00 ",
        "2024-05-01T00:30:00Z",
        "2024-05-01T08:30:00+08:00",
        "2024-05-01T08:30:00+0800",
        "2024-04-30T20:30:00-04:00",
        "20240501T083000",
        "20240501083000",
        "20240501083000000",
    ],
)
def test_pb01_all_forms_mean_the_same_moment(text: str) -> None:
    assert parse_time(text) == datetime(2024, 5, 1, 0, 30, tzinfo=UTC)


def test_pb01_without_offset_the_devices_zone_counts() -> None:
    zone = timezone(timedelta(hours=-3))
    assert parse_time("2024-05-01T08:30:00", zone) == datetime(2024, 5, 1, 11, 30, tzinfo=UTC)
    assert parse_time("2024-05-01", zone) == datetime(2024, 5, 1, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-13-01T00:00:00",
        "2024-05-01T24:30:00",
        "0000-00-00T00:00:00",
        "2024-05-01T08:30:00+99:00",
        "１９７０-01-01",
        "x" * 100_000,
    ],
)
def test_pb01_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "hours"),
    [("+08:00", 8), ("+8", 8), ("UTC+8", 8), ("-03:30", -3.5), ("Z", 0), ("gmt", 0), ("+0545", 5.75)],
)
def test_zones(text: str, hours: float) -> None:
    assert parse_zone(text).utcoffset(None) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "Beijing", "+15:00", "08:00", "+8:60"])
def test_zones_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse_zone(text)


def test_canonical_form() -> None:
    assert is_canonical_time("2024-05-01T08:30:00")
    assert is_canonical_time("2024-05-01T08:30:00.123")
    assert not is_canonical_time("2024-5-1T08:30:00")
    assert not is_canonical_time("2024-05-01T08:30:00Z")
