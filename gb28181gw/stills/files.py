"""The last picture of each channel, as files: what is shown while a device is offline.

One JPEG a channel, whose time of modification is the picture's. The oldest go first when all together are too large.
Blocking calls, for a thread; `StillFiles` remembers only times and sizes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

_SUFFIX: Final = ".jpg"


@dataclass(frozen=True, slots=True)
class KeptStill:
    taken_at: float
    """Seconds since 1970 UTC."""
    size: int


class StillFiles:
    """Owner of `directory`, which is made when the first picture comes."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._kept: dict[str, KeptStill] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def total_bytes(self) -> int:
        return self._total

    def load(self) -> None:
        """Find what an earlier process kept; halves of files are removed."""
        if not self._directory.is_dir():
            return
        for file in self._directory.iterdir():
            if file.suffix != _SUFFIX:
                file.unlink(missing_ok=True)
                continue
            status = file.stat()
            self._kept[file.name] = KeptStill(status.st_mtime, status.st_size)
            self._total += status.st_size
        self._prune()

    def read(self, device_id: str, channel_id: str) -> tuple[KeptStill, bytes] | None:
        """None: there is no picture."""
        name = _name(device_id, channel_id)
        kept = self._kept.get(name)
        if kept is None:
            return None
        try:
            return kept, (self._directory / name).read_bytes()
        except OSError:
            self._forget(name)  # somebody removed the file
            return None

    def keep(self, device_id: str, channel_id: str, taken_at: float, jpeg: bytes) -> None:
        """In place of the one before. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = _name(device_id, channel_id)
        partial = self._directory / f"{name}.part"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(jpeg)
        os.utime(partial, (taken_at, taken_at))
        partial.replace(self._directory / name)
        self._forget(name)
        self._kept[name] = KeptStill(taken_at, len(jpeg))
        self._total += len(jpeg)
        self._prune()

    def forget_device(self, device_id: str) -> None:
        """The device was removed: its pictures go."""
        prefix = f"{quote(device_id, safe='')}_"
        for name in [name for name in self._kept if name.startswith(prefix)]:
            self._remove(name)

    def _prune(self) -> None:
        if self._total <= self._max_bytes:
            return
        for name, _ in sorted(self._kept.items(), key=lambda item: item[1].taken_at):
            if self._total <= self._max_bytes:
                return
            self._remove(name)

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        self._forget(name)

    def _forget(self, name: str) -> None:
        gone = self._kept.pop(name, None)
        self._total -= gone.size if gone is not None else 0


def _name(device_id: str, channel_id: str) -> str:
    return f"{quote(device_id, safe='')}_{quote(channel_id, safe='')}{_SUFFIX}"
