"""Debian's chromium without a window, driven through its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.gateway import wait_until

PROGRAM = shutil.which("chromium")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)


class Page:
    """One page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)

    def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is awaited. Raises AssertionError where it throws."""
        number = next(self._ids)
        params = {"expression": script, "awaitPromise": True, "returnByValue": True}
        self._connection.send(json.dumps({"id": number, "method": "Runtime.evaluate", "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == number:
                result = answer["result"]
                assert "exceptionDetails" not in result, result["exceptionDetails"]
                return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go there; returns when the page is whole."""
        self.evaluate(f"location.href = {json.dumps(url)}")
        wait_until(
            lambda: self.evaluate(
                f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
            ),
            f"the page {url}",
            30,
        )


@contextmanager
def page(*options: str) -> Iterator[Page]:
    """An empty page in a browser of its own; `options` are more of its command line."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="gb28181gw-chromium-", ignore_cleanup_errors=True) as home:
        profile = Path(home)
        with (profile / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [PROGRAM, *_OPTIONS, *options, f"--user-data-dir={home}", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            told = profile / "DevToolsActivePort"
            port = int(
                wait_until(lambda: told.exists() and told.read_text().split(), "chromium's port", 60)[0]
            )

            def target() -> str:
                pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
                return next((str(p["webSocketDebuggerUrl"]) for p in pages if p["type"] == "page"), "")

            with connect(wait_until(target, "a page"), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            process.wait(20)
