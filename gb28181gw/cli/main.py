"""The command line: one module a sub-command; what a sub-command needs is imported when it runs."""

from __future__ import annotations

import contextlib
import io
import sys

import typer

from gb28181gw.cli import (
    check,
    device,
    download,
    key,
    push,
    recording,
    secrets,
    serve,
    simulate,
    trace,
    upper,
    version,
)


def make_app() -> typer.Typer:
    """The tree of commands of docs/reference/cli.md."""
    app = typer.Typer(
        name="gb28181gw",
        help="GB/T 28181 gateway: every vendor's camera and NVR behind one interface.",
        no_args_is_help=True,
        add_completion=False,
        # Help in plain text, and no tables around our own mistakes: rich is not imported for either.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.command("serve")(serve.serve)
    app.command("check")(check.check)
    app.command("secrets")(secrets.secrets)
    app.command("trace")(trace.trace)
    app.command("download")(download.download)
    app.command("version")(version.version)
    app.add_typer(device.app, name="device")
    app.add_typer(key.app, name="key")
    app.add_typer(push.app, name="push")
    app.add_typer(recording.app, name="recording")
    app.add_typer(simulate.app, name="simulate")
    app.add_typer(upper.app, name="upper")
    return app


def main() -> None:
    """Entry point. Exit status 0: done, 1: told why not, 2: called wrongly."""
    for stream in (sys.stdout, sys.stderr):
        # A name in Chinese must not end a command in a terminal without UTF-8.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")
    make_app()()
