"""JSON of talks."""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal

from pydantic import Field

from gb28181gw.api.schemas import Answer, Body, iso_time
from gb28181gw.sessions.talk import TalkView, TalkWay


class TalkRequest(Body):
    """How to reach the loudspeaker."""

    way: Literal["auto", "broadcast", "talk"] = Field(
        default="auto",
        description="broadcast: the device is told and calls back; talk: it is called with s=Talk; auto: what worked "
        "last, else both in this order.",
    )

    def talk_way(self) -> TalkWay | None:
        return None if self.way == "auto" else TalkWay(self.way)


class TalkAnswer(Answer):
    """One talk that is not ended."""

    id: str
    state: Literal["starting", "talking", "ending"]
    device_id: str
    channel_id: str
    holder: str = Field(description="Name of the key that talks.")
    way: Literal["broadcast", "talk"] | None
    target_id: str | None = Field(description="The id that the device was asked for as its loudspeaker.")
    codec: str | None
    sample_rate: int | None
    transport: Literal["udp", "tcp-passive", "tcp-active"] | None
    ssrc: str | None
    remote: str | None = Field(description="ip:port that sound is sent to.")
    spoken_s: float = Field(description="Seconds of sound that were sent, silence not counted.")
    queued_s: float
    dropped_s: float = Field(description="Sound of a microphone that came too late to be spoken.")
    microphone: Literal["websocket", "webrtc", "upper"] | None = Field(
        description="The microphone that is open."
    )
    started_at: str | None
    audio_url: str | None = Field(
        default=None,
        description="WebSocket for PCM: binary messages of signed 16-bit little-endian mono samples; add &rate=48000 "
        "for another rate than 8000. Only in the answer to the start.",
    )
    whip_url: str | None = Field(
        default=None,
        description="For a microphone by WebRTC (WHIP, RFC 9725): POST an offer. Only in the answer to the start.",
    )


class SpokenAnswer(Answer):
    """A recording was queued."""

    seconds: float
    queued_s: float


def talk_answer(
    view: TalkView, zone: tzinfo, *, audio_url: str | None = None, whip_url: str | None = None
) -> TalkAnswer:
    return TalkAnswer(
        id=view.id,
        state=view.state.value,
        device_id=view.device_id,
        channel_id=view.channel_id,
        holder=view.holder,
        way=view.way.value if view.way is not None else None,
        target_id=view.target_id or None,
        codec=view.codec or None,
        sample_rate=view.sample_rate or None,
        transport=view.transport.value if view.transport is not None else None,
        ssrc=view.ssrc or None,
        remote=view.remote or None,
        spoken_s=round(view.spoken_s, 3),
        queued_s=round(view.queued_s, 3),
        dropped_s=round(view.dropped_s, 3),
        microphone=view.microphone,
        started_at=iso_time(view.started_at, zone),
        audio_url=audio_url,
        whip_url=whip_url,
    )
