"""What may be pushed to, and what is shown of it."""

from __future__ import annotations

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.outputs.push_url import checked_url, shown_url


@pytest.mark.parametrize(
    "url",
    [
        "http://h/geheim",
        "file:///geheim",
        "rtmp:///live/geheim",
        "rtmp://h",
        "rtmp://h:99999/live/geheim",
        "rtmp://h/live/geheim swfUrl=x",
        "rtsp://h/geheim\nx",
        "rtmp://[h/geheim",
        "geheim",
        "rtmp://h/" + "g" * 2048,
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(GatewayError) as refused:
        checked_url(url)
    assert refused.value.code == "gb.route.invalid"
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtmp://h/live/geheim", "rtmp://h/live/***"),
        ("rtmps://u:geheim@h:1936/geheim?k=geheim", "rtmps://h:1936/***"),
        ("rtsp://u@[::1]:554/a/b/geheim", "rtsp://[::1]:554/a/b/***"),
        ("rtsps://h/a/geheim/", "rtsps://h/a/***"),
    ],
)
def test_s14_user_info_key_and_query_are_not_shown(url: str, shown: str) -> None:
    assert checked_url(url) == url
    assert shown_url(url) == shown
