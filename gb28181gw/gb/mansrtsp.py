"""MANSRTSP: how a recording that plays is steered (GB/T 28181-2022 Annex B). The body of INFO; sans-IO.

What may be asked is an `Action`; a request carries one with its own CSeq, which the answer repeats. Written is the form
of Annex B (`RTSP/1.0`, or `MANSRTSP/1.0` as in 2011 for a device that wants it); read is everything that the field
sends (PB-09): both versions, any case, bare LF, missing or repeated empty lines.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from gb28181gw.gb.charset import decode
from gb28181gw.gb.exceptions import GbLocalError, MansRtspParseError

CONTENT_TYPE = "Application/MANSRTSP"
MAX_BYTES = 8_192
MAX_LINES = 64
MAX_SCALE = 32.0
MAX_POSITION_S = 366 * 86_400.0


class RtspVersion(StrEnum):
    """Protocol name in the first line: the samples of 2011 differ from all later ones."""

    RTSP = "RTSP/1.0"
    MANSRTSP = "MANSRTSP/1.0"


@dataclass(frozen=True, slots=True)
class Pause:
    """`PAUSE` with `PauseTime: now`, the only value (B.2.3)."""


@dataclass(frozen=True, slots=True)
class Resume:
    """`PLAY` with `Range: npt=now-` and no Scale: goes on at the speed of before."""


@dataclass(frozen=True, slots=True)
class Seek:
    """`PLAY` with a Range and no Scale: the speed stays."""

    position_s: float
    """Seconds from the start of the span that the INVITE asked for."""


@dataclass(frozen=True, slots=True)
class Scale:
    """`PLAY` with a Scale; without a Range from where it is."""

    scale: float
    """1 is normal, negative is backwards."""
    start_s: float | None = None
    """Of a Range beside it (backwards from a point); None: none."""
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Teardown:
    """`TEARDOWN`; BYE follows in any case."""


Action = Pause | Resume | Seek | Scale | Teardown


@dataclass(frozen=True, slots=True, kw_only=True)
class MansRtspRequest:
    """A request as it was read."""

    action: Action
    cseq: int | None
    """None: absent or no number."""
    version: RtspVersion = RtspVersion.RTSP


@dataclass(frozen=True, slots=True, kw_only=True)
class MansRtspAnswer:
    """What the 200 of an INFO may carry (B.2.5)."""

    status: int
    reason: str = ""
    cseq: int | None = None
    range: str = ""
    """`Range` as sent."""
    scale: float | None = None
    sequence: int | None = None
    """`seq` of RTP-Info: the first RTP packet of the new stream."""
    rtp_time: int | None = None
    version: RtspVersion = RtspVersion.RTSP

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


# --- writing -------------------------------------------------------------------------------------------------------


def write_request(action: Action, cseq: int, version: RtspVersion = RtspVersion.RTSP) -> bytes:
    """The body of one INFO. Raises `GbLocalError` for numbers that cannot be sent."""
    match action:
        case Pause():
            method, headers = "PAUSE", ["PauseTime: now"]
        case Resume():
            method, headers = "PLAY", ["Range: npt=now-"]
        case Seek(position_s):
            method, headers = "PLAY", [f"Range: npt={_seconds(position_s)}-"]
        case Scale(scale, start_s, end_s):
            method, headers = "PLAY", [f"Scale: {_scale(scale)}"]
            if start_s is not None:
                end = "" if end_s is None else _seconds(end_s)
                headers.append(f"Range: npt={_seconds(start_s)}-{end}")
        case Teardown():
            method, headers = "TEARDOWN", []
    return _lines([f"{method} {version}", f"CSeq: {cseq}", *headers])


def write_answer(answer: MansRtspAnswer) -> bytes:
    """The body of the 200 to an INFO: our side towards upper platforms."""
    lines = [f"{answer.version} {answer.status} {answer.reason or _REASONS.get(answer.status, 'OK')}"]
    if answer.cseq is not None:
        lines.append(f"CSeq: {answer.cseq}")
    if answer.scale is not None:
        lines.append(f"Scale: {_scale(answer.scale)}")
    if answer.range:
        lines.append(f"Range: {answer.range}")
    if answer.sequence is not None and answer.rtp_time is not None:
        lines.append(f"RTP-Info: seq={answer.sequence};rtptime={answer.rtp_time}")
    return _lines(lines)


_REASONS = {
    200: "OK",
    400: "Bad Request",
    451: "Parameter Not Understood",
    455: "Method Not Valid in This State",
}


def _lines(lines: list[str]) -> bytes:
    text = "".join(f"{line}\r\n" for line in lines)
    if any(character in line for line in lines for character in "\r\n\0"):
        raise GbLocalError("a line of MANSRTSP cannot hold line ends")
    return text.encode("utf-8") + b"\r\n"


def _seconds(value: float) -> str:
    """Whole seconds without a point: the form of Annex B, and all that many devices read."""
    if not 0 <= value <= MAX_POSITION_S:
        raise GbLocalError(f"{value} s is no position in a recording")
    return str(int(value)) if value == int(value) else f"{value:.3f}".rstrip("0")


def _scale(value: float) -> str:
    if not 0 < abs(value) <= MAX_SCALE:
        raise GbLocalError(f"{value} is no speed")
    text = f"{value:.4f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


# --- reading -------------------------------------------------------------------------------------------------------

_REQUEST = re.compile(r"\s*([A-Za-z]+)\s+((?:MANS)?RTSP)\s*/\s*\d(?:\.\d)?\s*", re.ASCII | re.IGNORECASE)
_STATUS = re.compile(r"\s*((?:MANS)?RTSP)\s*/\s*\d(?:\.\d)?\s+(\d{3})\s*(.*)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d{1,9}(?:\.\d{1,6})?", re.ASCII)
_RANGE = re.compile(
    r"\s*(?:npt|smpte|clock)?\s*=?\s*(now|\d{1,9}(?:\.\d{1,6})?|\d{1,5}:\d{1,2}:\d{1,2}(?:\.\d{1,6})?)?\s*-\s*"
    r"(\d{1,9}(?:\.\d{1,6})?|\d{1,5}:\d{1,2}:\d{1,2}(?:\.\d{1,6})?|now)?\s*",
    re.ASCII | re.IGNORECASE,
)
_SEQ = re.compile(r"\bseq\s*=\s*(\d{1,10})", re.ASCII | re.IGNORECASE)
_RTP_TIME = re.compile(r"\brtptime\s*=\s*(\d{1,10})", re.ASCII | re.IGNORECASE)


def parse(body: bytes) -> MansRtspRequest | MansRtspAnswer:
    """Read a body. Raises `MansRtspParseError` and nothing else."""
    if len(body) > MAX_BYTES:
        raise MansRtspParseError("too_large", f"{len(body)} bytes, {MAX_BYTES} allowed")
    text = decode(body).text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n")[:MAX_LINES] if line.strip()]
    first = lines[0] if lines else ""
    headers = _headers(lines[1:])
    cseq = _whole(headers.get("cseq", ""))
    status = _STATUS.fullmatch(first)
    if status is not None:
        info = headers.get("rtp-info", "")
        return MansRtspAnswer(
            status=int(status[2]),
            reason=status[3].strip()[:128],
            cseq=cseq,
            range=headers.get("range", "")[:128],
            scale=_number(headers.get("scale", "")),
            sequence=_first(_SEQ, info),
            rtp_time=_first(_RTP_TIME, info),
            version=_version(status[1]),
        )
    request = _REQUEST.fullmatch(first)
    if request is None:
        raise MansRtspParseError("start_line", f"no request and no status: {first[:64]!r}")
    return MansRtspRequest(
        action=_action(request[1].upper(), headers), cseq=cseq, version=_version(request[2])
    )


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _version(name: str) -> RtspVersion:
    return RtspVersion.MANSRTSP if name.upper() == "MANSRTSP" else RtspVersion.RTSP


def _action(method: str, headers: dict[str, str]) -> Action:
    if method == "PAUSE":
        return Pause()
    if method == "TEARDOWN":
        return Teardown()
    if method != "PLAY":
        raise MansRtspParseError("no_action", f"method {method[:32]}")
    span = _RANGE.fullmatch(headers.get("range", ""))
    start = _npt(span[1]) if span is not None else None
    end = _npt(span[2]) if span is not None else None
    scale = _number(headers.get("scale", ""))
    if scale is not None and scale != 0 and abs(scale) <= MAX_SCALE:
        return Scale(scale, start, end)
    return Resume() if start is None else Seek(start)


def _npt(text: str | None) -> float | None:
    """Seconds; None for ``now`` and for nothing."""
    if not text or text.lower() == "now":
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _number(text: str) -> float | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    value = float(match[0])
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _first(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return int(match[1]) if match is not None else None
