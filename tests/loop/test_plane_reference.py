"""What only the reference plane has: its readers and its timer are within reach of Python."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gb28181gw.media.reference.plane import ReferencePlane
from tests.support.plane import RtpSource, send_udp, udp_socket, until, video_frames
from tests.support.rig import Rig, opened_rig

PLANES = ("python",)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with opened_rig() as made:
        yield made


async def test_i8_reader_that_raises_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.open()
    assert isinstance(rig.plane, ReferencePlane)
    opened = rig.plane._receivers[rig.receiver.id]
    source = RtpSource()
    frames = video_frames(count=75)
    with udp_socket() as device:
        await send_udp(device, source.all(frames[:10]), rig.port)
        await until(lambda: len(rig.pictures) >= 9)

        def explode(*_: object, **__: object) -> None:
            raise RuntimeError("a reader's mistake")

        monkeypatch.setattr(opened.core._intake, "push", explode)
        await send_udp(device, source.all(frames[10:20]), rig.port)
        await until(lambda: opened.core.failures >= 1)
        await send_udp(device, source.all(frames[20:]), rig.port)
        await until(lambda: len(rig.pictures) >= 9 + 45)


async def test_i2_idle_plane_has_no_timer(rig: Rig) -> None:
    assert isinstance(rig.plane, ReferencePlane)
    await rig.open()
    assert rig.plane._timer is not None
    rig.plane.close_receiver(rig.receiver.id)
    rig.plane.close_stream("s")
    plane = rig.plane
    await until(lambda: plane._timer is None, what="the timer of an idle plane gone")
