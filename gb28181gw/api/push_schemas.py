"""The JSON of pushes."""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal

from pydantic import Field

from gb28181gw.api.schemas import Answer, Body, iso_time
from gb28181gw.outputs.push import PushView


class PushBody(Body):
    """`POST …/channels/{cid}/push`."""

    url: str = Field(description="rtmp://, rtmps://, rtsp:// or rtsps://; a secret.")
    video: bool = True
    audio: bool = True


class PushAnswer(Answer):
    """A push, and how it stands."""

    id: str
    device_id: str
    channel_id: str
    url: str = Field(description="Without user info, query and last path segment.")
    video: bool
    audio: bool
    state: Literal["starting", "pushing", "retrying"]
    since: str | None
    last_error: str = Field(description="Of the last time that it broke; empty: it never did.")
    breaks: int


def push_answer(view: PushView, zone: tzinfo) -> PushAnswer:
    order = view.order
    return PushAnswer(
        id=order.id,
        device_id=order.device_id,
        channel_id=order.channel_id,
        url=view.url,
        video=order.video,
        audio=order.audio,
        state=view.state.value,
        since=iso_time(view.since, zone),
        last_error=view.last_error,
        breaks=view.breaks,
    )
