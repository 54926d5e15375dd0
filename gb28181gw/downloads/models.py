"""What a download is to those above: its request, its states, its view, its manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from gb28181gw.media.engine import MediaTransport

MANIFEST: Final = "manifest.json"


class FileError(Exception):
    """The frames cannot be written: a codec that the file cannot hold, or a disk that takes no more."""


class DownloadState(StrEnum):
    """Exits of each state::

    QUEUED   -> RUNNING   the device has room, and so has the gateway
             -> (gone)    DELETE
    RUNNING  -> RETRYING  the stream broke off in the middle
             -> COMPLETE  the device sent all that it has of the span
             -> FAILED    refused, or the disk is full
             -> QUEUED    the gateway was stopped, and started again
    RETRYING -> RUNNING   asked again from where it broke off
             -> FAILED    tried often enough without a further picture
    """

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETE = "complete"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in (DownloadState.COMPLETE, DownloadState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRequest:
    """What is wanted; times are whole seconds since 1970 UTC."""

    device_id: str
    channel_id: str
    start: int
    end: int
    speed: float = 4.0
    original: bool = True
    """Keep the device's program stream too, as it came."""
    transport: MediaTransport | None = None
    centre: bool = False

    @property
    def length_s(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What of the span is not in the file."""

    at_s: float
    """Seconds from the start of the span."""
    seconds: float
    reason: str
    """``not_recorded`` (the device's time jumps), ``lost`` (packets), or ``end`` (the device ended early)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One INVITE's share of the file."""

    from_s: int
    """Where in the span it was asked for."""
    joined: str
    """How it follows what was there: ``start``, ``picture`` (at a picture that both had) or ``time``."""
    repeated: int
    """Pictures of it that were there already."""
    ended: str
    """Why it ended; ``restart``: the gateway was stopped."""
    original: str = ""
    """Name of its program stream among `originals`; empty: none was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFile:
    """A file that can be fetched."""

    name: str
    size: int
    sha256: str
    frames: int = 0
    """Pictures."""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadView:
    """One download as the API shows it."""

    id: str
    request: DownloadRequest
    state: DownloadState
    created_at: float
    finished_at: float | None = None
    queue_position: int | None = None
    """From 1 while it waits."""
    progress: float = 0.0
    """0 to 1, by the time seen of the span (9.9.1 b)."""
    position_s: float = 0.0
    """Where in the span the last picture of the file ends."""
    rate: float | None = None
    """Seconds of recording in a second, as measured."""
    bytes: int = 0
    """Received so far."""
    frames: int = 0
    file_size: int | None = None
    """Bytes, as the device told them (`a=filesize`)."""
    attempts: int = 0
    stream_id: str = ""
    file: DownloadFile | None = None
    originals: tuple[DownloadFile, ...] = ()
    """Program streams as they came, one a part; where parts overlap, both have the same pictures."""
    gaps: tuple[Gap, ...] = ()
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of the file, in sentences."""
    error_code: str = ""
    error_detail: str = ""
    sip_status: int | None = None


def manifest_of(view: DownloadView) -> dict[str, Any]:
    """JSON of a download, with what is needed to verify its file and to show it after a restart."""
    request = view.request
    return {
        "version": 1,
        "id": view.id,
        "device_id": request.device_id,
        "channel_id": request.channel_id,
        "start": request.start,
        "end": request.end,
        "speed": request.speed,
        "state": view.state.value,
        "created_at": view.created_at,
        "finished_at": view.finished_at,
        "position_s": view.position_s,
        "attempts": view.attempts,
        "bytes_received": view.bytes,
        "file": asdict(view.file) if view.file is not None else None,
        "originals": [asdict(file) for file in view.originals],
        "gaps": [asdict(gap) for gap in view.gaps],
        "parts": [asdict(part) for part in view.parts],
        "notes": list(view.notes),
        "error": {"code": view.error_code, "detail": view.error_detail} if view.error_code else None,
    }


def write_manifest(view: DownloadView, directory: Path) -> None:
    """Whole or not at all. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    text = json.dumps(manifest_of(view), ensure_ascii=False, indent=2)
    path = directory / f"{MANIFEST}.part"
    path.write_text(text + "\n", encoding="utf-8")
    path.replace(directory / MANIFEST)


def view_of(manifest: dict[str, Any]) -> DownloadView:
    """The view of a manifest. Raises KeyError, TypeError or ValueError for one that is damaged."""
    file, error = manifest["file"], manifest["error"] or {"code": "", "detail": ""}
    state = DownloadState(manifest["state"])
    return DownloadView(
        id=str(manifest["id"]),
        request=DownloadRequest(
            device_id=str(manifest["device_id"]),
            channel_id=str(manifest["channel_id"]),
            start=int(manifest["start"]),
            end=int(manifest["end"]),
            speed=float(manifest["speed"]),
        ),
        state=state,
        created_at=float(manifest["created_at"]),
        finished_at=float(manifest["finished_at"]) if state.over else None,
        progress=1.0 if state is DownloadState.COMPLETE else 0.0,
        position_s=float(manifest["position_s"]),
        bytes=int(manifest["bytes_received"]),
        frames=int(file["frames"]) if file is not None else 0,
        attempts=int(manifest["attempts"]),
        file=DownloadFile(**file) if file is not None else None,
        originals=tuple(DownloadFile(**original) for original in manifest["originals"]),
        gaps=tuple(Gap(**gap) for gap in manifest["gaps"]),
        parts=tuple(Part(**part) for part in manifest["parts"]),
        notes=tuple(str(note) for note in manifest["notes"]),
        error_code=str(error["code"]),
        error_detail=str(error["detail"]),
    )
