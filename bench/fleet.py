"""A thousand simulated devices against the whole gateway: CPU seconds and memory of its process.

    python -m bench.fleet [--devices 1000] [--channels 20] [--keepalive 5] [--seconds 30]

The gateway is `gb28181gw serve` with its defaults (log lines into a file), the devices are `gb28181gw simulate
device` in another process on the same host. What is measured is the gateway's process alone, from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

PASSWORD = secrets.token_urlsafe(9)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def usage(pid: int) -> tuple[float, float]:
    """(CPU seconds, resident megabytes) of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """One gateway and its fleet."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.sip, self.api = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        media = free_port(socket.SOCK_STREAM)
        self.config = directory / "bench.toml"
        self.config.write_text(
            f'data_dir = "{directory / "data"}"\n[sip]\nlisten = "127.0.0.1:{self.sip}"\npassword = "{PASSWORD}"\n'
            f'enrolment = "open"\n[media]\nhttp = "127.0.0.1:{media}"\n[http]\nlisten = "127.0.0.1:{self.api}"\n'
        )
        self.key = subprocess.run(
            [*self.command("key", "create"), "--name", "bench", "--role", "admin"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        self.log = (directory / "gateway.log").open("wb")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gb28181gw", *words, "--config", str(self.config)]

    def get(self, path: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}{path}", headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def wait(self, path: str, total: int, limit_s: float = 300) -> None:
        deadline = time.monotonic() + limit_s
        while self.get(path)["total"] < total:
            if time.monotonic() > deadline:
                raise SystemExit(f"{path} did not reach {total}: {self.get(path)['total']}")
            time.sleep(0.5)

    def run(self) -> None:
        options = self.options
        gateway = subprocess.Popen(self.command("serve"), stderr=self.log)
        fleet: subprocess.Popen[bytes] | None = None
        try:
            while True:
                try:
                    self.get("/readyz")
                    break
                except OSError:
                    time.sleep(0.05)
            cpu, memory = usage(gateway.pid)
            print(f"start: {cpu:.2f} CPU s with all imports, RSS {memory:.1f} MB")
            fleet = subprocess.Popen(
                [
                    sys.executable, "-m", "gb28181gw", "simulate", "device", "--server", f"127.0.0.1:{self.sip}",
                    "--password", PASSWORD, "--count", str(options.devices), "--channels", str(options.channels),
                    "--keepalive", str(options.keepalive), "--register-rate", "200", "--catalog-page", "10", "--json",
                ],
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            self.wait("/api/v1/devices?size=1", options.devices)
            self.wait("/api/v1/channels?size=1", options.devices * options.channels)
            before, before_memory = cpu, memory
            cpu, memory = usage(gateway.pid)
            grown = (memory - before_memory) * 1000
            print(
                f"{options.devices} devices registered, asked for DeviceInfo, DeviceStatus and Catalog, "
                f"{options.devices * options.channels} channels stored: {cpu - before:.2f} CPU s, RSS {memory:.1f} MB "
                f"({grown / options.devices:.1f} kB a device with its {options.channels} channels)"
            )
            counted = self.keepalives()
            started = time.monotonic()
            before = cpu
            time.sleep(options.seconds)
            cpu, memory = usage(gateway.pid)
            beats = self.keepalives() - counted
            print(
                f"{beats:.0f} keepalives in {time.monotonic() - started:.0f} s: {cpu - before:.2f} CPU s, "
                f"{(cpu - before) / beats * 1000:.3f} CPU s per 1,000 (idle work of the process included), "
                f"RSS {memory:.1f} MB"
            )
            online = self.get("/api/v1/devices?size=500")
            print(
                f"online: {sum(one['online'] for one in online['items'])} of the first {len(online['items'])}"
            )
        finally:
            for process in (fleet, gateway):
                if process is not None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(20)
            self.log.close()

    def keepalives(self) -> float:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}/metrics", headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return float(
            next(line for line in lines if line.startswith("gb28181gw_message_keepalives_total")).split()[-1]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--keepalive", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(f"{cpu_model()}, {os.cpu_count()} cores, {system}")
    print("command: python -m bench.fleet " + " ".join(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as directory:
        Bench(Path(directory), options).run()


if __name__ == "__main__":
    main()
