"""Editions, and the per-device dialect: named switches instead of vendor branches ("tolerance is data").

Everything is parsed at the newest level; what is *emitted* follows the dialect (GB/T 28181-2022 Annex I).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.datum import Datum
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.mansrtsp import RtspVersion


class Edition(StrEnum):
    """Values of `X-GB-Ver` (Annex I); they compare in the order of the editions."""

    V1_0 = "1.0"
    """GB/T 28181-2011."""
    V1_1 = "1.1"
    """Its supplement of 2014."""
    V2_0 = "2.0"
    """GB/T 28181-2016; also what a peer without `X-GB-Ver` is taken for."""
    V3_0 = "3.0"
    """GB/T 28181-2022."""


_VERSION = re.compile(r"\s*[vV]?(\d{1,3})(?:\.(\d{1,3}))?\s*", re.ASCII)
_LEVELS = [(tuple(map(int, edition.split("."))), edition) for edition in Edition]


def parse_gb_version(text: str) -> Edition | None:
    """Edition of an `X-GB-Ver` value.

    A well-formed version that is not known counts as the highest known one below it, at least 1.0. None for
    anything else (then go by other evidence; never refuse).
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    version = (int(match[1]), int(match[2] or 0))
    known = [edition for level, edition in _LEVELS if level <= version]
    return known[-1] if known else Edition.V1_0


class DateForm(StrEnum):
    """`Date` header of answers to REGISTER (TM-01)."""

    ISO = "iso"
    """Local, milliseconds, no zone: the national form (9.10.1)."""
    GMT = "gmt"
    """RFC 3261 20.17."""
    OFF = "off"


class PayloadSet(StrEnum):
    """Rungs of the ladder of offered payload types (INV-13); the lists are in `sdp`."""

    DEFAULT = "default"
    PS_ONLY = "ps-only"
    H265_99 = "h265-99"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a device is spoken to. Learnt or set; the defaults suit a device that nothing is known of."""

    edition: Edition = Edition.V2_0
    charset: Charset | None = None
    """None: by edition, see `charset_used`."""
    date: DateForm = DateForm.ISO
    qop: bool = True
    """Offer ``qop="auth"`` in challenges; a few firmwares fail on it (REG-02)."""
    payloads: PayloadSet = PayloadSet.DEFAULT
    """First rung to offer."""
    rtsp: RtspVersion | None = None
    """Protocol name in MANSRTSP; None: by edition, see `rtsp_used` (PB-09)."""
    datum: Datum = Datum.WGS84
    """What its positions mean (CTL-04)."""

    @property
    def charset_used(self) -> Charset:
        """Character set to write in: GB 18030 since 2022 (6.10), the GB2312 label before."""
        if self.charset is not None:
            return self.charset
        return Charset.GB18030 if self.edition >= Edition.V3_0 else Charset.GB2312

    @property
    def rtsp_used(self) -> RtspVersion:
        """The samples of 2011 write ``MANSRTSP/1.0``, the later texts ``RTSP/1.0`` (Annex B)."""
        if self.rtsp is not None:
            return self.rtsp
        return RtspVersion.MANSRTSP if self.edition is Edition.V1_0 else RtspVersion.RTSP

    def with_switches(self, switches: Mapping[str, str]) -> Dialect:
        """A changed copy; names and values as in `switches`. Raises `GbLocalError` naming the wrong one."""
        changed = self
        for name, value in switches.items():
            changed = changed._with_switch(name, value.strip().lower())
        return changed

    def _with_switch(self, name: str, value: str) -> Dialect:
        try:
            match name:
                case "edition":
                    return replace(self, edition=Edition(value))
                case "charset":
                    return replace(self, charset=Charset.parse(value) if value else None)
                case "date":
                    return replace(self, date=DateForm(value))
                case "qop":
                    return replace(self, qop=_BOOLEANS[value])
                case "payloads":
                    return replace(self, payloads=PayloadSet(value))
                case "rtsp":
                    return replace(self, rtsp=RtspVersion(value.upper()) if value else None)
                case "datum":
                    return replace(self, datum=Datum(value))
        except (ValueError, KeyError):
            raise GbLocalError(f"dialect switch {name!r} cannot be {value!r}") from None
        raise GbLocalError(f"dialect has no switch {name!r}")

    def switches(self) -> dict[str, str]:
        """What differs from `DEFAULT`, to be stored and shown; `DEFAULT.with_switches(…)` makes it again."""
        mine, default = self.all(), DEFAULT.all()
        return {name: value for name, value in mine.items() if value != default[name]}

    def all(self) -> dict[str, str]:
        """Every switch with its value as text."""
        return {
            "edition": self.edition.value,
            "charset": self.charset.value if self.charset is not None else "",
            "date": self.date.value,
            "qop": "true" if self.qop else "false",
            "payloads": self.payloads.value,
            "rtsp": self.rtsp.value if self.rtsp is not None else "",
            "datum": self.datum.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a kind of device: a dialect file, matched by what the device tells of itself."""

    name: str
    """Of the file, without its ending."""
    manufacturers: tuple[str, ...] = ()
    """Globs, without case, on the Manufacturer of DeviceInfo or of catalogue items."""
    user_agents: tuple[str, ...] = ()
    """Globs, without case, on the User-Agent of REGISTER."""
    switches: Mapping[str, str]

    def fits(self, manufacturer: str, user_agent: str) -> bool:
        """Whether a device of this maker and program is meant."""
        return _any(self.manufacturers, manufacturer) or _any(self.user_agents, user_agent)


def _any(globs: tuple[str, ...], text: str) -> bool:
    return bool(text) and any(fnmatchcase(text.lower(), glob.lower()) for glob in globs)


_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}

DEFAULT = Dialect()
"""A device that nothing is known of."""
