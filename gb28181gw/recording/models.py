"""What is recorded, and what was: plans, segments, spans, and the store that keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

JOIN_S: Final = 0.5
"""Segments that follow each other this closely are one span: more than the files of one recorder differ, less than
what a lost stream or a restart costs."""


class RecordMode(StrEnum):
    CONTINUOUS = "continuous"
    PLAN = "plan"
    """By the week's plan."""
    EVENT = "event"
    """At alarms."""


class RecorderState(StrEnum):
    """As the API shows it."""

    IDLE = "idle"
    """Not now: by the plan, or no alarm."""
    STARTING = "starting"
    """The stream is asked for."""
    RECORDING = "recording"
    RETRYING = "retrying"
    """The stream did not come or was lost; it is asked for again."""
    DISK_FULL = "disk_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekSpan:
    """A part of each week, in the gateway's offset from UTC."""

    day: int
    """0 Monday to 6 Sunday."""
    begin_s: int
    """Since midnight."""
    end_s: int
    """At most 86400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPlan:
    """What a person wants of one channel."""

    device_id: str
    channel_id: str
    mode: RecordMode
    week: tuple[WeekSpan, ...] = ()
    post_s: int = 30
    """Mode event: so long after the last alarm."""
    pre_roll: bool = True
    """Mode event: hold the stream all the time, so that what came before the alarm is there."""
    keep_days: int | None = None
    """None: `[recording] keep_days`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of the index. Times are seconds since 1970 UTC."""

    id: str
    """32 hex digits."""
    device_id: str
    channel_id: str
    start: float
    end: float | None
    """None: it is being written, or was when the gateway was killed."""
    size: int
    file: str
    """Relative to the directory of recordings."""
    form: str
    """Digest of its initialisation segment: files of one form can be joined."""
    trigger: str
    """``continuous``, ``plan``, ``event``."""
    locked: bool = False
    """Evidence: never deleted by the gateway."""
    local: bool = True
    """Its file is in the directory of recordings."""
    object: str = ""
    """Its whole name in the object store, where it is complete; empty: it is not there."""
    upload_due: float | None = None
    """From when on it is to be brought to the object store; None: it is not."""
    upload_name: str = ""
    """Its whole name there, decided before it is brought; empty: it was not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Segments of one form that follow each other without a gap."""

    start: float
    end: float
    size: int
    segments: int
    locked: bool
    """All of it."""
    trigger: str
    uploaded: int = 0
    """So many of the segments are in the object store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderView:
    """A plan and how it stands."""

    plan: RecordingPlan
    state: RecorderState
    since: float
    detail: str = ""
    stream_id: str = ""


class UploadStore(Protocol):
    """What is to be done in the object store. Calls raise gb.route.storage_unavailable."""

    async def uploads_due(self, now: float, limit: int) -> list[Segment]:
        """To be uploaded by now, the longest due first."""
        ...

    async def uploads_waiting(self) -> int:
        """All that are to be uploaded, now or later."""
        ...

    async def queue_uploads(self, due: float) -> int:
        """All finished files that are here, not in the object store and not in the queue; how many."""
        ...

    async def name_upload(self, segment_id: str, name: str) -> None:
        """An object of this name may be there from now on, and is to be removed with the segment."""
        ...

    async def put_off_upload(self, segment_id: str, due: float | None) -> None:
        """None: it is not tried any more."""
        ...

    async def uploaded(self, segment_id: str, name: str) -> bool:
        """It is complete in the object store. False: it was removed meanwhile, and the object is to be removed."""
        ...

    async def objects_to_remove(self, limit: int) -> list[str]: ...

    async def objects_removed(self, names: Iterable[str]) -> None: ...


class RecordingStore(UploadStore, Protocol):
    """Keeps plans and the index; `storage` implements it. Calls raise gb.route.storage_unavailable."""

    async def load_plans(self) -> list[RecordingPlan]: ...

    async def save_plan(self, plan: RecordingPlan) -> None: ...

    async def remove_plan(self, device_id: str, channel_id: str) -> None: ...

    async def save_segment(self, segment: Segment) -> None:
        """Write or overwrite, but for `locked`, `local` and `object`, which stay as they are."""
        ...

    async def remove_segments(self, ids: Iterable[str]) -> None:
        """Their objects are to be removed from then on."""
        ...

    async def open_segments(self) -> list[Segment]:
        """Without an end."""
        ...

    async def segments(self, device_id: str, channel_id: str, start: float, end: float) -> list[Segment]:
        """That overlap the time, oldest first; one that is being written has no end."""
        ...

    async def lock(self, device_id: str, channel_id: str, start: float, end: float, *, locked: bool) -> int:
        """Of all segments that overlap the time; how many."""
        ...

    async def expired(self, device_id: str, channel_id: str, before: float, limit: int) -> list[Segment]:
        """Closed and unlocked ones that ended before, oldest first; empty ids: of every channel."""
        ...

    async def oldest_local(self, limit: int, *, uploaded: bool) -> list[Segment]:
        """Closed and unlocked ones whose file is here, and in the object store as well or not; oldest first."""
        ...

    async def local_removed(self, ids: Iterable[str]) -> None:
        """Their files are in the object store only."""
        ...

    async def total_bytes(self) -> int:
        """Of all closed segments whose file is here."""
        ...

    async def recorded_channels(self) -> list[tuple[str, str]]:
        """That have segments, with a plan or without."""
        ...


class ObjectStoreError(Exception):
    """What the object store did not do; `reason` is one of unreachable, refused, missing, mismatch and failed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class ObjectStore(Protocol):
    """S3-compatible storage (`storage.objects.S3Objects`)."""

    @property
    def place(self) -> str:
        """Endpoint and bucket, for people."""
        ...

    async def put(self, name: str, path: Path) -> int:
        """Store a whole file and see that all of it is there; its bytes. Raises ObjectStoreError, OSError."""
        ...

    def fetch(self, name: str, path: Path, size: int) -> None:
        """Write an object of this size into a new file. Blocking, in any thread. Raises ObjectStoreError, OSError."""
        ...

    async def remove(self, name: str) -> None:
        """What is not there is removed already. Raises ObjectStoreError."""
        ...


def spans_of(segments: Iterable[Segment], now: float) -> list[Span]:
    """Join what follows without a gap; a segment that is being written ends `now`."""
    spans: list[Span] = []
    form = ""
    for segment in segments:
        end = segment.end if segment.end is not None else max(now, segment.start)
        last = spans[-1] if spans else None
        if (
            last is not None
            and segment.form == form
            and segment.start - last.end <= JOIN_S
            and segment.locked == last.locked
            and segment.trigger == last.trigger
        ):
            spans[-1] = Span(
                start=last.start,
                end=max(last.end, end),
                size=last.size + segment.size,
                segments=last.segments + 1,
                locked=last.locked,
                trigger=last.trigger,
                uploaded=last.uploaded + bool(segment.object),
            )
        else:
            spans.append(
                Span(
                    start=segment.start,
                    end=end,
                    size=segment.size,
                    segments=1,
                    locked=segment.locked,
                    trigger=segment.trigger,
                    uploaded=int(bool(segment.object)),
                )
            )
            form = segment.form
    return spans


def is_planned(week: Iterable[WeekSpan], weekday: int, second: int) -> bool:
    """Whether a second of a day of the week is within the plan."""
    return any(span.day == weekday and span.begin_s <= second < span.end_s for span in week)
