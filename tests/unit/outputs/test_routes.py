from __future__ import annotations

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.outputs.routes import (
    PlayOptions,
    WhepTarget,
    WhipTarget,
    decode_path,
    is_play_path,
    kind_of,
    parse_options,
    parse_target,
    parse_webrtc,
)

DEVICE, CHANNEL = "34020000001320000001", "34020000001310000001"


def test_live_and_playback_paths() -> None:
    live = parse_target(f"/live/{DEVICE}_{CHANNEL}.flv")
    assert (live.device_id, live.channel_id, live.stream_id) == (DEVICE, CHANNEL, "")
    playback = parse_target("/playback/Ab_9-x.flv")
    assert (playback.device_id, playback.stream_id) == ("", "Ab_9-x")


@pytest.mark.parametrize(
    ("extension", "kinds", "audio"),
    [
        ("flv", ("http_flv", "ws_flv"), "copy"),
        ("mp4", ("http_fmp4", "ws_fmp4"), "aac"),
        ("ts", ("http_ts", "ws_ts"), "copy"),
    ],
)
def test_forms(extension: str, kinds: tuple[str, str], audio: str) -> None:
    path = f"/live/{DEVICE}_{CHANNEL}.{extension}"
    form = parse_target(path).form
    assert (form.kind(websocket=False), form.kind(websocket=True)) == kinds
    assert form.auto_audio == audio
    assert form.over_websocket.is_websocket
    assert form.over_websocket.over_http is form.over_http
    assert kind_of(path) == kinds[0]
    assert kind_of("/live/x") == ""


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/live/{DEVICE}_{CHANNEL}.mkv", "gb.output.unsupported_container"),
        (f"/live/{DEVICE}_{CHANNEL}/whip", "gb.route.not_found"),
        (f"/live/{DEVICE}.flv", "gb.route.not_found"),
        ("/live/a_b.flv\n", "gb.route.not_found"),
        ("/live/../etc/passwd_x.flv", "gb.route.not_found"),
        ("/live/" + "9" * 40 + "_1.flv", "gb.route.not_found"),
        ("/playback/.flv", "gb.route.not_found"),
        ("/", "gb.route.not_found"),
    ],
)
def test_s12_other_paths_are_named_refusals(path: str, code: str) -> None:
    with pytest.raises(GatewayError) as error:
        parse_target(path)
    assert error.value.code == code


def test_paths_are_percent_decoded_once() -> None:
    assert decode_path(b"/live/%31_2.flv") == "/live/1_2.flv"
    assert decode_path(b"/live/%2531_2.flv") == "/live/%31_2.flv"
    assert "\ufffd" in decode_path(b"/live/%ff")
    assert is_play_path("/live/x")
    assert not is_play_path("/livex")


def test_options() -> None:
    assert parse_options(b"") == PlayOptions()
    assert parse_options(b"token=a.b%2Bc&audio=aac&hevc=legacy&_t=17") == PlayOptions(
        token="a.b+c", audio="aac", hevc="legacy"
    )


@pytest.mark.parametrize("query", [b"audio=mp3", b"hevc=av1", b"x=" + b"y" * 3000])
def test_bad_options_are_a_sentence(query: bytes) -> None:
    with pytest.raises(GatewayError) as error:
        parse_options(query)
    assert error.value.code == "gb.route.invalid"


def test_query_with_too_many_fields_is_refused() -> None:
    with pytest.raises(GatewayError):
        parse_options(b"&".join(b"a%d=1" % n for n in range(100)))


def test_whep_paths_name_a_stream_or_a_session_of_it() -> None:
    path = f"/live/{DEVICE}_{CHANNEL}/whep"
    live = parse_webrtc(path)
    assert isinstance(live, WhepTarget) and (live.device_id, live.channel_id, live.session) == (
        DEVICE,
        CHANNEL,
        "",
    )
    session = parse_webrtc("/playback/p-7/whep/abcdefgh-_")
    assert isinstance(session, WhepTarget)
    assert (session.stream_id, session.path, session.session) == ("p-7", "/playback/p-7/whep", "abcdefgh-_")
    assert parse_webrtc(f"{path}/") is parse_webrtc(f"{path}/short") is parse_webrtc(f"{path}.flv") is None
    assert kind_of(path) == "webrtc"


def test_whip_paths_name_a_talk_or_a_session_of_it() -> None:
    talk = "0123456789abcdef" * 2
    path = f"/talks/{talk}/whip"
    assert parse_webrtc(path) == WhipTarget(talk_id=talk, path=path)
    assert parse_webrtc(f"{path}/abcdefgh-_") == WhipTarget(talk_id=talk, path=path, session="abcdefgh-_")
    for other in (
        f"{path}/",
        f"{path}/short",
        "/talks/1/whip",
        f"/talks/{talk.upper()}/whip",
        f"/talks/{talk}/whep",
    ):
        assert parse_webrtc(other) is None
    assert (kind_of(path), kind_of(f"/talks/{talk}")) == ("microphone", "")
