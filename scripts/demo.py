"""The demo behind `scripts/demo`: a gateway, a simulated NVR, one picture through both.

Everything it makes is in `demo/` (git-ignored): configuration, data, the JPEG, and the logs of both programs.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "demo"
NVR = "34020000001180000001"
CHANNELS = 2
console = Console()


class DemoError(Exception):
    """A sentence for the person who runs the demo."""


def free_port(preferred: int, *kinds: int) -> int:
    """`preferred` when it is free for every socket kind, else one that is."""
    for candidate in (preferred, *(0 for _ in range(20))):
        probes: list[socket.socket] = []
        port = candidate
        try:
            for kind in kinds:
                probe = socket.socket(socket.AF_INET, kind)
                probes.append(probe)
                probe.bind(("0.0.0.0", port))  # noqa: S104 - the listener that follows binds the same address
                port = probe.getsockname()[1]
            return port
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise DemoError("No free port was found for the demo.")


def own_address() -> str:
    """The address of this host that a camera in the network would use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


class Gateway:
    """The gateway's process and its API."""

    def __init__(self) -> None:
        self.sip_port = free_port(5060, socket.SOCK_DGRAM, socket.SOCK_STREAM)
        self.api_port = free_port(18080, socket.SOCK_STREAM)
        self.media_port = free_port(18081, socket.SOCK_STREAM)
        self.data_dir = WORK / "data"
        self.password = ""
        self.key = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        WORK.mkdir(exist_ok=True)
        config = WORK / "gb28181gw.toml"
        config.write_text(
            f'data_dir = "{self.data_dir}"\n'
            f'[sip]\nlisten = "0.0.0.0:{self.sip_port}"\n'
            f'[media]\nhttp = "0.0.0.0:{self.media_port}"\n'
            f'[http]\nlisten = "127.0.0.1:{self.api_port}"\n'
        )
        self.key = command_output(
            "key", "create", "--name", f"demo-{secrets.token_hex(3)}", "--role", "admin", "--days", "1",
            "--config", str(config),
        )  # fmt: skip
        self._process = launch("gateway.log", "serve", "--config", str(config))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DemoError(f"The gateway did not start:\n{tail('gateway.log')}")
            try:
                self.call("GET", "/readyz")
            except (OSError, DemoError):
                time.sleep(0.1)
            else:
                break
        else:
            raise DemoError(f"The gateway was not ready within 30 s:\n{tail('gateway.log')}")
        shown = json.loads(command_output("secrets", "--json", "--config", str(config)))
        self.password = shown["sip_password"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            raise DemoError(f"{problem.get('detail', error)} ({problem.get('code', error.code)})") from error
        return json.loads(text) if text else None


def gb28181gw() -> list[str]:
    return [sys.executable, "-m", "gb28181gw"]


def command_output(*arguments: str) -> str:
    """Standard output of one gb28181gw command; its complaint as a DemoError."""
    done = subprocess.run([*gb28181gw(), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise DemoError(done.stderr.strip())
    return done.stdout.strip()


_children: list[subprocess.Popen[bytes]] = []


def launch(log: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (WORK / log).open("wb") as sink:
        child = subprocess.Popen([*gb28181gw(), *arguments], stdout=sink, stderr=sink, cwd=ROOT)
    _children.append(child)
    return child


def stop_children() -> None:
    for child in reversed(_children):
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in reversed(_children):
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()


def tail(log: str, lines: int = 8) -> str:
    return "\n".join((WORK / log).read_text(errors="replace").splitlines()[-lines:])


def write_jpeg(url: str, target: Path) -> tuple[int, int, str]:
    """Decodes the first picture of the play URL as any player would and writes it as a JPEG."""
    import av  # 70 ms that only this step needs

    with av.open(url, timeout=20) as source:
        video = source.streams.video[0]
        for frame in source.decode(video):
            with av.open(str(target), "w", format="mjpeg") as sink:
                picture = sink.add_stream("mjpeg", rate=25, options={"qscale": "3"})
                picture.width, picture.height, picture.pix_fmt = frame.width, frame.height, "yuvj420p"
                for packet in picture.encode(frame.reformat(format="yuvj420p")):
                    sink.mux(packet)
                for packet in picture.encode(None):
                    sink.mux(packet)
            return frame.width, frame.height, video.codec_context.name
    raise DemoError("The play URL gave no picture.")


def wait_for_channels(gateway: Gateway) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            items = gateway.call("GET", f"/api/v1/devices/{NVR}/channels")["items"]
        except DemoError:
            items = []
        if len(items) >= CHANNELS:
            return list(items)
        time.sleep(0.2)
    raise DemoError(
        f"The simulated NVR's catalogue did not arrive:\n{tail('gateway.log')}\n{tail('simulator.log')}"
    )


def show(gateway: Gateway, channels: list[dict[str, Any]], urls: dict[str, str], jpeg: Path) -> None:
    console.rule(f"[green]{channels[0]['name']} plays through the gateway")
    facts = {
        "Picture": str(jpeg),
        **{name.replace("_", "-").upper(): url for name, url in urls.items()},
        "API": f"http://127.0.0.1:{gateway.api_port}/api/v1/devices",
        "API key": gateway.key,
    }
    for name, value in facts.items():
        # One unbroken line each, however narrow the terminal is: these are copied.
        console.print(f"{name:10}{value}", soft_wrap=True, highlight=False)
    five = Table.grid(padding=(0, 2))
    five.add_row("SIP server address", f"{own_address()}, port {gateway.sip_port}")
    five.add_row("SIP server ID", "34020000002000000001")
    five.add_row("SIP server domain", "3402000000")
    five.add_row("Device ID", "20 digits of your choice, e.g. 34020000001320000001")
    five.add_row("Password", gateway.password)
    console.print(Panel(five, title="The five values for a real camera (GB28181 page of the device)"))
    console.print("Then let it in: POST /api/v1/devices/{its id}/approve with the API key.", style="dim")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the picture, with exit status 0")
    once = parser.parse_args().once
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gateway = Gateway()
    try:
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
        ) as progress:
            task = progress.add_task("starting the gateway", total=None)
            gateway.start()
            progress.update(task, description="drawing the test picture and registering a simulated NVR")
            try:
                gateway.call("POST", "/api/v1/devices", {"id": NVR, "name": "Demo NVR"})
            except DemoError as error:
                if "gb.route.exists" not in str(error):
                    raise
            launch(
                "simulator.log",
                "simulate",
                "device",
                "--server",
                f"127.0.0.1:{gateway.sip_port}",
                "--password",
                gateway.password,
                "--id",
                NVR,
                "--channels",
                str(CHANNELS),
                "--json",
            )
            channels = wait_for_channels(gateway)
            progress.update(task, description="asking the camera for its picture")
            stream = gateway.call("POST", f"/api/v1/devices/{NVR}/channels/{channels[0]['id']}/live", {})
            jpeg = WORK / "picture.jpg"
            width, height, codec = write_jpeg(stream["urls"]["http_flv"], jpeg)
            progress.update(task, description=f"got a picture: {codec}, {width}x{height}")
        show(gateway, channels, stream["urls"], jpeg)
        if not once:
            console.print("Running until Ctrl-C.")
            while all(child.poll() is None for child in _children):
                time.sleep(0.5)
            raise DemoError(f"A part of the demo ended:\n{tail('gateway.log')}\n{tail('simulator.log')}")
    except KeyboardInterrupt:
        console.print("Stopping.")
    except DemoError as error:
        console.print(f"[red]{error}[/red]")
        return 1
    finally:
        stop_children()
    return 0


if __name__ == "__main__":
    sys.exit(main())
