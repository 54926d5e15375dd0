"""Where the files of segments are read: in the directory of recordings, or fetched from the object store.

What is fetched is a temporary file that goes when its reader is done with it; the next segment is fetched while one
is read. So a reader has two of them at most, and `READERS` bounds how many have any. All calls are blocking and may
come from any thread.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.recording.models import ObjectStore, ObjectStoreError, Segment

READERS: Final = 32
FETCHES: Final = 8
"""At the same time."""
FOLDER: Final = ".fetched"


class SegmentFiles:
    """Owner of the temporary files, and of which files are being read."""

    def __init__(
        self,
        directory: Path,
        objects: ObjectStore | None = None,
        name_of: Callable[[Segment], str] = lambda segment: segment.object,
        on_fetched: Callable[[Segment, ObjectStoreError | None], None] = lambda segment, error: None,
    ) -> None:
        self._directory = directory
        self._objects = objects
        self._name_of = name_of
        self._on_fetched = on_fetched
        """Called in any thread."""
        self._lock = threading.Lock()
        self._reading: dict[str, int] = {}
        """How many read a file of the directory."""
        self._remote = 0
        """Readers that fetch."""
        self._pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="recording-fetch")

    def clear(self) -> None:
        """What a kill left."""
        shutil.rmtree(self._directory / FOLDER, ignore_errors=True)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def drop(self, segment: Segment) -> bool:
        """Delete the file of a segment that is in the object store; False: it is being read, or cannot be deleted."""
        with self._lock:
            if self._reading.get(segment.file):
                return False
            path = self._directory / segment.file
            try:
                path.unlink(missing_ok=True)
            except OSError:
                return False
        with contextlib.suppress(OSError):  # not empty yet
            path.parent.rmdir()
            path.parent.parent.rmdir()
        return True

    def each(self, segments: Sequence[Segment]) -> Iterator[tuple[Segment, Path]]:
        """(segment, its file), in order; the file may go with the next step. What is gone everywhere is left out.

        Raises GatewayError gb.media.store_unavailable for what the object store has and does not give, and
        gb.route.busy when too many fetch.
        """
        ahead: Future[Path | None] | None = None
        fetches = False
        try:
            for number, segment in enumerate(segments):
                if ahead is None and self._hold(segment):
                    try:
                        yield segment, self._directory / segment.file
                    finally:
                        self._release(segment)
                    continue
                if self._objects is None or segment.end is None:
                    continue
                if not fetches:
                    self._enter()
                    fetches = True
                now, ahead = ahead or self._pool.submit(self._fetch, segment), None
                following = segments[number + 1] if number + 1 < len(segments) else None
                path = now.result()
                if following is not None and not (self._directory / following.file).exists():
                    ahead = self._pool.submit(self._fetch, following)
                if path is not None:
                    try:
                        yield segment, path
                    finally:
                        path.unlink(missing_ok=True)
        finally:
            if ahead is not None and not ahead.cancel():
                ahead.add_done_callback(_discard)
            if fetches:
                with self._lock:
                    self._remote -= 1

    def _hold(self, segment: Segment) -> bool:
        """It is here, and stays while it is read."""
        with self._lock:
            if not (self._directory / segment.file).exists():
                return False
            self._reading[segment.file] = self._reading.get(segment.file, 0) + 1
            return True

    def _release(self, segment: Segment) -> None:
        with self._lock:
            left = self._reading[segment.file] - 1
            if left:
                self._reading[segment.file] = left
            else:
                del self._reading[segment.file]

    def _enter(self) -> None:
        with self._lock:
            if self._remote >= READERS:
                raise GatewayError(
                    "gb.route.busy", f"{READERS} playbacks and downloads fetch from the object store."
                )
            self._remote += 1

    def _fetch(self, segment: Segment) -> Path | None:
        """None: it is not there. Raises GatewayError."""
        if self._objects is None:
            return None
        folder = self._directory / FOLDER
        path = folder / f"{segment.id}-{secrets.token_hex(4)}.mp4"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._objects.fetch(self._name_of(segment), path, segment.size)
        except ObjectStoreError as error:
            self._on_fetched(segment, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if error.reason == "missing":
                return None
            raise GatewayError("gb.media.store_unavailable", error.detail) from error
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise GatewayError(
                "gb.media.store_unavailable", f"There is no room to fetch it: {error.strerror}."
            ) from error
        self._on_fetched(segment, None)
        return path


def _discard(ahead: Future[Path | None]) -> None:
    if not ahead.cancelled() and ahead.exception() is None and (path := ahead.result()) is not None:
        path.unlink(missing_ok=True)
