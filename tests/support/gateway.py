"""A real gateway in a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
PASSWORD = "Kamera-7-Probe"
DEADLINE_SCALE = float(os.environ.get("GB28181GW_TEST_TIME_SCALE", "1"))
"""Multiplies every deadline; a slow machine sets it, no test depends on it."""


def wait_until(look: Callable[[], T], what: str, limit_s: float = 20.0) -> T:
    """Poll until `look` gives something true. Fails the test with `what` when it never does."""
    deadline = time.monotonic() + limit_s * DEADLINE_SCALE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:.0f} s for {what}; last look: {found!r}")
        time.sleep(0.02)


def free_port(*kinds: socket.SocketKind) -> int:
    """A port that is free now for every kind given."""
    for _ in range(100):
        probes = [socket.socket(socket.AF_INET, kind) for kind in kinds or (socket.SOCK_STREAM,)]
        try:
            port = 0
            for probe in probes:
                probe.bind(("127.0.0.1", port))
                port = probe.getsockname()[1]
            return port
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no free port")


def media_range(pairs: int = 60) -> str:
    """A range of ports that no other test run is likely to use, below those that the kernel gives to listeners."""
    first = 12000 + 2 * secrets.randbelow((32000 - 12000 - 2 * pairs) // 2)
    return f"{first}-{first + 2 * pairs - 1}"


class GatewayProcess:
    """`gb28181gw serve` with its own data directory and free ports."""

    def __init__(self, directory: Path, **settings: dict[str, Any]) -> None:
        self.directory = directory
        self.sip_port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
        self.api_port = free_port()
        self.media_port = free_port()
        self.rtsp_port = free_port()
        self.settings: dict[str, dict[str, Any]] = {
            "sip": {"listen": f"127.0.0.1:{self.sip_port}", "password": PASSWORD, "enrolment": "open"},
            "media": {"listen": "127.0.0.1", "http": f"127.0.0.1:{self.media_port}", "ports": media_range()},
            "http": {"listen": f"127.0.0.1:{self.api_port}"},
            "rtsp": {"listen": f"127.0.0.1:{self.rtsp_port}"},
        }
        for section, keys in settings.items():
            self.settings.setdefault(section, {}).update(keys)
        self.config = directory / "gb28181gw.toml"
        self.events: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._write_config()
        self.key = subprocess.run(
            [*command(), "key", "create", "--name", "test", "--role", "admin", "--config", str(self.config)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        self.api = httpx.Client(
            base_url=f"http://127.0.0.1:{self.api_port}",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=40,
        )

    @property
    def sip_server(self) -> str:
        return f"127.0.0.1:{self.sip_port}"

    def _write_config(self) -> None:
        lines = [f"data_dir = {json.dumps(str(self.directory / 'data'))}"]
        for section, keys in self.settings.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> GatewayProcess:
        self.process = subprocess.Popen(
            [*command(), "serve", "--config", str(self.config)], stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        wait_until(self._ready, "the gateway to be ready", 30)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended: {self.events[-3:]} {self.other_lines[-20:]}")
        try:
            return self.api.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.other_lines.append(line)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close_log()

    def _close_log(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        if self._reader is not None:
            self._reader.join(5)
        self.process.stderr.close()

    def stop(self, limit_s: float = 8.0) -> int:
        """SIGTERM for good; the exit status."""
        status = self.halt(limit_s)
        self.api.close()
        return status

    def halt(self, limit_s: float = 8.0) -> int:
        """SIGTERM, to be started again; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(limit_s * DEADLINE_SCALE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"SIGTERM did not end the gateway within {limit_s} s") from None
        self._close_log()
        return self.process.returncode

    def seen(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Log lines with this event and these fields."""
        return [
            line
            for line in list(self.events)
            if line.get("event") == event and all(line.get(key) == value for key, value in fields.items())
        ]

    def wait_event(self, event: str, limit_s: float = 20.0, **fields: Any) -> dict[str, Any]:
        return wait_until(lambda: self.seen(event, **fields), f"event {event} {fields}", limit_s)[0]

    def get(self, path: str) -> Any:
        answer = self.api.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return self.api.post(f"/api/v1{path}", json=body or {})

    def live(self, device_id: str, channel_id: str, **body: Any) -> dict[str, Any]:
        """Start a live stream; the API's answer."""
        answer = self.post(f"/devices/{device_id}/channels/{channel_id}/live", body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_online(self, device_id: str, channels: int = 0, limit_s: float = 20.0) -> dict[str, Any]:
        """Until the device is online with so many channels; the device."""

        def look() -> dict[str, Any] | None:
            answer = self.api.get(f"/api/v1/devices/{device_id}")
            if answer.status_code != 200:
                return None
            device: dict[str, Any] = answer.json()
            return device if device["online"] and device["channel_count"] >= channels else None

        found = wait_until(look, f"{device_id} online with {channels} channels", limit_s)
        assert found is not None
        return found


def command() -> list[str]:
    return [sys.executable, "-m", "gb28181gw"]


@contextmanager
def running_gateway(directory: Path, **settings: dict[str, Any]) -> Iterator[GatewayProcess]:
    """A started gateway that is stopped at the end, with exit status 0."""
    gateway = GatewayProcess(directory, **settings)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
    assert gateway.process is not None and gateway.process.returncode in (0, -signal.SIGKILL)


@contextmanager
def simulated_devices(gateway: GatewayProcess, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`gb28181gw simulate device` against the gateway; `options` as on the command line."""
    log = (gateway.directory / f"simulator-{secrets.token_hex(3)}.log").open("wb")
    process = subprocess.Popen(
        [
            *command(), "simulate", "device", "--server", gateway.sip_server,
            "--password", PASSWORD, "--json", *options,
        ],
        stdout=log,
        stderr=log,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
