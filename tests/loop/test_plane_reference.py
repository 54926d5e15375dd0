"""What only the reference plane has: its readers and its timer are within reach of Python."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gb28181gw.media.engine import EventKind, MediaTransport, RtpSinkSpec, RtpSinkUpdate
from gb28181gw.media.reference import rtp_links, rtp_output
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.wire.rtcp import ReportBlock, build_receiver_report
from gb28181gw.media.wire.rtp import RtpPacket
from tests.support.plane import (
    Events,
    RtpSource,
    free_port_pair,
    send_udp,
    udp_socket,
    until,
    video_frames,
)
from tests.support.rig import Rig, opened_rig
from tests.support.rtp_peer import UdpPeer

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


@pytest.mark.parametrize("segments", [True, False])
async def test_udp_segments_or_single_datagrams_are_the_same_to_the_peer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, segments: bool
) -> None:
    sends: list[int] = []
    group = rtp_links.UdpLink._group

    def counted(queue: deque[bytes]) -> int:
        sends.append(group(queue))
        return sends[-1]

    monkeypatch.setattr(rtp_links.UdpLink, "_group", staticmethod(counted))
    if not segments:
        monkeypatch.setattr(rtp_links, "has_segmentation", lambda _: False)
    elif not _has_segmentation():
        pytest.skip("this kernel has no UDP_SEGMENT")
    await rig.open(frames=False)
    peer = UdpPeer()
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP, host="127.0.0.1", port=free_port_pair(), ssrc=3, remote=peer.remote
    )
    made = await rig.plane.add_rtp_sink("s", spec, Events())
    big = [replace(frame, payload=frame.payload + b"\x55" * 20_000) for frame in video_frames()]
    sent = RtpSource().all(big)
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: rig.counters.packets == len(sent))
        rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
        kept = len(RtpSource().all(big[25:]))
        await until(lambda: len(peer.packets) == kept)
    assert peer.payload == b"".join(RtpPacket.parse(packet).payload for packet in sent[-kept:])
    assert (max(sends, default=1) > 8) == segments
    peer.close()


async def test_a_peer_whose_reports_stay_away_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtp_output, "RTCP_SILENCE_S", 0.2)
    await rig.open(frames=False)
    peer, events = UdpPeer(), Events()
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP, host="127.0.0.1", port=free_port_pair(), ssrc=3, remote=peer.remote
    )
    made = await rig.plane.add_rtp_sink("s", spec, events)
    rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    with udp_socket() as device:
        await send_udp(device, RtpSource().all(video_frames()), rig.port)
        await until(lambda: len(peer.packets) > 0)
    to = ("127.0.0.1", made.port + 1)
    peer.send_rtcp(build_receiver_report(9, (ReportBlock(ssrc=4),), "p"), to)  # not about us
    await until(lambda: len(peer.reports) > 0)
    assert not events.of(EventKind.SINK_CLOSED)
    peer.send_rtcp(build_receiver_report(9, (ReportBlock(ssrc=3),), "p"), to)
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "silent"
    peer.close()


def _has_segmentation() -> bool:
    with udp_socket() as probe:
        return rtp_links.has_segmentation(probe)
