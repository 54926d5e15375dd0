"""Play tokens and the guard of the play URLs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gb28181gw.access.guard import MediaGuard, bearer
from gb28181gw.access.keys import Keys
from gb28181gw.access.roles import Role
from gb28181gw.access.tokens import PlayTokens, make_grant, stream_path
from gb28181gw.errors import GatewayError
from tests.support.api_services import TestClock
from tests.support.stores import MemoryKeyStore

LIVE = "/live/34020000001180000001_34020000001320000001.flv"


class Rig:
    def __init__(self) -> None:
        self.clock = TestClock()
        self.keys = Keys(MemoryKeyStore(), wall=self.clock.wall, monotonic=self.clock.monotonic)
        self.tokens = PlayTokens(b"k" * 32, ttl_s=300, wall=self.clock.wall)
        self.guard = MediaGuard(self.keys, self.tokens)

    async def token(self, path: str = LIVE, role: Role = Role.VIEWER) -> tuple[str, str]:
        """(token, key id)"""
        key, _ = await self.keys.create("k", role)
        return self.tokens.mint(path, make_grant(key.id)), key.id

    def code(self, path: str = LIVE, token: str | None = None, authorization: str | None = None) -> str:
        with pytest.raises(GatewayError) as caught:
            self.guard.check(path, token, authorization, "192.0.2.9:1234")
        return caught.value.code


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/live/a_b.flv", "live/a_b"),
        ("live/a_b", "live/a_b"),
        ("/live/a_b.mp4", "live/a_b"),
        ("/live/a_b.ts", "live/a_b"),
        ("/live/a_b/index.m3u8", "live/a_b"),
        ("/live/a_b/whep", "live/a_b"),
        ("/live/a_b/whep/session", "live/a_b"),
        ("/playback/s1.flv", "playback/s1"),
        ("/live/a_b.flv.flv", "live/a_b.flv"),
    ],
)
def test_a_path_names_a_stream_in_any_form(path: str, stream: str) -> None:
    assert stream_path(path) == stream


async def test_a_token_opens_every_form_of_its_stream_any_number_of_times() -> None:
    rig = Rig()
    token, key_id = await rig.token()
    for path in (LIVE, LIVE, LIVE.replace(".flv", ".mp4"), LIVE.replace(".flv", "/index.m3u8")):
        assert rig.guard.check(path, token, None, "c").grant_id.startswith(key_id)


async def test_s15_a_token_opens_no_other_stream_and_not_after_its_time() -> None:
    rig = Rig()
    token, _ = await rig.token()
    assert rig.code(LIVE.replace("0001.flv", "0002.flv"), token) == "gb.output.bad_token"
    rig.clock.now += 299
    assert rig.guard.check(LIVE, token, None, "c")
    rig.clock.now += 1
    assert rig.code(LIVE, token) == "gb.output.bad_token"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"),
        lambda t: t.replace(".", ".f", 1),
        lambda t: "x" + t,
        lambda t: t + ".x",
        lambda t: t.partition(".")[0],
        lambda t: "..",
        lambda t: "first-aaaaaaaa.ffffffff.AAAA",
        lambda t: t + "\udc80",
        lambda t: t * 20,
        lambda t: "٣".join(t.split(".")),
        lambda t: t.rsplit(".", 1)[0] + ".",
    ],
)
async def test_s15_a_changed_token_opens_nothing(change: Callable[[str], str]) -> None:
    rig = Rig()
    token, _ = await rig.token()
    assert rig.code(LIVE, change(token)) == "gb.output.bad_token"


async def test_s15_a_token_of_another_gateway_opens_nothing() -> None:
    rig = Rig()
    _, key_id = await rig.token()
    other = PlayTokens(b"x" * 32, ttl_s=300, wall=rig.clock.wall)
    assert rig.code(LIVE, other.mint(LIVE, make_grant(key_id))) == "gb.output.bad_token"
    with pytest.raises(ValueError, match="32 bytes"):
        PlayTokens(b"short", ttl_s=1, wall=rig.clock.wall)


async def test_a_url_lives_on_over_a_restart() -> None:
    rig = Rig()
    token, _ = await rig.token()
    again = MediaGuard(rig.keys, PlayTokens(b"k" * 32, ttl_s=300, wall=rig.clock.wall))
    assert again.check(LIVE, token, None, "c").grant_id


async def test_a_key_in_the_header_opens_too() -> None:
    rig = Rig()
    key, text = await rig.keys.create("k", Role.VIEWER)
    assert rig.guard.check(LIVE, None, f"Bearer {text}", "c").grant_id.startswith(key.id)
    assert rig.guard.check(LIVE, "", f"bearer  {text} ", "c").grant_id
    for wrong in (None, "", "Bearer", "Bearer gbk_no", f"Basic {text}", text):
        assert rig.code(LIVE, None, wrong) == "gb.route.unauthorised"
    assert rig.code(LIVE, "wrong", f"Bearer {text}") == "gb.output.bad_token"


async def test_s15_a_removed_key_ends_what_it_granted_and_nothing_else() -> None:
    rig = Rig()
    token, key_id = await rig.token()
    other, other_id = await rig.token()
    mine = rig.guard.check(LIVE, token, None, "c").grant_id
    theirs = rig.guard.check(LIVE, other, None, "c").grant_id
    told: list[tuple[bool, bool]] = []
    rig.guard.on_revoked(lambda ended: told.append((ended(mine), ended(theirs))))
    await rig.keys.remove(key_id)
    assert told == [(True, False)]
    assert rig.code(LIVE, token) == "gb.output.bad_token"
    assert rig.guard.check(LIVE, other, None, "c").grant_id.startswith(other_id)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", None),
        ("", None),
        (None, None),
        ("Digest x", None),
    ],
)
def test_bearer(header: str | None, key: str | None) -> None:
    assert bearer(header) == key
