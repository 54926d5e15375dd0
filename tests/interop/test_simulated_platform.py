"""`gb28181gw simulate platform` as a person runs it: registers the gateway, shows the tree, plays into a file."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway import command, free_port, running_gateway, simulated_devices

pytestmark = pytest.mark.interop

NVR, CAMERA = "34020000001180000001", "34020000001320000001"
UPPER = "34020000002000000099"


@pytest.mark.parametrize("media", ["udp", "tcp-active"])
def test_a_platform_shows_the_tree_moves_and_plays_into_a_file(tmp_path: Path, media: str) -> None:
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    output = tmp_path / "out.ps"
    with running_gateway(tmp_path) as gateway, simulated_devices(gateway, "--channels", "2"):
        gateway.wait_online(NVR, 2)
        with subprocess.Popen(
            [
                *command(), "simulate", "platform", "--listen", f"127.0.0.1:{port}", "--id", UPPER, "--password",
                "upper", "--play", "first", "--output", str(output), "--seconds", "4", "--media", media,
                "--ptz", "left", "--duration", "90", "--json",
            ],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as platform:  # fmt: skip
            assert platform.stdout is not None
            first = platform.stdout.readline()
            # It asks for the catalogue the moment we are registered: what is shared must be told then.
            added = subprocess.run(
                [
                    *command(), "upper", "add", UPPER, "--host", "127.0.0.1", "--port", str(port), "--domain",
                    "3402000000", "--password", "-", "--local-id", "34020000002000000031", "--all",
                    "--config", str(gateway.config),
                ],
                input="upper\n", text=True, capture_output=True,
            )  # fmt: skip
            told, complaints = platform.communicate(timeout=120)
        assert added.returncode == 0, added.stderr
        assert platform.returncode == 0, told + complaints
        events = {line["event"]: line for line in map(json.loads, (first + told).splitlines())}
        assert {item["id"] for item in events["catalogue"]["items"]} >= {NVR, CAMERA}
        assert events["moved"]["channel_id"] == CAMERA and events["played"]["bytes"] > 100_000
    assert output.stat().st_size == events["played"]["bytes"]
    if shutil.which("ffprobe") is not None:
        probed = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", str(output)],
            text=True, capture_output=True,
        )  # fmt: skip
        assert "h264" in probed.stdout
