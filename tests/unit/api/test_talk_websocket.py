"""The WebSocket of a talk: who may open it, and what goes through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gb28181gw.access.roles import Role
from gb28181gw.access.tokens import make_grant
from gb28181gw.api.server import MAX_WS_MESSAGE, ApiServer, ApiServerConfig
from gb28181gw.errors import GatewayError
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind, MicrophoneUse
from gb28181gw.sessions.talk import TalkState, TalkView
from tests.support.api_services import NOW, NVR, FakeTalks, Rig, api_rig
from tests.support.devices import until

TALK = "0123456789abcdef0123456789abcdef"
PATH = f"/api/v1/talks/{TALK}/audio"


class OneTalk(FakeTalks):
    """A talk that stands and keeps what it is fed."""

    def __init__(self) -> None:
        self.fed: list[tuple[bytes, int, bool]] = []
        self.over = False
        self.clients: list[str] = []
        self.released: list[str] = []
        self.taken = False

    def get(self, talk_id: str) -> TalkView:
        if talk_id != TALK or self.over:
            raise GatewayError("gb.route.talk_unknown")
        return TalkView(
            id=TALK, state=TalkState.TALKING, device_id=NVR, channel_id=NVR, holder="operator", started_at=NOW
        )

    def feed(self, talk_id: str, pcm: bytes, rate: int) -> None:
        self._take(talk_id, pcm, rate, live=False)

    def _take(self, talk_id: str, pcm: bytes, rate: int, *, live: bool) -> None:
        self.get(talk_id)
        if not 8_000 <= rate <= 48_000:
            raise GatewayError("gb.route.invalid")
        self.fed.append((pcm, rate, live))

    def take_microphone(
        self, talk_id: str, *, kind: MicrophoneKind, client: str, on_over: Callable[[], None] | None = None
    ) -> Microphone:
        if self.taken:
            raise GatewayError("gb.route.busy")
        self.taken = True
        self.clients.append(client)

        def released(_: Microphone, reason: str) -> None:
            self.taken = False
            self.released.append(reason)

        use = MicrophoneUse(
            feed=lambda pcm, rate: self._take(talk_id, pcm, rate, live=True), released=released
        )
        return Microphone(use, kind=kind, client=client, sample_rate=8_000, opened_at=NOW, on_over=on_over)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Rig, OneTalk, str]]:
    talks = OneTalk()
    async with api_rig(talks=talks) as rig:
        server = ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=0, graceful_s=1))
        await server.start()
        try:
            yield rig, talks, f"ws://127.0.0.1:{server.port}"
        finally:
            await server.stop()


def token_of(rig: Rig, path: str = PATH, role: Role = Role.OPERATOR) -> str:
    key_id = next(key.id for key in rig.key_store.keys.values() if key.role is role)
    return rig.services.tokens.mint(path, make_grant(key_id))


async def test_r055_a_microphone_speaks_through_it() -> None:
    async with (
        served() as (rig, talks, base),
        connect(f"{base}{PATH}?token={token_of(rig)}&rate=48000") as socket,
    ):
        await socket.send(b"\1\0" * 480)
        await socket.send(b"\2\0" * 480)
        await until(lambda: len(talks.fed) == 2)
        assert talks.fed == [(b"\1\0" * 480, 48_000, True), (b"\2\0" * 480, 48_000, True)]
        talks.over = True
        await socket.send(b"\0\0")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "gb.route.talk_unknown")
        assert talks.clients[0].startswith("127.0.0.1:")
        await until(lambda: talks.released == ["talk_unknown"])


async def test_one_microphone_at_a_time() -> None:
    async with served() as (rig, talks, base):
        url = f"{base}{PATH}?token={token_of(rig)}"
        async with connect(url) as first:
            await first.send(b"\1\0")
            await until(lambda: bool(talks.fed))
            async with connect(url) as second:
                with pytest.raises(ConnectionClosed) as closed:
                    await second.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "gb.route.busy")
        await until(lambda: talks.released == ["speaker_gone"])


async def test_s09_a_key_in_the_header_does_as_well_if_its_role_may() -> None:
    async with served() as (rig, _, base):
        for role, welcome in ((Role.OPERATOR, True), (Role.VIEWER, False)):
            headers = {"Authorization": f"Bearer {rig.texts[role]}"}
            if welcome:
                async with connect(base + PATH, additional_headers=headers):
                    continue
            with pytest.raises(InvalidStatus) as refused:
                await connect(base + PATH, additional_headers=headers)
            assert refused.value.response.status_code == 403


@pytest.mark.parametrize("wrong", ["none", "other path", "expired", "removed key", "no such socket"])
async def test_s09_nobody_else_opens_a_websocket(wrong: str) -> None:
    async with served() as (rig, talks, base):
        token = "" if wrong == "none" else token_of(rig, PATH if wrong != "other path" else "/live/a_b.flv")
        path = "/api/v1/events" if wrong == "no such socket" else PATH
        if wrong == "expired":
            rig.clock.now += 301
        if wrong == "removed key":
            await rig.services.keys.remove(token.partition("-")[0])
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{base}{path}?token={token}")
        assert refused.value.response.status_code == 403
        assert not talks.fed


@pytest.mark.parametrize("data", ["text", b"\0" * (MAX_WS_MESSAGE + 1)])
async def test_f13_what_is_no_sound_ends_the_connection(data: str | bytes) -> None:
    async with served() as (rig, talks, base), connect(f"{base}{PATH}?token={token_of(rig)}") as socket:
        with pytest.raises(ConnectionClosed):
            await socket.send(data)
            await socket.recv()
        assert not talks.fed


async def test_a_rate_that_is_none_is_told() -> None:
    async with served() as (rig, _, base), connect(f"{base}{PATH}?token={token_of(rig)}&rate=fast") as socket:
        await socket.send(b"\0\0")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.reason == "gb.route.invalid"
