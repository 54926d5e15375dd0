"""The files of one channel, written in a thread: pieces of `segment.SegmentMaker` go to the disk as they come.

Nothing is buffered here, and while a file grows nothing waits for the disk: what a killed gateway had written is the
kernel's to keep. A finished file is on the disk, with its name, before the index hears of its end; so a power cut costs
what was in work. A write that fails leaves a file that ends with its last whole piece.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from gb28181gw.media.tracks import Frame
from gb28181gw.recording.models import Segment
from gb28181gw.recording.segment import Closed, Opened, Piece, SegmentMaker, Written


def write_all(descriptor: int, data: bytes) -> None:
    """Raises OSError: a disk may take a part only."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def settle(path: Path, descriptor: int, *, new_folders: bool) -> None:
    """Wait until the file and its name are on the disk. Raises OSError."""
    os.fsync(descriptor)
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent)[: 3 if new_folders else 1]:
        entry = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


class SegmentWriter:
    """Owner of the file that is open. One call at a time, in any thread."""

    def __init__(
        self,
        directory: Path,
        device_id: str,
        channel_id: str,
        trigger: str,
        *,
        segment_s: float,
        expect_audio: bool,
    ) -> None:
        self._directory = directory
        self._maker = SegmentMaker(segment_s=segment_s, expect_audio=expect_audio)
        self._device_id = device_id
        self._channel_id = channel_id
        self._trigger = trigger
        self._segment: Segment | None = None
        self._descriptor = -1
        self._new_folders = False
        """The file that is open is the first of its day."""
        self.changes: list[Segment] = []
        """Of the index: new and finished segments; the caller takes them."""

    def write(self, frames: Iterable[tuple[Frame, float]]) -> int:
        """Frames with their wall times; returns the bytes written. Raises OSError."""
        return self._put(self._maker.take(frames))

    def finish(self) -> int:
        """No more comes. Raises OSError."""
        return self._put(self._maker.finish())

    def _put(self, pieces: Iterable[Piece]) -> int:
        total = 0
        try:
            for piece in pieces:
                if isinstance(piece, Opened):
                    self._open(piece)
                    total += len(piece.data)
                elif isinstance(piece, Written):
                    write_all(self._descriptor, piece.data)
                    self._grow(len(piece.data), piece.end)
                    total += len(piece.data)
                else:
                    self._close(piece)
        except OSError:
            self._abandon()
            raise
        return total

    def _open(self, piece: Opened) -> None:
        moment = datetime.fromtimestamp(piece.start, UTC)
        own_id = secrets.token_hex(16)
        channel = f"{quote(self._device_id, safe='')}_{quote(self._channel_id, safe='')}"
        file = f"{channel}/{moment:%Y%m%d}/{moment:%H%M%S}-{own_id[:8]}.mp4"
        path = self._directory / file
        self._new_folders = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._segment = Segment(
            id=own_id,
            device_id=self._device_id,
            channel_id=self._channel_id,
            start=piece.start,
            end=None,
            size=0,
            file=file,
            form=piece.form,
            trigger=self._trigger,
        )
        write_all(self._descriptor, piece.data)
        self.changes.append(self._segment)
        self._segment = replace(self._segment, end=piece.start, size=len(piece.data))

    def _grow(self, size: int, end: float) -> None:
        if self._segment is not None:
            self._segment = replace(self._segment, size=self._segment.size + size, end=end)

    def _close(self, piece: Closed) -> None:
        self._grow(0, piece.end)
        if self._segment is None or self._descriptor < 0:
            return
        settle(self._directory / self._segment.file, self._descriptor, new_folders=self._new_folders)
        segment, descriptor = self._segment, self._descriptor
        self._segment, self._descriptor = None, -1
        os.close(descriptor)
        self.changes.append(segment)

    def _abandon(self) -> None:
        """The disk takes no more: the file ends with its last whole piece, as far as that disk can still be trusted."""
        segment, descriptor = self._segment, self._descriptor
        self._segment, self._descriptor = None, -1
        if descriptor < 0:
            return
        try:
            if segment is not None:
                os.ftruncate(descriptor, segment.size)
        except OSError:
            pass  # a reader leaves out what is not whole at the end
        finally:
            os.close(descriptor)
        if segment is None:
            return
        if segment.end is None or segment.end <= segment.start:
            (self._directory / segment.file).unlink(missing_ok=True)
            self.changes = [one for one in self.changes if one.id != segment.id]
            return
        self.changes.append(segment)
