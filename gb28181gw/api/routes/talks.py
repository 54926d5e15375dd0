"""Speaking to a channel: start, sound, end (GB/T 28181-2022 9.12)."""

from __future__ import annotations

import contextlib
from typing import Annotated, Final

from fastapi import APIRouter, Body, Request, WebSocket
from starlette.websockets import WebSocketDisconnect

from gb28181gw.access.roles import Action
from gb28181gw.access.tokens import make_grant
from gb28181gw.api.paging import Paged
from gb28181gw.api.play_urls import api_authority, media_authority
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Caller, Services, VisibleDevice, requires
from gb28181gw.api.services import ApiServices
from gb28181gw.api.talk_schemas import SpokenAnswer, TalkAnswer, TalkRequest, talk_answer
from gb28181gw.errors import GatewayError
from gb28181gw.sessions.talk import Holder
from gb28181gw.sessions.wav import read_wav

router = APIRouter(prefix="/api/v1", tags=["talks"])

AUDIO_PATH: Final = "/api/v1/talks/{talk_id}/audio"
WHIP_PATH: Final = "/talks/{talk_id}/whip"
"""Of the media listener."""
REFUSED: Final = 4400
"""WebSocket close code: the sound cannot be spoken; the reason is the error's code."""


@router.post(
    "/devices/{device_id}/channels/{channel_id}/talk",
    operation_id="start_talk",
    dependencies=[requires(Action.TALK)],
)
async def start_talk(
    request: Request,
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    key: Caller,
    body: TalkRequest | None = None,
) -> TalkAnswer:
    """Speak to the channel; answers when the device listens, at most 20 s.

    One talks at a time: 409 gb.route.busy names who does. Browsers give a microphone to pages of HTTPS or of
    localhost only (TK-12). It ends by DELETE, when the device ends it, or after a minute without sound.
    """
    view = await services.talks.start(
        device.id,
        channel_id,
        Holder(key_id=key.id, name=key.name),
        way=body.talk_way() if body is not None else None,
    )
    host, grant = request.headers.get("host", ""), make_grant(key.id)
    scheme = "wss" if request.url.scheme == "https" else "ws"
    audio, whip = AUDIO_PATH.format(talk_id=view.id), WHIP_PATH.format(talk_id=view.id)
    return talk_answer(
        view,
        services.zone,
        audio_url=f"{scheme}://{api_authority(host)}{audio}?token={services.tokens.mint(audio, grant)}",
        whip_url=f"http://{media_authority(services.play, host)}{whip}?token={services.tokens.mint(whip, grant)}",
    )


@router.get("/talks", operation_id="list_talks", dependencies=[requires(Action.TALK)])
async def list_talks(services: Services, paging: Paged) -> Page[TalkAnswer]:
    """Talks that are not ended."""
    found = paging.pick(
        services.talks.list(), lambda view: (view.id, view.device_id, view.channel_id, view.holder)
    )
    return paging.cut(found, lambda view: talk_answer(view, services.zone))


@router.get("/talks/{talk_id}", operation_id="get_talk", dependencies=[requires(Action.TALK)])
async def get_talk(talk_id: str, services: Services) -> TalkAnswer:
    """One talk."""
    return talk_answer(services.talks.get(talk_id), services.zone)


@router.delete(
    "/talks/{talk_id}", operation_id="stop_talk", status_code=204, dependencies=[requires(Action.TALK)]
)
async def stop_talk(talk_id: str, services: Services) -> None:
    """End it; the device is told at once."""
    await services.talks.stop(talk_id)


@router.post(
    "/talks/{talk_id}/audio",
    operation_id="speak",
    status_code=202,
    dependencies=[requires(Action.TALK)],
)
async def speak(
    talk_id: str,
    data: Annotated[bytes, Body(media_type="audio/wav")],
    services: Services,
) -> SpokenAnswer:
    """Queue a WAV file (PCM, 16 bits, one or two channels, up to 1 MiB) behind what waits already."""
    pcm, rate = read_wav(data)
    services.talks.feed(talk_id, pcm, rate)
    return SpokenAnswer(
        seconds=round(len(pcm) / 2 / rate, 3), queued_s=round(services.talks.get(talk_id).queued_s, 3)
    )


@router.websocket("/talks/{talk_id}/audio")
async def listen_to(websocket: WebSocket, talk_id: str) -> None:
    """PCM of a microphone, until either side closes; one microphone at a time.

    `api.middleware` has checked the permission.
    """
    services: ApiServices = websocket.app.state.services
    rate_text = websocket.query_params.get("rate", "8000")
    rate = int(rate_text) if rate_text.isascii() and rate_text.isdecimal() and len(rate_text) < 7 else 0
    client = f"{websocket.client.host}:{websocket.client.port}" if websocket.client is not None else ""
    reason, microphone = "speaker_gone", None
    try:
        services.talks.get(talk_id)
        await websocket.accept()
        microphone = services.talks.take_microphone(talk_id, kind="websocket", client=client)
        while True:
            microphone.feed(await websocket.receive_bytes(), rate)
    except GatewayError as error:
        reason = error.reason
        with contextlib.suppress(RuntimeError):  # the client closed at the same moment
            await websocket.close(REFUSED, error.code)
    except (WebSocketDisconnect, KeyError):
        return  # the client went, or sent text
    finally:
        if microphone is not None:
            microphone.release(reason)
