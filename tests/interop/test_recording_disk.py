"""F-16 on a disk that really is full: a small file system of its own, where the tests may mount one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import pytest

from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = pytest.mark.interop
DEVICE = "34020000001180000001"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def readable(file: Path) -> int:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-of", "csv=p=0",
         "-show_entries", "stream=nb_read_frames", str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return int(done.stdout.strip().rstrip(","))


def lock_all(gateway: GatewayProcess, path: str) -> None:
    now = datetime.now(UTC)
    body = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    assert gateway.post(f"{path}/lock", body).status_code == 200


def test_f16_a_disk_that_is_full_stops_the_recording_alone_and_it_goes_on(tmp_path: Path, disk: Path) -> None:
    recording = {"directory": str(disk / "files"), "segment_s": 3, "min_free_mb": 1}
    with (
        running_gateway(tmp_path, recording=recording) as gateway,
        simulated_devices(gateway, "--id", DEVICE, "--channels", "1", "--size", "320x240"),
    ):
        gateway.wait_online(DEVICE, channels=1, limit_s=40)
        channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
        path = f"/devices/{DEVICE}/channels/{channel}/recording"
        gateway.api.put(f"/api/v1{path}", json={"mode": "continuous"})
        wait_until(lambda: len(list(disk.glob("files/*/*/*.mp4"))) >= 3, "files", 40)
        lock_all(gateway, path)
        filled = time.monotonic()
        with (disk / "filler").open("wb") as filler:
            try:
                while True:
                    os.write(filler.fileno(), bytes(4096))
            except OSError:
                pass
        gateway.wait_event("recording.disk_full", limit_s=15)
        assert time.monotonic() - filled < 15
        lock_all(gateway, path)
        assert gateway.get(path)["state"] == "disk_full"
        url = gateway.live(DEVICE, channel)["urls"]["http_flv"]
        with av.open(url, timeout=20) as player:
            assert next(player.decode(player.streams.video[0])).width == 320
        for file in disk.glob("files/*/*/*.mp4"):
            assert readable(file) > 0
        before = len(list(disk.glob("files/*/*/*.mp4")))
        (disk / "filler").unlink()
        gateway.wait_event("recording.disk_resumed", limit_s=15)
        wait_until(lambda: len(list(disk.glob("files/*/*/*.mp4"))) >= before + 2, "further files", 40)
        assert len(gateway.seen("recording.disk_full")) == 1
