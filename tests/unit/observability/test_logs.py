"""The log: redaction, foreign loggers, lost streams."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from gb28181gw.observability.events import EventBus
from gb28181gw.observability.logs import LineWriter, configure_logging
from gb28181gw.observability.redact import clean_text, clean_value, hide_named, hide_secrets

CANARY = "c4n4ryS3cr3tV4lu3"


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Logging is process-wide: put it back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "text",
    [
        f'Digest username="u", response="{"0123456789abcdef" * 2}"',
        f"response={'a1' * 32}",
        f"Authorization: Bearer {CANARY}",
        f"authorization: basic {CANARY}=",
        f"http://h/live/a_b.flv?token={CANARY}&audio=aac",
        f"password={CANARY}",
        f'{{"password": "{CANARY}"}}',
        f"password: '{CANARY}'",
        f"<Password>{CANARY}</Password>",
        f"<ns:password>{CANARY}</ns:password>",
        f"key gbk_{CANARY}",
        f"rtsp://admin:{CANARY}@192.0.2.1/stream",
        f"api_key={CANARY}",
    ],
)
def test_s14_secrets_are_hidden_in_text(text: str) -> None:
    hidden = hide_secrets(text)
    assert "***" in hidden
    assert CANARY not in hidden
    assert "0123456789abcdef" not in hidden
    assert "a1a1a1" not in hidden
    assert hide_secrets(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "34020000001180000001",
        "response expected",
        "SIP/2.0 401 Unauthorized",
        "http://h:80/live/a_b.flv",
        "东门 1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    "name", ["password", "Authorization", "token", "proxy-authorization", "response", "HA1"]
)
def test_s14_fields_named_as_secrets_are_hidden_whole(name: str) -> None:
    assert hide_named(name, CANARY) == "***"
    assert CANARY not in str(clean_value({"outer": {name: CANARY}}))


def test_values_are_bounded_in_size_and_depth() -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    assert len(str(clean_value(deep))) < 300
    assert len(clean_value(list(range(1000)))) == 32  # type: ignore[arg-type]
    assert len(clean_value({str(n): n for n in range(1000)})) == 32  # type: ignore[arg-type]
    assert clean_value({3, 1, 2}) == [1, 2, 3]
    assert len(str(clean_value("x" * 10**6))) == 256


def test_json_lines_of_libraries_have_one_event_name() -> None:
    stream = io.BytesIO()
    configure_logging(stream=stream)
    logging.getLogger("uvicorn.error").error("failed %s\nsecond line", f"token={CANARY}")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("anything").exception("it broke")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old way", UserWarning, stacklevel=1)
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["library.message"] * 3
    assert [line["logger"] for line in lines] == ["uvicorn.error", "anything", "py.warnings"]
    assert lines[0]["detail"] == "failed token=***\\x0asecond line"
    assert "ValueError: why" in lines[1]["exception"]
    assert "old way" in lines[2]["detail"]


def test_libraries_below_warning_are_quiet() -> None:
    stream = io.BytesIO()
    configure_logging(stream=stream, level="debug")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("asyncio").debug("Using selector")
    assert stream.getvalue() == b""


def test_our_own_lines_pass_the_same_redaction() -> None:
    stream = io.BytesIO()
    configure_logging(stream=stream)
    structlog.get_logger().warning(
        "api.traceback", password=CANARY, url=f"http://h/?token={CANARY}", note="a\nb"
    )
    EventBus().emit("viewer.refused", path=f"/live/a_b.flv?token={CANARY}")
    assert CANARY.encode() not in stream.getvalue()
    assert stream.getvalue().count(b"\n") == 2


def test_context_is_on_every_line() -> None:
    stream = io.BytesIO()
    configure_logging(stream=stream)
    with structlog.contextvars.bound_contextvars(trace_id="t1"):
        EventBus().emit("device.online", device_id="1")
    assert orjson.loads(stream.getvalue())["trace_id"] == "t1"


def test_the_console_format_is_text_without_control_characters() -> None:
    stream = io.BytesIO()
    configure_logging(stream=stream, format="console")
    EventBus().emit("device.online", device_id="1", peer="a\r\n\x1b[31mb")
    text = stream.getvalue().decode()
    assert "device.online" in text
    assert text.count("\n") == 1
    assert "\x1b" not in text


class Gone(io.BytesIO):
    def write(self, _: object) -> int:
        raise BrokenPipeError


def test_a_stream_that_is_gone_costs_lines_and_nothing_else() -> None:
    writer = configure_logging(stream=Gone())
    bus = EventBus()
    bus.emit("device.online", device_id="1")
    logging.getLogger("x").error("y")
    logging.getLogger("x").error("%d", "no number")
    assert writer.lost == 3
    assert bus.counts["device.online"] == 1


def test_a_line_is_one_write() -> None:
    stream = io.BytesIO()
    LineWriter(stream).msg("ü\udc80")
    assert stream.getvalue() == b"\xc3\xbc\\udc80\n"
