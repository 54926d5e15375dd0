"""What a browser makes of the streams: chromium plays fragmented MP4 through MSE, and WebRTC by WHEP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import browser
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(browser.PROGRAM is None, reason="chromium is not installed"),
]
DEVICE = "34020000001180000001"

_PLAYER = """
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
_LOOK = """
(({error, codecs, bytes, video}) => ({
  error, codecs, bytes,
  frames: video.getVideoPlaybackQuality().totalVideoFrames,
  sound: video.webkitAudioDecodedByteCount,
  width: video.videoWidth,
}))(window.seen)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    media = {"origins": ["*"], "listen": "127.0.0.1"}
    directory: Path = tmp_path_factory.mktemp("browser")
    with running_gateway(directory, media=media) as gateway:
        camera = ("--id", DEVICE, "--channels", "1", "--video", "h264", "--audio", "pcma")
        with simulated_devices(gateway, *camera):
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            yield gateway


@pytest.mark.parametrize("form", ["ws_fmp4", "http_fmp4"])
def test_chromium_plays_fmp4_with_sound(gateway: GatewayProcess, form: str) -> None:
    channel = str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])
    url = gateway.live(DEVICE, channel)["urls"][form]
    with browser.page() as page:
        page.evaluate(f"{_PLAYER}({url!r})")

        def played() -> dict[str, object] | None:
            seen: dict[str, object] = page.evaluate(_LOOK)
            assert seen["error"] == "", seen
            return seen if int(str(seen["frames"])) >= 75 and int(str(seen["sound"])) > 0 else None

        seen = wait_until(played, "75 pictures and sound in the browser", 60)
        assert str(seen["codecs"]).endswith(",mp4a.40.2")
        assert int(str(seen["width"])) > 0


_WHEP = """
(async url => {
  const video = document.body.appendChild(document.createElement("video"));
  const seen = window.seen = {video, state: "", kinds: []};
  video.muted = true;
  video.autoplay = true;
  const peer = window.peer = new RTCPeerConnection();
  peer.addTransceiver("video", {direction: "recvonly"});
  peer.addTransceiver("audio", {direction: "recvonly"});
  video.srcObject = new MediaStream();
  peer.ontrack = event => {
    seen.kinds.push(event.track.kind);
    video.srcObject.addTrack(event.track);
    video.play();
  };
  peer.onconnectionstatechange = () => seen.state = peer.connectionState;
  await peer.setLocalDescription(await peer.createOffer());
  const answer = await fetch(url, {
    method: "POST", headers: {"Content-Type": "application/sdp"}, body: peer.localDescription.sdp,
  });
  seen.status = answer.status;
  seen.location = answer.headers.get("Location");
  await peer.setRemoteDescription({type: "answer", sdp: await answer.text()});
})
"""
_STATISTICS = """
(async () => {
  const found = {state: seen.state, status: seen.status, location: seen.location, kinds: seen.kinds};
  for (const entry of (await peer.getStats()).values()) {
    if (entry.type === "inbound-rtp" && entry.kind === "video") found.pictures = entry.framesDecoded || 0;
    if (entry.type === "inbound-rtp" && entry.kind === "audio") found.samples = entry.totalSamplesReceived || 0;
  }
  return found;
})()
"""


def test_chromium_plays_webrtc_with_sound(gateway: GatewayProcess) -> None:
    channel = str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])
    url = gateway.live(DEVICE, channel)["urls"]["webrtc"]
    with browser.page() as page:
        page.evaluate(f"{_WHEP}({url!r})")

        def played() -> dict[str, object] | None:
            seen: dict[str, object] = page.evaluate(_STATISTICS)
            wanted = int(str(seen.get("pictures", 0))) >= 75 and int(str(seen.get("samples", 0))) > 8000
            return seen if wanted else None

        seen = wait_until(played, "75 pictures and a second of sound in the browser", 60)
        assert (seen["status"], seen["state"]) == (201, "connected")
        assert str(seen["location"]).startswith("/live/")
        assert set(seen["kinds"]) == {"video", "audio"}  # type: ignore[call-overload]
