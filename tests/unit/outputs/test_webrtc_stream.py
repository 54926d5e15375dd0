"""Sender reports of WebRTC: what they say of the time, of sound that comes late out of a transcoder too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import rtcp
from gb28181gw.outputs import sender_reports
from gb28181gw.outputs.transcode_protocol import Made
from gb28181gw.outputs.webrtc_sdp import OPUS
from gb28181gw.outputs.webrtc_stream import WebRtcStream
from tests.support.media import video_clip

VIDEO = video_clip(Codec.H264, frames=60)
RATES = {Codec.H264.value: 90_000, OPUS: 48_000}


class Engine:
    def add_frame_sink(self, stream_id: str, on_frames: Any, **_: object) -> int:
        self.on_frames = on_frames
        return 1


class Player:
    """One that takes everything."""

    def __init__(self, stream: WebRtcStream) -> None:
        self._names = {stream.ssrc(name): name for name in RATES}
        self.origins: dict[str, float] = {}
        """Wall time of RTP time 0 as the last reports have it."""

    def takes(self, name: str) -> bool:
        return name in RATES

    def send(self, name: str, packets: Sequence[bytes], *, key: bool) -> None:
        pass

    def report(self, data: bytes) -> None:
        (report, *_) = rtcp.parse(data)
        assert isinstance(report, rtcp.SenderReport)
        name = self._names[report.ssrc]
        self.origins[name] = report.ntp_time / 2**32 - report.rtp_timestamp / RATES[name]

    def ended(self, reason: str) -> None:
        pass


def test_reports_keep_one_mapping_of_time_for_picture_and_made_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(sender_reports.time, "time", lambda: 1e9 + clock["now"])
    engine: Any = Engine()
    stream = WebRtcStream(
        engine, "s", made_video=False, on_transcoding=lambda *_: None, monotonic=lambda: clock["now"]
    )
    player = Player(stream)
    stream.play(player)
    found = []
    for frame, late_s in zip(VIDEO, [0.0, 0.3, 0.0, 0.12, 0.5] * 12, strict=True):
        clock["now"] = 100 + frame.dts_90k / 90_000 + late_s
        engine.on_frames([replace(frame, arrival=clock["now"])])
        clock["now"] += 0.2
        stream._send_made(Made.OPUS, frame.pts_90k, True, b"sound")
        stream.report()
        found.append(dict(player.origins))
    moved = [abs(after[name] - before[name]) for before, after in pairwise(found) for name in RATES]
    assert max(moved) < 0.0025  # a slew for each of the two, and the rounding of RTP time
    assert abs(found[-1][Codec.H264.value] - found[-1][OPUS]) < 0.0025
