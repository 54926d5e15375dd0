from __future__ import annotations

import base64

from gb28181gw.media.tracks import Codec
from gb28181gw.outputs.rtsp_sdp import describe, media_of
from gb28181gw.outputs.rtsp_stream import audio_codecs
from tests.support.media import audio_clip, video_clip

H264 = video_clip(Codec.H264)[0].track
H265 = video_clip(Codec.H265)[0].track
AAC = audio_clip(Codec.AAC)[0].track
PCMA = audio_clip(Codec.PCMA)[0].track


def lines(*tracks: object, audio: str = "auto", query: str = "token=t") -> list[str]:
    media = media_of(tracks, audio=audio_codecs(audio))  # type: ignore[arg-type]
    text = describe(
        media, name="live/a_b", address="192.0.2.1", control="rtsp://h:8554/live/a_b", query=query
    )
    return text.decode().split("\r\n")


def test_h264_and_g711() -> None:
    sps, pps = (base64.b64encode(unit).decode() for unit in H264.parameter_sets)
    assert lines(H264, PCMA) == [
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=live/a_b",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 packetization-mode=1;profile-level-id=42C00D;sprop-parameter-sets={sps},{pps}",
        "a=framerate:25",
        "a=control:rtsp://h:8554/live/a_b/track0?token=t",
        "m=audio 0 RTP/AVP 8",
        "a=rtpmap:8 PCMA/8000",
        "a=control:rtsp://h:8554/live/a_b/track1?token=t",
        "",
    ]


def test_h265_and_aac() -> None:
    found = lines(H265, AAC, query="")
    assert "a=rtpmap:96 H265/90000" in found
    (fmtp,) = (line for line in found if line.startswith("a=fmtp:96 "))
    assert [part.partition("=")[0] for part in fmtp[10:].split(";")] == [
        "sprop-vps",
        "sprop-sps",
        "sprop-pps",
    ]
    assert "a=rtpmap:97 MPEG4-GENERIC/8000/1" in found
    assert any(line.endswith(f"config={AAC.parameter_sets[0].hex()}") for line in found)
    assert "a=control:rtsp://h:8554/live/a_b/track1" in found


def test_sound_that_was_not_asked_for_is_left_out() -> None:
    assert not any(line.startswith("m=audio") for line in lines(H264, PCMA, audio="none"))
    assert not any(line.startswith("m=audio") for line in lines(H264, PCMA, audio="aac"))
    assert any(line.startswith("m=audio 0 RTP/AVP 97") for line in lines(H264, AAC, audio="aac"))
