"""The JSON of what the gateway records itself."""

from __future__ import annotations

from datetime import tzinfo
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gb28181gw.api.schemas import Answer, Body, Moment, PlayUrls, TrackAnswer, iso_time, track_answer
from gb28181gw.recording.models import RecorderView, RecordingPlan, RecordMode, Segment, Span, WeekSpan
from gb28181gw.recording.playback import RecordingPlayback

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = r"^([01]\d|2[0-3]):[0-5]\d$"


class WeekSpanBody(Body):
    """A part of each week, in the offset of `[sip] timezone`."""

    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)]
    begin: Annotated[str, Field(pattern=_TIME, description="As in 08:00.")] = "00:00"
    end: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$", description="As in 18:30.")] = (
        "24:00"
    )

    @model_validator(mode="after")
    def _in_order(self) -> WeekSpanBody:
        if _seconds(self.end) <= _seconds(self.begin):
            raise ValueError("end must lie after begin; write two parts for a night")
        return self


class RecordingPlanBody(Body):
    """`PUT …/channels/{cid}/recording`."""

    mode: Literal["continuous", "plan", "event"]
    week: Annotated[list[WeekSpanBody], Field(default_factory=list, max_length=50)]
    post_s: Annotated[int, Field(ge=1, le=3600, description="Mode event: so long after the last alarm.")] = 30
    pre_roll: Annotated[
        bool,
        Field(
            description="Mode event: hold the stream all the time, so that the pictures since the last key frame "
            "before the alarm are recorded as well."
        ),
    ] = True
    keep_days: Annotated[int | None, Field(ge=1, le=36_500, description="null: [recording] keep_days.")] = (
        None
    )

    @model_validator(mode="after")
    def _complete(self) -> RecordingPlanBody:
        if (self.mode == "plan") is not bool(self.week):
            raise ValueError("week belongs to the mode plan, which needs it")
        return self

    def to_plan(self, device_id: str, channel_id: str) -> RecordingPlan:
        return RecordingPlan(
            device_id=device_id,
            channel_id=channel_id,
            mode=RecordMode(self.mode),
            week=tuple(
                WeekSpan(day=DAYS.index(day), begin_s=_seconds(part.begin), end_s=_seconds(part.end))
                for part in self.week
                for day in part.days
            ),
            post_s=self.post_s,
            pre_roll=self.pre_roll,
            keep_days=self.keep_days,
        )


class RecordingAnswer(RecordingPlanBody):
    """A plan, and how its recorder stands."""

    device_id: str
    channel_id: str
    state: Literal["idle", "starting", "recording", "retrying", "disk_full"]
    since: str | None
    detail: str = Field(description="Of retrying: what the last attempt failed with.")
    stream_id: str


class SpanAnswer(Answer):
    """Recorded without a gap, and in one form: it can be fetched as one file."""

    start: str | None
    end: str | None
    size: int = Field(description="Bytes of its files; of one that is being written 0.")
    files: int
    locked: bool
    trigger: str = Field(description="continuous, plan or event.")
    uploaded: int = Field(description="So many of its files are complete in the object store.")


class SegmentAnswer(Answer):
    """One file of the index."""

    start: str | None
    end: str | None = Field(description="null: it is being written.")
    size: int
    file: str = Field(description="Below [recording] directory.")
    locked: bool
    trigger: str = Field(description="continuous, plan or event.")
    local: bool = Field(description="The file is in the directory.")
    uploaded: bool = Field(description="It is complete in the object store.")
    object: str = Field(description="Its name in the bucket; empty: it is not there.")


class LockBody(Body):
    """`POST …/channels/{cid}/recording/lock`."""

    start: Moment
    end: Moment
    locked: bool = True


class LockAnswer(Answer):
    files: int = Field(description="That overlap the time.")


class RecordingSpanBody(Body):
    """`POST …/channels/{cid}/recording/playback`."""

    start: Moment
    end: Moment


class RecordingPlaybackAnswer(Answer):
    """A stream that plays what the gateway recorded."""

    id: str
    device_id: str
    channel_id: str
    start: str | None
    end: str | None
    tracks: list[TrackAnswer]
    urls: PlayUrls


def recording_answer(view: RecorderView, zone: tzinfo) -> RecordingAnswer:
    plan = view.plan
    parts: dict[tuple[int, int], list[int]] = {}
    for span in plan.week:
        parts.setdefault((span.begin_s, span.end_s), []).append(span.day)
    return RecordingAnswer(
        mode=plan.mode.value,
        week=[
            WeekSpanBody(days=[DAYS[day] for day in days], begin=_clock(begin), end=_clock(end))  # type: ignore[misc]
            for (begin, end), days in parts.items()
        ],
        post_s=plan.post_s,
        pre_roll=plan.pre_roll,
        keep_days=plan.keep_days,
        device_id=plan.device_id,
        channel_id=plan.channel_id,
        state=view.state.value,
        since=iso_time(view.since, zone),
        detail=view.detail,
        stream_id=view.stream_id,
    )


def span_answer(span: Span, zone: tzinfo) -> SpanAnswer:
    return SpanAnswer(
        start=iso_time(span.start, zone),
        end=iso_time(span.end, zone),
        size=span.size,
        files=span.segments,
        locked=span.locked,
        trigger=span.trigger,
        uploaded=span.uploaded,
    )


def segment_answer(segment: Segment, zone: tzinfo) -> SegmentAnswer:
    return SegmentAnswer(
        start=iso_time(segment.start, zone),
        end=iso_time(segment.end, zone) if segment.end is not None else None,
        size=segment.size,
        file=segment.file,
        locked=segment.locked,
        trigger=segment.trigger,
        local=segment.local,
        uploaded=bool(segment.object),
        object=segment.object,
    )


def recording_playback_answer(
    playback: RecordingPlayback, urls: PlayUrls, zone: tzinfo
) -> RecordingPlaybackAnswer:
    return RecordingPlaybackAnswer(
        id=playback.id,
        device_id=playback.device_id,
        channel_id=playback.channel_id,
        start=iso_time(playback.start, zone),
        end=iso_time(playback.end, zone),
        tracks=[track_answer(track) for track in playback.tracks],
        urls=urls,
    )


def _seconds(text: str) -> int:
    return int(text[:2]) * 3600 + int(text[3:]) * 60


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
