"""Positions in GCJ-02, which devices with a map of the mainland often send, back to WGS-84 (CTL-04).

The standard wants WGS-84 (A.2.5.6). GCJ-02 shifts a point by some hundred metres, by a function of where it is and
only within the mainland; it is undone by looking for the point whose shift leads to the given one.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

_AXIS_M: Final = 6_378_245.0
"""Semi-major axis of the ellipsoid of Krasovsky 1940."""
_E2: Final = 0.00669342162296594323
"""The square of its eccentricity."""
_STEPS: Final = 6
"""Each step makes the error about a thousand times smaller."""


class Datum(StrEnum):
    """What a device's longitudes and latitudes mean."""

    WGS84 = "wgs84"
    GCJ02 = "gcj02"


def to_wgs84(longitude: float, latitude: float, datum: Datum) -> tuple[float, float]:
    """Degrees in WGS-84, to seven decimals where something was changed."""
    if datum is Datum.WGS84 or not _shifted(longitude, latitude):
        return longitude, latitude
    found_x, found_y = longitude, latitude
    for _ in range(_STEPS):
        shift_x, shift_y = _shift(found_x, found_y)
        found_x, found_y = longitude - shift_x, latitude - shift_y
    return round(found_x, 7), round(found_y, 7)


def _shifted(longitude: float, latitude: float) -> bool:
    """The rectangle in which GCJ-02 differs from WGS-84."""
    return 72.004 < longitude < 137.8347 and 0.8293 < latitude < 55.8271


def _shift(longitude: float, latitude: float) -> tuple[float, float]:
    """What GCJ-02 adds to a point of WGS-84, in degrees."""
    x, y = longitude - 105.0, latitude - 35.0
    root = math.sqrt(abs(x))
    fast = 20.0 * math.sin(6.0 * x * math.pi) + 20.0 * math.sin(2.0 * x * math.pi)
    east_m = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root
    east_m += (2.0 / 3.0) * (fast + _waves(x, ((20.0, 1.0), (40.0, 3.0), (150.0, 12.0), (300.0, 30.0))))
    north_m = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root
    north_m += (2.0 / 3.0) * (fast + _waves(y, ((20.0, 1.0), (40.0, 3.0), (160.0, 12.0), (320.0, 30.0))))
    angle = math.radians(latitude)
    w = 1.0 - _E2 * math.sin(angle) ** 2
    meridian_m = _AXIS_M * (1.0 - _E2) / (w * math.sqrt(w))
    parallel_m = _AXIS_M / math.sqrt(w) * math.cos(angle)
    return math.degrees(east_m / parallel_m), math.degrees(north_m / meridian_m)


def _waves(at: float, waves: tuple[tuple[float, float], ...]) -> float:
    return sum(height * math.sin(at * math.pi / length) for height, length in waves)
