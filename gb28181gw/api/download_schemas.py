"""The JSON of downloads."""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal

from pydantic import Field, model_validator

from gb28181gw.api.schemas import Answer, LiveRequest, Location, Moment, iso_time
from gb28181gw.downloads.models import DownloadView


class DownloadBody(LiveRequest):
    """`POST …/download`."""

    start: Moment
    end: Moment
    speed: float = Field(
        default=4.0, ge=0.25, le=32, description="a=downloadspeed; what the device does may differ."
    )
    location: Location = "front_end"
    original: bool = Field(default=True, description="Keep the device's program stream too, as it came.")

    @model_validator(mode="after")
    def _in_order(self) -> DownloadBody:
        if self.end <= self.start:
            raise ValueError("end must lie after start")
        return self


class FileAnswer(Answer):
    """A file that can be fetched."""

    name: str
    size: int
    sha256: str
    frames: int = Field(description="Pictures.")
    duration_s: float
    url: str = Field(description="Path of the file below the API's address; it needs the key.")
    manifest_url: str


class OriginalAnswer(Answer):
    """A program stream as the device sent it in one transfer."""

    name: str
    size: int
    sha256: str
    url: str


class GapAnswer(Answer):
    """What of the span is not in the file."""

    at_s: float
    time: str | None
    seconds: float
    reason: str = Field(description="not_recorded, lost (packets), or end: the device ended early.")


class PartAnswer(Answer):
    """One transfer of the device."""

    from_s: int
    joined: str = Field(description="How it follows what was there: start, picture, or time.")
    repeated: int
    ended: str
    original: str = Field(description="Name of its program stream; empty: none was kept.")


class DownloadProblem(Answer):
    """Why it failed."""

    code: str
    detail: str
    sip_status: int | None = None


class DownloadAnswer(Answer):
    """One download."""

    id: str
    state: Literal["queued", "running", "retrying", "complete", "failed"]
    device_id: str
    channel_id: str
    start: str | None
    end: str | None
    speed: float
    progress: float = Field(description="0 to 1, by the time seen of the span.")
    position_s: float
    rate: float | None = Field(description="Seconds of recording in a second, as measured.")
    bytes: int = Field(description="Received so far.")
    frames: int
    file_size: int | None = Field(description="Bytes, as the device told them.")
    queue_position: int | None = Field(description="From 1 while it waits.")
    attempts: int
    created_at: str | None
    finished_at: str | None
    file: FileAnswer | None
    originals: list[OriginalAnswer]
    gaps: list[GapAnswer]
    parts: list[PartAnswer]
    notes: list[str]
    error: DownloadProblem | None


def download_answer(view: DownloadView, zone: tzinfo) -> DownloadAnswer:
    request, file = view.request, view.file
    path = f"/api/v1/downloads/{view.id}"
    return DownloadAnswer(
        id=view.id,
        state=view.state.value,
        device_id=request.device_id,
        channel_id=request.channel_id,
        start=iso_time(request.start, zone),
        end=iso_time(request.end, zone),
        speed=request.speed,
        progress=view.progress,
        position_s=view.position_s,
        rate=round(view.rate, 2) if view.rate is not None else None,
        bytes=view.bytes,
        frames=view.frames,
        file_size=view.file_size,
        queue_position=view.queue_position,
        attempts=view.attempts,
        created_at=iso_time(view.created_at, zone),
        finished_at=iso_time(view.finished_at, zone),
        file=None
        if file is None
        else FileAnswer(
            name=file.name,
            size=file.size,
            sha256=file.sha256,
            frames=file.frames,
            duration_s=file.duration_s,
            url=f"{path}/file",
            manifest_url=f"{path}/manifest",
        ),
        originals=[
            OriginalAnswer(
                name=original.name,
                size=original.size,
                sha256=original.sha256,
                url=f"{path}/originals/{original.name}",
            )
            for original in view.originals
        ],
        gaps=[
            GapAnswer(
                at_s=gap.at_s,
                time=iso_time(request.start + gap.at_s, zone),
                seconds=gap.seconds,
                reason=gap.reason,
            )
            for gap in view.gaps
        ],
        parts=[
            PartAnswer(
                from_s=part.from_s,
                joined=part.joined,
                repeated=part.repeated,
                ended=part.ended,
                original=part.original,
            )
            for part in view.parts
        ],
        notes=list(view.notes),
        error=DownloadProblem(code=view.error_code, detail=view.error_detail, sip_status=view.sip_status)
        if view.error_code
        else None,
    )
