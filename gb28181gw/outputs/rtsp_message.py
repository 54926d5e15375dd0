"""RTSP messages (RFC 2326) as bytes: requests and interleaved frames read, answers written. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_HEAD = 8 * 1024
MAX_BODY = 16 * 1024
MAX_HEADERS = 64
_INTERLEAVED = 0x24

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Time-out",
    413: "Request Entity Too Large",
    451: "Parameter Not Understood",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
    505: "RTSP Version Not Supported",
    551: "Option not supported",
}


class RtspError(Exception):
    """What cannot be read; the connection ends after an answer with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspRequest:
    """`headers`: names in lower case; of equal names the first counts."""

    method: str
    uri: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def cseq(self) -> str:
        """Empty when there is none that can be repeated."""
        text = self.headers.get("cseq", "")
        return text if text.isascii() and text.isdigit() and len(text) <= 10 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleavedFrame:
    """10.12: a packet of media or RTCP between the messages."""

    channel: int
    data: bytes


class RtspParser:
    """Cuts what a client sends. Bounded by `MAX_HEAD` and `MAX_BODY`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_between(self) -> bool:
        """Nothing that began is unfinished."""
        return not self._buffer

    def feed(self, data: bytes) -> list[RtspRequest | InterleavedFrame]:
        """What is whole now. Raises RtspError."""
        buffer = self._buffer
        buffer += data
        found: list[RtspRequest | InterleavedFrame] = []
        while buffer:
            if buffer[0] == _INTERLEAVED:
                if len(buffer) < 4:
                    break
                end = 4 + (buffer[2] << 8 | buffer[3])
                if len(buffer) < end:
                    break
                found.append(InterleavedFrame(channel=buffer[1], data=bytes(buffer[4:end])))
                del buffer[:end]
                continue
            if buffer[0] in b"\r\n":
                del buffer[0]  # between messages, as keepalives
                continue
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0 or head_end > MAX_HEAD:
                if len(buffer) > MAX_HEAD:
                    raise RtspError(413, "the head of a request is too long")
                break
            method, uri, headers = _read_head(bytes(buffer[:head_end]))
            size = _content_length(headers)
            end = head_end + 4 + size
            if len(buffer) < end:
                break
            found.append(
                RtspRequest(method=method, uri=uri, headers=headers, body=bytes(buffer[head_end + 4 : end]))
            )
            del buffer[:end]
        return found


def _read_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    lines = head.decode("utf-8", "replace").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[0].isascii() or not words[0].replace("_", "").isalpha():
        raise RtspError(400, "this is no request line")
    if not words[2].startswith("RTSP/1."):
        raise RtspError(505, "RTSP 1.0 is spoken here")
    if len(lines) > MAX_HEADERS:
        raise RtspError(400, "too many headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise RtspError(400, "a header has no colon")
        headers.setdefault(name.strip().lower(), value.strip())
    return words[0].upper(), words[1], headers


def _content_length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise RtspError(400, "Content-Length is no number")
    if int(text) > MAX_BODY:
        raise RtspError(413, "the body of a request is too long")
    return int(text)


def write_response(
    status: int, cseq: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """Raises ValueError for a value that would break out of its line."""
    lines = [f"RTSP/1.0 {status} {REASONS[status]}"]
    if cseq:
        lines.append(f"CSeq: {cseq}")
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise ValueError(f"header {name} has a line break")
        lines.append(f"{name}: {value}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """One alternative of a Transport header that can be served (12.39)."""

    interleaved: tuple[int, int] | None = None
    """Channels of RTP and RTCP; (-1, -1): the server chooses."""
    client_ports: tuple[int, int] | None = None


def parse_transport(value: str) -> Transport | None:
    """The first alternative that is unicast RTP over the connection or over UDP, to play; None: there is none."""
    for alternative in value.split(","):
        words = [word.strip() for word in alternative.split(";")]
        parameters: dict[str, str] = {}
        for word in words[1:]:
            name, _, text = word.partition("=")
            parameters[name.strip().lower()] = text.strip().strip('"')
        profile = words[0].upper()
        if "multicast" in parameters or parameters.get("mode", "PLAY").upper() != "PLAY":
            continue
        if profile == "RTP/AVP/TCP":
            pair = _pair(parameters["interleaved"], 255) if "interleaved" in parameters else (-1, -1)
            if pair is not None:
                return Transport(interleaved=pair)
        elif profile in ("RTP/AVP", "RTP/AVP/UDP") and "client_port" in parameters:
            pair = _pair(parameters["client_port"], 65535)
            if pair is not None and pair[0] > 0:
                return Transport(client_ports=pair)
    return None


def _pair(text: str, limit: int) -> tuple[int, int] | None:
    first, dash, second = text.partition("-")
    if not first.isascii() or not first.isdigit() or len(first) > 5:
        return None
    low = int(first)
    if dash and not (second.isascii() and second.isdigit() and len(second) <= 5):
        return None
    high = int(second) if dash else low + 1
    return (low, high) if low != high and max(low, high) <= limit else None
