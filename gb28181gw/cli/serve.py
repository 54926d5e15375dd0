"""`gb28181gw serve`: the gateway."""

from __future__ import annotations

import sys
from datetime import UTC, tzinfo

import typer

from gb28181gw.cli.common import ConfigOption, sentences
from gb28181gw.errors import GatewayError


def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM or SIGINT. Logs go to stderr, one JSON object a line."""
    from gb28181gw.settings import load_settings

    try:
        settings = load_settings(config)
    except GatewayError as error:
        raise typer.Exit(start_failed(error)) from None
    from gb28181gw.app import run

    try:
        status = run(settings)
    except GatewayError as error:
        status = start_failed(error, settings.log.format, settings.sip.zone)
    raise typer.Exit(status)


def start_failed(error: GatewayError, log_format: str = "json", zone: tzinfo = UTC) -> int:
    """Tell why the gateway cannot start; returns the exit status.

    The log gets its line (`gateway.start_failed`); a person at a terminal also gets it in plain words.
    """
    from gb28181gw.observability.events import EventBus
    from gb28181gw.observability.logs import configure_logging

    configure_logging(format="console" if log_format == "console" else "json", level="info")
    bus = EventBus(zone=zone)
    *problems, hint = sentences(error)
    for problem in problems:
        bus.emit(
            "gateway.start_failed",
            code=error.code,
            reason=error.reason,
            detail=problem,
            hint=hint,
            **error.evidence,
        )
    if sys.stderr.isatty():
        print(*problems, hint, sep="\n", file=sys.stderr)
    return 1
