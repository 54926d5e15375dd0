from __future__ import annotations

import json

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.outputs import http


def test_problem_has_what_the_api_has() -> None:
    error = GatewayError("gb.sip.rejected", "The device answered 486.", sip_status=486)
    document = json.loads(http.problem(error))
    assert document["status"] == 502
    assert document["code"] == "gb.sip.rejected"
    assert document["stage"] == "sip"
    assert document["title"] == error.row.title
    assert document["hint"] == error.row.hint
    assert document["sip_status"] == 486
    assert "sip_status" not in json.loads(http.problem(GatewayError("gb.route.offline")))


def test_header_values_cannot_break_out_of_their_line() -> None:
    for evil in ("a\r\nSet-Cookie: x", "a\nb", "a\0b"):
        with pytest.raises(ValueError, match="line break"):
            http.head(200, [("X", evil)])


def test_answer_has_a_length_and_says_whether_the_connection_goes_on() -> None:
    text = http.answer(404, [], b"{}", content_type="application/json", keep_alive=True)
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\nDate: ")
    assert b"\r\nContent-Length: 2\r\n" in head
    assert b"\r\nConnection: keep-alive" in head
    assert body == b"{}"
    only_head = http.answer(404, [], b"{}", keep_alive=False, head_only=True)
    assert only_head.endswith(b"Connection: close\r\n\r\n")
    assert b"Content-Length" not in http.answer(204, keep_alive=True)


def test_rfc6455_example_handshake() -> None:
    assert http.websocket_accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert http.websocket_head("x").startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


@pytest.mark.parametrize("key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "not base64 at all!!", "ü" * 24])
def test_bad_websocket_keys(key: str) -> None:
    assert http.websocket_accept(key) is None


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://a.example", "gw", True),
        ("https://A.example/", "gw", True),
        ("http://gw:18080", "gw:18081", True),
        ("http://GW:1", "gw", True),
        ("http://[::1]:80", "[::1]:18081", True),
        ("http://b.example", "gw", False),
        ("null", "gw", False),
        ("null", "", False),
        ("http://[broken", "gw", False),
        ("", "gw", False),
    ],
)
def test_cors(origin: str, host: str, allowed: bool) -> None:
    policy = http.CorsPolicy(["https://a.example"])
    fields = dict(policy.headers(origin, host))
    assert fields["Vary"] == "Origin"
    assert fields.get("Access-Control-Allow-Origin") == (origin if allowed else None)
    assert ("Access-Control-Allow-Methods" in dict(policy.preflight(origin, host))) is allowed


def test_cors_star_allows_all() -> None:
    assert ("Access-Control-Allow-Origin", "http://x") in http.CorsPolicy(["*"]).headers("http://x", "gw")


def test_stream_head_for_both_versions() -> None:
    assert b"Transfer-Encoding: chunked" in http.stream_head("video/x-flv", [], chunked=True)
    old = http.stream_head("video/x-flv", [], chunked=False)
    assert old.startswith(b"HTTP/1.0 200 OK")
    assert b"Transfer-Encoding" not in old
