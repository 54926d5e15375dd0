"""Times on the wire (GB/T 28181-2022 9.10, A.2): local to the device, without zone.

The standard means Beijing time; each device may have its own zone, and the host's zone is never used.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8))
"""Default zone of devices."""

_ZONE = re.compile(r"(?:UTC|GMT)?\s*([+-])(\d{1,2})(?::?([0-5]\d))?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"(?:(?:\s*[Tt]\s*|\s+)(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*([Zz]|[+-]\d{1,2}(?::?\d{2})?)?",
    re.ASCII,
)
_COMPACT = re.compile(
    r"(\d{4})(\d{2})(\d{2})[Tt]?(\d{2})(\d{2})(\d{2})(?:[.,]?(\d{3}))?([Zz]|[+-]\d{2}:?\d{2})?", re.ASCII
)
_CANONICAL = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,3})?", re.ASCII)


def parse_zone(text: str) -> timezone:
    """Zone of a setting such as ``+08:00``, ``+8``, ``UTC+8`` or ``Z``. Raises `ValueError`."""
    text = text.strip()
    if text.upper() in {"Z", "UTC", "GMT"}:
        return UTC
    match = _ZONE.fullmatch(text)
    if match is None:
        raise ValueError(f"time zone {text!r} is not of the form +08:00")
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if offset > timedelta(hours=14):
        raise ValueError(f"time zone {text!r} is more than 14 hours from UTC")
    return timezone(-offset if match[1] == "-" else offset)


def format_time(epoch_s: float, zone: timezone) -> str:
    """``2024-05-01T08:30:00``: the `dateTime` of MANSCDP bodies, local, no zone."""
    return datetime.fromtimestamp(epoch_s, zone).strftime("%Y-%m-%dT%H:%M:%S")


def format_date_header(epoch_s: float, zone: timezone) -> str:
    """``2024-05-01T08:30:00.000``: the national form of the `Date` header (9.10.1), not that of RFC 3261 (TM-01)."""
    local = datetime.fromtimestamp(epoch_s, zone)
    return f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 1000:03d}"


def is_canonical_time(text: str) -> bool:
    """Whether a time has exactly the form of the standard (else quirk `time.form`, PB-01)."""
    return _CANONICAL.fullmatch(text) is not None


def parse_time(text: str, zone: timezone = BEIJING) -> datetime | None:
    """Any form that devices send (PB-01), as an aware time; None when it is not a time.

    Taken: one-digit months, blanks or ``T``, milliseconds, ``Z`` and offsets, a date alone (its midnight),
    ``20240501T083000``. Without an offset it is in `zone`, the device's own.
    """
    text = text.strip()
    match = _TIME.fullmatch(text) or _COMPACT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        moment_zone = parse_zone(offset) if offset else zone
        return datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0").ljust(6, "0")[:6]),
            moment_zone,
        )
    except ValueError:
        return None
