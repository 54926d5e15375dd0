"""Debian's chromium without a window, driven through its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.gateway import wait_until

PROGRAM = shutil.which("chromium")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)

MSE_PLAYER = """
(url => {
  const video = document.body.appendChild(document.createElement("video"));
  const seen = window.seen = {error: "", codecs: "", bytes: 0, video};
  video.muted = true;
  video.onerror = () => seen.error = video.error.message;
  const source = new MediaSource();
  video.src = URL.createObjectURL(source);
  let buffer = null;
  const queue = [];
  const next = () => {
    if (!buffer || buffer.updating || !queue.length) return;
    try { buffer.appendBuffer(queue.shift()); } catch (error) { seen.error = String(error); }
  };
  const take = piece => {
    seen.bytes += piece.length;
    queue.push(piece);
    if (!buffer) {
      const text = new TextDecoder("latin1").decode(piece);
      const place = text.indexOf("avcC") + 5;
      const profile = [...piece.subarray(place, place + 3)].map(b => b.toString(16).padStart(2, "0")).join("");
      seen.codecs = "avc1." + profile + (text.includes("mp4a") ? ",mp4a.40.2" : "");
      buffer = source.addSourceBuffer(`video/mp4; codecs="${seen.codecs}"`);
      buffer.onerror = () => seen.error = "the buffer refused";
      buffer.onupdateend = () => {
        if (video.paused && video.buffered.length) {
          video.currentTime = video.buffered.start(0);
          video.play();
        }
        next();
      };
    }
    next();
  };
  source.onsourceopen = async () => {
    if (url.startsWith("ws")) {
      const socket = new WebSocket(url);
      socket.binaryType = "arraybuffer";
      socket.onmessage = message => take(new Uint8Array(message.data));
    } else {
      const reader = (await fetch(url)).body.getReader();
      for (;;) {
        const {done, value} = await reader.read();
        if (done) break;
        take(value);
      }
    }
  };
})
"""
"""Plays a URL of fragmented MP4 through Media Source Extensions."""
MSE_LOOK = """
(({error, codecs, bytes, video}) => ({
  error, codecs, bytes,
  frames: video.getVideoPlaybackQuality().totalVideoFrames,
  sound: video.webkitAudioDecodedByteCount,
  width: video.videoWidth,
}))(window.seen)
"""
WHEP_PLAYER = """
(async url => {
  const seen = window.seen = {error: "", video: document.body.appendChild(document.createElement("video"))};
  seen.video.muted = true;
  const peer = seen.peer = new RTCPeerConnection();
  const stream = new MediaStream();
  seen.video.srcObject = stream;
  peer.ontrack = event => { stream.addTrack(event.track); seen.video.play(); };
  peer.addTransceiver("video", {direction: "recvonly"});
  peer.addTransceiver("audio", {direction: "recvonly"});
  await peer.setLocalDescription();
  const answer = await fetch(url, {
    method: "POST", headers: {"content-type": "application/sdp"}, body: peer.localDescription.sdp,
  });
  seen.session = answer.headers.get("location");
  const text = await answer.text();
  if (answer.status !== 201) { seen.error = text; return; }
  await peer.setRemoteDescription({type: "answer", sdp: text});
})
"""
"""Plays a WHEP URL."""
WHEP_LOOK = """
(async ({error, session, video, peer}) => {
  const reports = [...(await peer.getStats()).values()];
  const inbound = reports.filter(r => r.type === "inbound-rtp");
  const of = kind => inbound.find(r => r.kind === kind) || {};
  const codec = kind => (reports.find(r => r.id === of(kind).codecId) || {}).mimeType || "";
  return {
    error, session, state: peer.connectionState,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    decoded: of("video").framesDecoded || 0,
    sound: of("audio").totalSamplesReceived || 0,
    codecs: [codec("video"), codec("audio")],
    width: video.videoWidth,
  };
})(window.seen)
"""


class Page:
    """One page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)

    def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is awaited. Raises AssertionError where it throws."""
        number = next(self._ids)
        params = {"expression": script, "awaitPromise": True, "returnByValue": True}
        self._connection.send(json.dumps({"id": number, "method": "Runtime.evaluate", "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == number:
                result = answer["result"]
                assert "exceptionDetails" not in result, result["exceptionDetails"]
                return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go there; returns when the page is whole."""
        self.evaluate(f"location.href = {json.dumps(url)}")
        wait_until(
            lambda: self.evaluate(
                f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
            ),
            f"the page {url}",
            30,
        )


@contextmanager
def page(*options: str) -> Iterator[Page]:
    """An empty page in a browser of its own; `options` are more of its command line."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="gb28181gw-chromium-", ignore_cleanup_errors=True) as home:
        profile = Path(home)
        with (profile / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [PROGRAM, *_OPTIONS, *options, f"--user-data-dir={home}", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            told = profile / "DevToolsActivePort"
            port = int(
                wait_until(lambda: told.exists() and told.read_text().split(), "chromium's port", 60)[0]
            )

            def target() -> str:
                pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
                return next((str(p["webSocketDebuggerUrl"]) for p in pages if p["type"] == "page"), "")

            with connect(wait_until(target, "a page"), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            process.wait(20)
