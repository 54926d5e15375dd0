"""Every output, live and of a recording, in H.264 and H.265, with sound, for 30 s, by programs that we did not write.

The players of one stream watch it at the same time; each test asks one of them how it went. Short forms for every run
are in the files of the outputs (`test_rtsp.py`, `test_hls.py`, `test_webrtc.py`, …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from gb28181gw.media import native
from tests.support import browser, players
from tests.support.field import Plan, running_field
from tests.support.gateway import media_range
from tests.support.recorded import minutes_ago
from tests.support.whep import only_loopback

pytestmark = [pytest.mark.interop, pytest.mark.long]
SECONDS = 30.0
SMALL = {"channels": 1, "size": "320x240", "bitrate_kbps": 200}
SOUND = {"h264": "pcma", "h265": "aac"}
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
Player = Callable[[str, float], None]

_EVERYWHERE: dict[str, tuple[str, Player]] = {
    "ffmpeg-fmp4": ("http_fmp4", players.ffmpeg),
    "ffmpeg-hls": ("hls", players.ffmpeg),
    "ffmpeg-rtsp-tcp": ("rtsp", players.ffmpeg_rtsp_tcp),
    "ffmpeg-rtsp-udp": ("rtsp", players.ffmpeg_rtsp_udp),
    "ffmpeg-ws-fmp4": ("ws_fmp4", players.ffmpeg_websocket),
}
_OF: dict[str, dict[str, tuple[str, Player]]] = {
    "h264": _EVERYWHERE
    | {
        "ffmpeg-flv": ("http_flv", players.ffmpeg),
        "ffmpeg-ws-flv": ("ws_flv", players.ffmpeg_websocket),
        "ffmpeg-ts": ("http_ts&audio=aac", players.ffmpeg),
        "ffmpeg-ws-ts": ("ws_ts&audio=aac", players.ffmpeg_websocket),
        "gstreamer-tcp": ("rtsp", players.gstreamer("h264", "pcma", "tcp")),
        "gstreamer-udp": ("rtsp", players.gstreamer("h264", "pcma", "udp")),
        "chromium-mse": ("ws_fmp4", players.chromium_mse),
        "chromium-webrtc": ("webrtc", players.chromium_whep),
        "aiortc": ("webrtc", players.aiortc_whep),
    },
    "h265": _EVERYWHERE
    | {
        "pyav-flv": ("http_flv", players.pyav),  # Debian's ffmpeg 5.1 cannot read H.265 in FLV
        "pyav-ws-flv": ("ws_flv", players.pyav_websocket),
        "ffmpeg-ts": ("http_ts", players.ffmpeg),
        "ffmpeg-ws-ts": ("ws_ts", players.ffmpeg_websocket),
        "gstreamer-tcp": ("rtsp", players.gstreamer("h265", "aac", "tcp")),
        "gstreamer-udp": ("rtsp", players.gstreamer("h265", "aac", "udp")),
        "aiortc-made-h264": ("webrtc&video=h264", players.aiortc_whep),
    },
}
Group = tuple[str, str, str]
_GROUPS: list[Group] = [
    (plane, kind, video) for plane in ("native", "python") for kind in ("live", "playback") for video in _OF
]


class Stage:
    """One stream at a time, and its players."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._group: Group | None = None
        self._open = ExitStack()
        self._playing: dict[str, Future[None]] = {}

    def play(self, group: Group) -> dict[str, Future[None]]:
        """How each player of the stream goes; they begin together when it is the first who asks."""
        if group != self._group:
            self.close()
            self._group = group
            self._playing = self._begin(*group)
        return self._playing

    def close(self) -> None:
        """Wait for the players, and end the gateway."""
        self._open.close()

    def _begin(self, plane: str, kind: str, video: str) -> dict[str, Future[None]]:
        plan = Plan(rows=(), options={**SMALL, "video": video, "audio": SOUND[video]})
        media = {"plane": plane, "transcode": 1, "origins": ["*"], "ports": media_range(100)}
        directory = self._directory / "-".join((plane, kind, video))
        directory.mkdir()
        field = self._open.enter_context(running_field(directory, {video: plan}, media=media))
        device = field.device(video, channels=1)["id"]
        channel = field.channels(video)[0]["id"]
        start = minutes_ago(60)
        span = {"start": start.isoformat(), "end": (start + timedelta(minutes=20)).isoformat()}
        path = f"/devices/{device}/channels/{channel}/{kind}"
        answer = field.gateway.post(path, span if kind == "playback" else {})
        assert answer.status_code == 200, answer.text
        urls = answer.json()["urls"]
        pool = self._open.enter_context(ThreadPoolExecutor(len(_OF[video])))
        playing = {}
        for name, (place, player) in _OF[video].items():
            if name.startswith("chromium") and browser.PROGRAM is None:
                continue
            key, _, more = place.partition("&")
            playing[name] = pool.submit(player, urls[key] + (f"&{more}" if more else ""), SECONDS)
        return playing


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        only_loopback(patch)
        made = Stage(tmp_path_factory.mktemp("matrix"))
        yield made
        made.close()


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, id="-".join((*group, name)), marks=[BUILT] if group[0] == "native" else [])
        for group in _GROUPS
        for name in _OF[group[2]]
    ],
)
def test_30_s_of_picture_and_sound_without_an_error(stage: Stage, group: Group, name: str) -> None:
    playing = stage.play(group)
    if name not in playing:
        pytest.skip("chromium is not installed")
    assert playing[name].result(timeout=200) is None
