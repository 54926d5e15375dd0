"""Sender reports of the RTSP server: what they say of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import rtcp
from gb28181gw.outputs import sender_reports
from gb28181gw.outputs.rtsp_sdp import Medium, media_of
from gb28181gw.outputs.rtsp_stream import RtspStream
from tests.support.media import audio_clip, video_clip

VIDEO = video_clip(Codec.H264, frames=60)
AUDIO = audio_clip(Codec.PCMA)


class Engine:
    def add_frame_sink(self, stream_id: str, on_frames: Any, **_: object) -> int:
        self.on_frames = on_frames
        return 1


class Player:
    def __init__(self) -> None:
        self.reports: dict[int, rtcp.SenderReport] = {}

    def send(self, medium: Medium, packets: Sequence[bytes], *, key: bool) -> None:
        pass

    def report(self, medium: Medium, data: bytes) -> None:
        (report, *_) = rtcp.parse(data)
        assert isinstance(report, rtcp.SenderReport)
        self.reports[medium.clock_rate] = report

    def ended(self, reason: str) -> None:
        pass

    @property
    def origins(self) -> dict[int, float]:
        """Wall time of RTP time 0 as the last reports have it, in seconds, by clock."""
        return {
            rate: report.ntp_time / 2**32 - report.rtp_timestamp / rate
            for rate, report in self.reports.items()
        }


def test_the_mapping_of_time_stays_however_unevenly_frames_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A player moves pictures by as much as the mapping moves; by more than 40 ms, and they come out of order."""
    clock = {"now": 100.0}
    monkeypatch.setattr(sender_reports.time, "time", lambda: 1e9 + clock["now"])
    engine: Any = Engine()
    media = media_of([VIDEO[0].track, AUDIO[0].track], audio=[Codec.PCMA])
    stream = RtspStream(engine, "s", media, made_audio=False, monotonic=lambda: clock["now"])
    player = Player()
    stream.play(player)
    found = []
    for frame, late_s in zip(VIDEO, [0.0, 0.3, 0.0, 0.12, 0.5] * 12, strict=True):
        clock["now"] = 100 + frame.dts_90k / 90_000 + late_s
        sound = [one for one in AUDIO if one.dts_90k <= frame.dts_90k][-1]
        engine.on_frames([replace(one, arrival=clock["now"]) for one in (frame, sound)])
        stream.report()
        found.append(player.origins)
    moved = [abs(after[rate] - before[rate]) for before, after in pairwise(found) for rate in (90_000, 8_000)]
    assert max(moved) < 0.0025  # a slew for each of the two tracks, and the rounding of RTP time
    assert abs(found[-1][90_000] - found[-1][8_000]) < 0.0025

    clock["now"] += 60  # as after a pause
    engine.on_frames([replace(VIDEO[-1], pts_90k=VIDEO[-1].pts_90k + 3600, arrival=clock["now"])])
    stream.report()
    assert abs(player.origins[90_000] - found[-1][90_000] - 60) < 1
