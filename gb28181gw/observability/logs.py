"""Logging for the whole process: one line a record on stderr, JSON or for a person (O-01, S-14).

Hot events go straight through structlog's bytes logger. Everything that uses the standard `logging` (uvicorn,
asyncio, libraries) is routed into the same format as the event `library.message`. Libraries of ours never
configure logging; the composition root calls `configure_logging` once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, Literal

import orjson
import structlog

from gb28181gw.observability.redact import CLEAN, clean_text, hide_named, hide_secrets

LogFormat = Literal["json", "console"]
_MAX_TRACEBACK_CHARS: Final = 8192
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_QUIET_LIBRARIES: Final = (
    "aioice",
    "aiortc",
    "asyncio",
    "httpcore",
    "httpx",
    "uvicorn",
    "uvicorn.error",
    "websockets",
)
"""Libraries whose talk below WARNING says nothing to an operator."""
_FIRST: Final = ("event", "level", "timestamp")


class LineWriter:
    """Writes whole lines to a binary stream; a stream that is gone costs the lines and never the service."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.lost = 0

    def msg(self, line: bytes | str) -> None:
        data = line.encode("utf-8", "backslashreplace") if isinstance(line, str) else line
        try:
            # One write a line: lines of several threads do not mix.
            self._stream.write(data + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.lost += 1

    debug = info = warning = warn = error = err = critical = exception = fatal = log = failure = msg


def _stamp(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "timestamp" not in record:
        record["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return record


def redact(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that no line gets around: hides secrets, escapes control characters, cuts what is long."""
    is_clean = record.pop("_clean", None) is CLEAN
    clean: dict[str, Any] = {}
    for name in _FIRST:
        if name in record:
            clean[name] = record[name] if is_clean else clean_text(str(record[name]))
    if is_clean:
        return {**clean, **record}
    for name, value in record.items():
        if name in clean or name.startswith("_"):
            continue
        if name == "exception":
            # A traceback has lines; JSON escapes them. In the console format they are meant.
            clean[name] = hide_secrets(str(value)[-_MAX_TRACEBACK_CHARS:])
        elif value is not None:
            clean[name] = hide_named(name, value)
    return clean


def _to_json(_: Any, __: str, record: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_NON_STR_KEYS)


def _to_json_text(_: Any, __: str, record: MutableMapping[str, Any]) -> str:
    return _to_json(None, "", record).decode("utf-8")


def _name_library(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A record of the standard library: its text becomes the detail of one event name."""
    entry = record.get("_record")
    record["detail"] = str(record.get("event", "")).rstrip()
    record["event"] = "library.message"
    if entry is not None:
        record["logger"] = entry.name
    return record


def configure_logging(
    *, format: LogFormat = "json", level: str = "info", stream: BinaryIO | None = None
) -> LineWriter:
    """Set up structlog and the standard library's logging, replacing what was set up before.

    `stream`: default stderr. Returns the writer, whose `lost` counts lines that could not be written.
    """
    writer = LineWriter(sys.stderr.buffer if stream is None else stream)
    number = _LEVELS[level]
    render: Any = _to_json
    render_library: Any = _to_json_text
    if format == "console":
        colours = stream is None and sys.stderr.isatty()
        render = render_library = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback
        )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _stamp,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, redact, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    handler = _LibraryHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _name_library,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                render_library,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _QUIET_LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    return writer


class _LibraryHandler(logging.Handler):
    """Formats a standard record by the chain above and writes it where our own lines go."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line: Any = self.format(record)
        except Exception:
            self._writer.lost += 1
            return
        self._writer.msg(line)
