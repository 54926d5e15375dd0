"""A program stream that somebody else made, sent as it is: a recording, or the file of another muxer.

The file's bytes are not touched; they are only cut into pieces that go out at the times that the file tells (DTS, else
PTS, of its first video stream). What lies between one such time and the next shares an RTP timestamp, as a picture
does. A stream begins at the start of the file, since only there everything that a receiver needs is known to come;
at its end it starts over, so its times jump back, as they do when a device plays a recording in a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import CLOCK_RATE, Access, ContentError

_PACK, _SYSTEM_HEADER, _STREAM_MAP, _END = 0xBA, 0xBB, 0xBC, 0xB9
_PREFIX = b"\x00\x00\x01"
_WRAP = 1 << 33
_VIDEO = {"h264": Codec.H264, "hevc": Codec.H265}
_AUDIO = {"pcm_alaw": Codec.PCMA, "pcm_mulaw": Codec.PCMU, "aac": Codec.AAC}


class Piece(NamedTuple):
    """Bytes that leave at one time."""

    dts_90k: int
    """From the start of the file."""
    data: bytes


def is_program_stream(path: Path) -> bool:
    """The file begins with a pack header (ISO 13818-1 2.5.3.3). Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"\x00\x00\x01\xba"


class PsFile:
    """`content.Content` of a program stream file; its source sends `pieces` in place of pictures."""

    def __init__(
        self,
        *,
        video: Codec,
        audio: Codec | None,
        fps: Fraction,
        width: int,
        height: int,
        pieces: tuple[Piece, ...],
        length: int,
    ) -> None:
        """`length` is the number of steps of 1/`fps` that the file lasts."""
        self.video = video
        self.audio = audio
        self.fps = fps
        self.width = width
        self.height = height
        steps: list[list[Piece]] = [[] for _ in range(length)]
        for piece in pieces:
            steps[min(round(piece.dts_90k * fps / CLOCK_RATE), length - 1)].append(piece)
        self._steps = tuple(tuple(step) for step in steps)

    def pieces(self, number: int) -> tuple[Piece, ...]:
        """What leaves at step `number` (from 0, endless); may be nothing."""
        turn, index = divmod(number, len(self._steps))
        base = self._time(turn * len(self._steps))
        return tuple(Piece(base + piece.dts_90k, piece.data) for piece in self._steps[index])

    def access(self, number: int) -> Access:
        time = self._time(number)
        return Access(
            number=number,
            dts_90k=time,
            pts_90k=time,
            key=number % len(self._steps) == 0,
            data=b"".join(piece.data for piece in self._steps[number % len(self._steps)]),
            audio=(),
        )

    def key_at_or_before(self, number: int) -> int:
        """The start of the file."""
        return number - number % len(self._steps)

    def newest(self) -> None:
        """All of it exists."""

    def ready(self, number: int) -> bool:
        return True

    def want_key(self) -> None:
        """The file is as it is; a sender goes back to its start."""

    def _time(self, number: int) -> int:
        return int(number * CLOCK_RATE / self.fps)


def read_ps_file(path: Path) -> PsFile:
    """Read and cut a program stream file. Blocking; raises ContentError."""
    try:
        data = path.read_bytes()
        with av.open(str(path), format="mpeg") as container:
            if not container.streams.video:
                raise ContentError(f"{path} has no video.")
            video = container.streams.video[0]
            audio = container.streams.audio[0].codec_context.name if container.streams.audio else ""
            name, fps = video.codec_context.name, video.average_rate or video.guessed_rate or Fraction(25)
            width, height = video.codec_context.width, video.codec_context.height
            length = sum(1 for packet in container.demux(video) if packet.size)
    except (av.FFmpegError, OSError) as error:
        raise ContentError(f"{path} cannot be read: {error}.") from error
    if not length:
        raise ContentError(f"{path} has no picture.")
    if name not in _VIDEO:
        raise ContentError(f"{path} has {name} video; GB/T 28181 devices send H.264 or H.265.")
    return PsFile(
        video=_VIDEO[name],
        audio=_AUDIO.get(audio),
        fps=Fraction(fps),
        width=width,
        height=height,
        pieces=cut(data),
        length=length,
    )


def cut(data: bytes) -> tuple[Piece, ...]:
    """The pieces of a program stream, which joined are `data`. Raises ContentError where it has no structure."""
    pieces: list[Piece] = []
    video: int | None = None
    first: int | None = None
    time = start = 0  # of the piece in work
    lead: int | None = None  # where the headers in front of the next packet begin
    for code, position, stamp in _units(data):
        if code in (_PACK, _SYSTEM_HEADER, _STREAM_MAP):
            if lead is None:
                lead = position
            continue
        begins, lead = (position if lead is None else lead), None
        if not 0xE0 <= code <= 0xEF or stamp is None or code != (code if video is None else video):
            continue
        video = code
        if first is None:
            first = stamp
            continue
        after = (stamp - first) % _WRAP
        if time < after < _WRAP // 2:
            pieces.append(Piece(time, data[start:begins]))
            time, start = after, begins
    if first is None:
        raise ContentError("The program stream has no video packet with a time.")
    pieces.append(Piece(time, data[start:]))
    return tuple(pieces)


def _units(data: bytes) -> Iterator[tuple[int, int, int | None]]:
    """(code, position, DTS or else PTS) of every header and packet (ISO 13818-1 2.5.3, ISO 11172-1 2.4.3)."""
    position, size = 0, len(data)
    while position + 4 <= size:
        code = data[position + 3]
        if data[position : position + 3] != _PREFIX or code < _END:
            raise ContentError(f"The program stream has no header at byte {position}.")
        stamp = None
        following = position + 4
        if code == _PACK:
            # The stuffing of the later form; the earlier one has none.
            is_mpeg2 = data[position + 4 : position + 5] >= b"\x40"
            following = position + 14 + (data[position + 13] & 7 if position + 13 < size else 0)
            following = following if is_mpeg2 else position + 12
        elif code != _END:
            length = int.from_bytes(data[position + 4 : position + 6], "big")
            if not length:
                raise ContentError(f"The packet at byte {position} of the program stream has no length.")
            following = position + 6 + length
            if code >= 0xC0:
                stamp = _stamp(data[position + 6 : following])
        yield code, position, stamp
        position = following


def _stamp(packet: bytes) -> int | None:
    """DTS, else PTS, of a PES packet, `packet` from behind its length; None without."""
    if packet[:1] and packet[0] >> 6 == 2:
        flags, fields = packet[1] >> 6 if len(packet) > 1 else 0, packet[3:13]
    else:
        # ISO 11172-1: stuffing, a buffer size, then the flags in the first four bits of the times.
        fields = packet.lstrip(b"\xff")
        if fields[:1] >= b"\x40":
            fields = fields[2:]
        flags = fields[0] >> 4 if fields else 0
    if flags == 3 and len(fields) >= 10:
        fields = fields[5:]
    elif flags != 2 or len(fields) < 5:
        return None
    return (
        (fields[0] >> 1 & 7) << 30 | fields[1] << 22 | fields[2] >> 1 << 15 | fields[3] << 7 | fields[4] >> 1
    )
