"""Pictures that a simulated device takes when it is told to, and their upload (GB/T 28181-2022 9.14)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from urllib.parse import urlsplit

from av.video.codeccontext import VideoCodecContext

from gb28181gw.sim.picture import Painter

UPLOAD_S = 5.0


class UploadError(Exception):
    """The picture was not taken by whoever the URL names; the text is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOrder:
    """What SnapShotConfig asks for."""

    channel_id: str
    count: int
    interval_s: float
    url: str
    session: str


def file_id(channel_id: str, when: datetime, serial: int) -> str:
    """9.14.1: code, ``02``, time to the millisecond, serial; 41 characters."""
    return f"{channel_id}02{when.strftime('%Y%m%d%H%M%S')}{when.microsecond // 1000:03d}{serial % 100:02d}"


def jpeg(width: int, height: int, title: str, number: int, clock: str) -> bytes:
    """One picture of the channel."""
    frame = Painter(width, height, 25, title).paint(number, clock)
    coder = VideoCodecContext.create("mjpeg", "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuvj420p"
    coder.framerate = Fraction(25)
    converted = frame.reformat(format="yuvj420p")
    converted.pts = 0
    return b"".join(bytes(packet) for packet in (*coder.encode(converted), *coder.encode(None)))


async def upload(url: str, name: str, data: bytes) -> None:
    """PUT the picture. Raises UploadError."""
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    path = f"{target.path}/{name}.jpg" + (f"?{target.query}" if target.query else "")
    head = (
        f"PUT {path} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(UPLOAD_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head.encode("ascii") + data)
            line = await reader.readline()
    except (OSError, TimeoutError, ValueError) as error:
        raise UploadError(f"{target.netloc}: {str(error) or 'timed out'}") from error
    finally:
        if writer is not None:
            writer.close()
    words = line.split()
    if len(words) < 2 or not words[1].startswith(b"2"):
        raise UploadError(f"{target.netloc} answered {line.decode('latin-1').strip() or 'nothing'}")
