"""Foreign players of a play URL, each for so many seconds of stream: what they decoded, and what they complained of.

Every function takes the URL and the seconds, blocks, and raises AssertionError with the player's own lines.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from websockets.sync.client import ClientConnection, connect

from tests.support import browser
from tests.support.gateway import DEADLINE_SCALE, wait_until
from tests.support.whep import whep

FPS = 25
SHARE = 0.9
"""So much of what a stream has in the time must have been decoded; the rest is for joining it."""

_PYAV = """
import logging, sys, av
logging.basicConfig(level=logging.ERROR)
av.logging.set_level(av.logging.ERROR)
seen = {"video": 0, "audio": 0}
with av.open(sys.argv[1], timeout=30) as source:
    for packet in source.demux(source.streams.video[0], source.streams.audio[0]):
        seen[packet.stream.type] += len(packet.decode())
        if seen["video"] >= int(sys.argv[2]):
            break
print(seen["video"], seen["audio"])
"""


class WebSocketFile:
    """What a WebSocket carries, to be read as a file."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            message = self._socket.recv(timeout=20)
            assert isinstance(message, bytes)
            self._rest = message
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _run(command: list[str], seconds: float) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=(seconds + 60) * DEADLINE_SCALE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr[-2000:])
    return done.stdout


def _frames(progress: str) -> int:
    """Of FFmpeg's -progress."""
    return int([line for line in progress.splitlines() if line.startswith("frame=")][-1].partition("=")[2])


def ffmpeg(url: str, seconds: float, *options: str) -> None:
    """Debian's ffmpeg: picture and sound decoded, not one line of an error."""
    decode = ["-t", str(seconds), "-map", "0:v:0", "-map", "0:a:0", "-f", "null", "-"]
    progress = _run(["ffmpeg", "-v", "error", "-progress", "pipe:1", *options, "-i", url, *decode], seconds)
    assert _frames(progress) >= seconds * FPS * SHARE


def ffmpeg_rtsp_tcp(url: str, seconds: float) -> None:
    ffmpeg(url, seconds, "-rtsp_transport", "tcp")


def ffmpeg_rtsp_udp(url: str, seconds: float) -> None:
    ffmpeg(url, seconds, "-rtsp_transport", "udp")


def pyav(url: str, seconds: float) -> None:
    """The newer FFmpeg inside PyAV, which OpenCV has too: H.265 in FLV."""
    video, audio = map(
        int, _run([sys.executable, "-c", _PYAV, url, str(int(seconds * FPS))], seconds).split()
    )
    assert video >= seconds * FPS
    assert audio >= seconds * 7 * SHARE  # AAC at 8 kHz has the fewest


def _piped(url: str, seconds: float, command: list[str]) -> str:
    """The output of a program that reads what a WebSocket carries."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
        connect(url, max_size=None) as socket,
    ):
        process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=out, stderr=errors)
        assert process.stdin is not None
        until = time.monotonic() + (seconds + 60) * DEADLINE_SCALE
        try:
            while time.monotonic() < until:
                message = socket.recv(timeout=20)
                assert isinstance(message, bytes)
                process.stdin.write(message)
        except BrokenPipeError:
            pass  # it has what it wanted
        finally:
            process.stdin.close()
            process.wait(20)
        out.seek(0)
        errors.seek(0)
        said = errors.read().decode()
        assert (process.returncode, said) == (0, ""), (process.returncode, said[-2000:])
        return out.read().decode()


def ffmpeg_websocket(url: str, seconds: float) -> None:
    decode = ["-t", str(seconds), "-map", "0:v:0", "-map", "0:a:0", "-f", "null", "-"]
    progress = _piped(url, seconds, ["ffmpeg", "-v", "error", "-progress", "pipe:1", "-i", "pipe:0", *decode])
    assert _frames(progress) >= seconds * FPS * SHARE


def pyav_websocket(url: str, seconds: float) -> None:
    command = [sys.executable, "-c", _PYAV, "pipe:0", str(int(seconds * FPS))]
    assert int(_piped(url, seconds, command).split()[0]) >= seconds * FPS


def _gstreamer(url: str, seconds: float, video: str, sound: str, protocols: str) -> None:
    depay, buffers = {
        "pcma": (["rtppcmadepay", "!", "alawdec"], seconds * 50),
        "aac": (["rtpmp4gdepay", "!", "aacparse", "!", "avdec_aac"], seconds * 7),
    }[sound]
    source = ["rtspsrc", f"location={url}", f"protocols={protocols}", "latency=200", "name=s"]
    picture = ["s.", "!", f"rtp{video}depay", "!", f"{video}parse", "!", f"avdec_{video}", "!"]
    end = ["!", "fakesink", f"num-buffers={int(buffers)}"]
    said = _run(
        ["gst-launch-1.0", "-q", *source, *picture, "fakesink", f"num-buffers={int(seconds * FPS)}",
         "s.", "!", "queue", "!", *depay, *end],
        seconds,
    )  # fmt: skip
    assert "ERROR" not in said and "WARN" not in said, said


def gstreamer(video: str, sound: str, protocols: str) -> Callable[[str, float], None]:
    """GStreamer's RTSP client, with the decoders for these codecs."""
    return lambda url, seconds: _gstreamer(url, seconds, video, sound, protocols)


def chromium_mse(url: str, seconds: float) -> None:
    """Fragmented MP4 through Media Source Extensions; pictures are counted in the page."""
    _chromium(browser.MSE_PLAYER, browser.MSE_LOOK, url, seconds)


def chromium_whep(url: str, seconds: float) -> None:
    _chromium(browser.WHEP_PLAYER, browser.WHEP_LOOK, url, seconds)


def _chromium(player: str, look: str, url: str, seconds: float) -> None:
    with browser.page() as page:
        page.evaluate(f"{player}({url!r})")

        def played() -> bool:
            seen: dict[str, object] = page.evaluate(look)
            assert seen["error"] == "", seen
            return int(str(seen["frames"])) >= seconds * FPS * SHARE and int(str(seen["sound"])) > 8000

        wait_until(played, f"{seconds} s of pictures in the browser", seconds + 60)


def aiortc_whep(url: str, seconds: float) -> None:
    """aiortc as a WHEP client, which decodes; `only_loopback` must be in force."""

    async def play() -> None:
        async with whep(url) as client, asyncio.timeout((seconds + 60) * DEADLINE_SCALE):
            response = await client.play()
            assert response.status_code == 201, response.text
            while client.frames["video"] < seconds * FPS * SHARE:
                await asyncio.sleep(0.05)
            assert client.frames["audio"] >= seconds * 50 * SHARE * 0.9
            assert await client.delete() == 200

    asyncio.run(play())
