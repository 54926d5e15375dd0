"""The JSON of pictures that devices take and upload."""

from __future__ import annotations

from datetime import tzinfo
from typing import Annotated, Literal

from pydantic import Field

from gb28181gw.api.schemas import Answer, Body, iso_time
from gb28181gw.devices.snapshots import Picture, SnapshotView


class SnapshotRequest(Body):
    """`POST …/snapshots`; the body may be left out."""

    count: Annotated[int, Field(ge=1, le=10, description="SnapNum.")] = 1
    interval_s: Annotated[
        int, Field(ge=1, le=3600, description="Interval, seconds from picture to picture.")
    ] = 1
    force: bool = Field(default=False, description="Also to a device whose edition has no snapshots.")


class SnapshotOrderAnswer(Answer):
    """An order of pictures."""

    id: str
    device_id: str
    channel_id: str
    state: Literal["waiting", "complete", "partial", "failed"] = Field(
        description="failed: the device agreed, and no picture came."
    )
    asked: int
    received: int
    pictures: list[str] = Field(description="Their ids.")
    started_at: str | None


def snapshot_order_answer(view: SnapshotView, zone: tzinfo) -> SnapshotOrderAnswer:
    return SnapshotOrderAnswer(
        id=view.id,
        device_id=view.device_id,
        channel_id=view.channel_id,
        state=view.state.value,
        asked=view.asked,
        received=view.received,
        pictures=list(view.pictures),
        started_at=iso_time(view.started_at, zone),
    )


class PictureAnswer(Answer):
    """One picture that a device uploaded."""

    id: str
    order_id: str
    device_id: str
    channel_id: str
    received_at: str | None
    content_type: str
    size: int = Field(description="Bytes.")
    name: str = Field(description="As uploaded, made harmless; empty: it came without one.")
    path: str = Field(description="Where the picture itself is.")


def picture_answer(picture: Picture, zone: tzinfo) -> PictureAnswer:
    return PictureAnswer(
        id=picture.id,
        order_id=picture.session_id,
        device_id=picture.device_id,
        channel_id=picture.channel_id,
        received_at=iso_time(picture.received_at, zone),
        content_type=picture.content_type,
        size=picture.size,
        name=picture.name,
        path=f"/api/v1/snapshots/{picture.id}/image",
    )
