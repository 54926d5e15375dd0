"""Chromium's microphone speaks into a talk by WebRTC, and the simulated loudspeaker hears its tone."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from tests.support import browser
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until
from tests.support.talking import heard_level, loud_part, tone

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(browser.PROGRAM is None, reason="chromium is not installed"),
]
DEVICE = "34020000001180000001"
HERTZ = 440.0
_RATE = 48_000

_SPEAKER = """
(async (url, codec) => {
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false},
  });
  const peer = window.peer = new RTCPeerConnection();
  const sender = peer.addTransceiver(microphone.getAudioTracks()[0], {direction: "sendonly"});
  if (codec) {
    const offered = RTCRtpSender.getCapabilities("audio").codecs;
    sender.setCodecPreferences(offered.filter(one => one.mimeType === codec));
  }
  await peer.setLocalDescription();
  const answer = await fetch(url, {
    method: "POST", headers: {"content-type": "application/sdp"}, body: peer.localDescription.sdp,
  });
  const text = await answer.text();
  if (answer.status !== 201) return {error: text};
  await peer.setRemoteDescription({type: "answer", sdp: text});
  return {error: "", session: new URL(answer.headers.get("location"), url).href};
})
"""
_LOOK = """
(async () => {
  const reports = [...(await window.peer.getStats()).values()];
  const sent = reports.find(one => one.type === "outbound-rtp") || {};
  const told = reports.find(one => one.type === "remote-inbound-rtp") || {};
  const codec = reports.find(one => one.id === sent.codecId) || {};
  return {state: window.peer.connectionState, codec: codec.mimeType, lost: told.packetsLost ?? null};
})()
"""


def speak(page: browser.Page, gateway: GatewayProcess, codec: str, seconds: float) -> None:
    """Start a talk, speak by the browser's microphone, and end both."""
    channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
    begun = gateway.post(f"/devices/{DEVICE}/channels/{channel}/talk", {}).json()
    offered = "" if codec == "audio/PCMA" else codec
    made = page.evaluate(f"{_SPEAKER}({begun['whip_url']!r}, {offered!r})")
    assert made["error"] == "", made
    talk = f"/talks/{begun['id']}"
    wait_until(lambda: gateway.get(talk)["spoken_s"] > seconds, "sound in the talk", 30)
    seen = wait_until(
        lambda: (look := page.evaluate(_LOOK))["lost"] is not None and look, "a report of what arrived", 30
    )
    assert (seen["state"], seen["codec"]) == ("connected", codec)
    assert gateway.get(talk)["microphone"] == "webrtc"
    assert page.evaluate(f"fetch({made['session']!r}, {{method: 'DELETE'}}).then(one => one.status)") == 200
    assert gateway.get(talk)["microphone"] is None
    assert gateway.api.delete(f"/api/v1{talk}").status_code == 204


@pytest.mark.parametrize("codec", ["audio/opus", pytest.param("audio/PCMA", marks=pytest.mark.long)])
def test_r133_tk12_chromium_speaks_and_the_loudspeaker_hears_it(tmp_path: Path, codec: str) -> None:
    heard, said = tmp_path / "heard", tmp_path / "said.wav"
    heard.mkdir()
    with wave.open(str(said), "wb") as file:
        file.setparams((1, 2, _RATE, 0, "NONE", ""))
        file.writeframes(tone(1.0, hertz=HERTZ, rate=_RATE))
    microphone = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={said}",
    )
    with running_gateway(tmp_path) as gateway:
        options = ("--id", DEVICE, "--channels", "1", "--hear-dir", str(heard))
        with simulated_devices(gateway, *options), browser.page(*microphone) as page:
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            # A page of localhost may have a microphone; what the listener says there does not matter.
            page.open(f"http://127.0.0.1:{gateway.media_port}/")
            speak(page, gateway, codec, seconds=1.5)
            (wav,) = wait_until(lambda: list(heard.glob("*.wav")), "what the device heard", 30)
        opened, closed = gateway.seen("talk.microphone_opened"), gateway.seen("talk.microphone_closed")
    assert [event["kind"] for event in opened] == ["webrtc"]
    assert [event["reason"] for event in closed] == ["speaker_gone"]
    with wave.open(str(wav)) as source:
        sound = loud_part(source.readframes(source.getnframes()))
    # A fifth of a second somewhere without a seam of the repeated file.
    levels = [heard_level(sound[at : at + 3_200], HERTZ) for at in range(0, len(sound) - 3_200, 1_600)]
    assert max(levels) == pytest.approx(12_000, rel=0.15)
    assert sum(level > 9_000 for level in levels) > len(levels) / 2
