"""What of a download is on the disk while it runs: each frame as it goes into the file, and what is known of the parts.

An MP4 file is nothing without the index at its end, so a process that is killed leaves no file that could be gone on
with. The journal is written beside it, one record after the other, each with its length and checksum; what a kill cut
in the middle of a record is left out. A further process reads it, makes the file anew from it, and asks the device for
what follows. It goes when the download is over.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from gb28181gw.downloads.models import FileError
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind

JOURNAL: Final = "journal"
_MAGIC: Final = b"gb28181gw download 1\n"
_RECORD: Final = struct.Struct("!cII")
"""Kind, length and CRC-32 of what follows."""
_FRAME: Final = struct.Struct("!HBqq")
"""Number of the track, key or not, pts and dts in the file."""
_TRACK, _PICTURE, _FACT = b"t", b"f", b"j"
_MAX_RECORD: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is known of the download; `name` says what, `values` are JSON."""

    name: str
    values: dict[str, Any]


Entry = Frame | Fact


class Journal:
    """Owner of the open file. Not thread-safe: one call at a time. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        """Go on behind the last whole record of a file that is there."""
        self.path = path
        self._tracks: dict[Track, int] = {}
        whole = _whole_bytes(path)
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._file.truncate(whole)
        if not whole:
            self._write(_MAGIC)

    def add(self, frames: Iterable[tuple[Frame, int]]) -> None:
        """Frames with what is to be added to their times."""
        out: list[bytes] = []
        for frame, offset in frames:
            number = self._tracks.get(frame.track)
            if number is None:
                number = self._tracks[frame.track] = len(self._tracks)
                values = {"number": number, **_track_values(frame.track)}
                out.append(_record(_TRACK, json.dumps(values).encode()))
            head = _FRAME.pack(number, frame.key, frame.pts_90k + offset, frame.dts_90k + offset)
            out.append(_record(_PICTURE, head + frame.payload))
        self._write(b"".join(out))

    def tell(self, fact: Fact) -> None:
        self._write(_record(_FACT, json.dumps({"name": fact.name, "values": fact.values}).encode()))

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def read_journal(path: Path) -> Iterator[Entry]:
    """What is whole, in order, with the times of the file. Raises OSError; FileError for what is no journal."""
    tracks: list[Track] = []
    for kind, data in _records(path):
        try:
            if kind == _TRACK:
                values = json.loads(data)
                # The journal that goes on in another process numbers its tracks anew.
                if values["number"] == 0 and tracks:
                    tracks.clear()
                tracks.append(_track_of(values))
            elif kind == _PICTURE:
                number, key, pts_90k, dts_90k = _FRAME.unpack_from(data)
                yield Frame(
                    track=tracks[number],
                    pts_90k=pts_90k,
                    dts_90k=dts_90k,
                    key=bool(key),
                    payload=data[_FRAME.size :],
                )
            else:
                values = json.loads(data)
                yield Fact(name=str(values["name"]), values=dict(values["values"]))
        except (KeyError, IndexError, ValueError, TypeError, struct.error) as error:
            raise FileError(f"{path.name} cannot be read: {error!r}.") from error


def _record(kind: bytes, data: bytes) -> bytes:
    return _RECORD.pack(kind, len(data), zlib.crc32(data)) + data


def _records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Whole records, up to the first that is not. Raises OSError, FileError."""
    with path.open("rb") as file:
        if (head := file.read(len(_MAGIC))) != _MAGIC:
            if _MAGIC.startswith(head):
                return  # it had just begun
            raise FileError(f"{path.name} is no journal of a download.")
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            kind, length, checksum = _RECORD.unpack(head)
            data = file.read(length) if length <= _MAX_RECORD else b""
            if len(data) != length or zlib.crc32(data) != checksum:
                return
            yield kind, data


def _whole_bytes(path: Path) -> int:
    """How much of the file is good; 0 without one."""
    try:
        size = sum(_RECORD.size + len(data) for _, data in _records(path))
        return len(_MAGIC) + size if path.stat().st_size >= len(_MAGIC) else 0
    except (FileNotFoundError, FileError):
        return 0


def _track_values(track: Track) -> dict[str, Any]:
    return {
        "kind": track.kind.value,
        "codec": track.codec.value,
        "width": track.width,
        "height": track.height,
        "fps": track.fps,
        "sample_rate": track.sample_rate,
        "channels": track.channels,
        "parameter_sets": [one.hex() for one in track.parameter_sets],
    }


def _track_of(values: dict[str, Any]) -> Track:
    return Track(
        kind=TrackKind(values["kind"]),
        codec=Codec(values["codec"]),
        width=int(values["width"]),
        height=int(values["height"]),
        fps=float(values["fps"]),
        sample_rate=int(values["sample_rate"]),
        channels=int(values["channels"]),
        parameter_sets=tuple(bytes.fromhex(one) for one in values["parameter_sets"]),
    )
