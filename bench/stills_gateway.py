"""Pictures of idle cameras through the whole gateway: each is a call, a key frame, a JPEG and a BYE.

    python -m bench.stills_gateway [--cameras 60] [--rate 0.5]

The cameras are `gb28181gw simulate device` on the same host, a device each. `--rate` is pictures asked for in a second,
0.5 being 1,800 an hour; 0: all cameras at once. Told are the answers, how long they took, and the CPU seconds of the
gateway's process with its decoders.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.gateway import GatewayProcess, media_range, running_gateway, simulated_devices, wait_until

FIRST = 34020000001180000001


def cpu_s(pid: int) -> float:
    """Of a process and its children, those that have ended included."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        fields = text.rsplit(")", 1)[1].split()
        if int(path.parent.name) == pid:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def take(gateway: GatewayProcess, device: str, channel: str, at: float) -> tuple[int, float]:
    """Status, and seconds from the time at which it was to be asked for."""
    time.sleep(max(0.0, at - time.monotonic()))
    answer = gateway.api.get(f"/api/v1/devices/{device}/channels/{channel}/snapshot")
    return answer.status_code, time.monotonic() - at


def measure(gateway: GatewayProcess, cameras: int, rate: float) -> None:
    devices = [str(FIRST + number) for number in range(cameras)]
    channels = {}
    for device in devices:
        gateway.wait_online(device, channels=1, limit_s=120)
        channels[device] = gateway.get(f"/devices/{device}/channels")["items"][0]["id"]
    assert gateway.process is not None
    before, began = cpu_s(gateway.process.pid), time.monotonic()
    with ThreadPoolExecutor(cameras) as pool:
        asked = [
            pool.submit(take, gateway, device, channels[device], began + (number / rate if rate else 0.0))
            for number, device in enumerate(devices)
        ]
        answers = [one.result() for one in asked]
    passed = time.monotonic() - began
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "the last stream to end")
    used = cpu_s(gateway.process.pid) - before
    good = sum(status == 200 for status, _ in answers)
    times = sorted(seconds for _, seconds in answers)
    print(
        f"{good} of {cameras} pictures in {passed:.1f} s ({good / passed * 3600:.0f} an hour): "
        f"median {statistics.median(times):.2f} s, slowest {times[-1]:.2f} s; {used / cameras:.3f} CPU s a picture"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=60)
    parser.add_argument("--rate", type=float, default=0.5)
    options = parser.parse_args()
    fleet = ("--id", str(FIRST), "--count", str(options.cameras), "--channels", "1")
    with (
        tempfile.TemporaryDirectory() as directory,
        running_gateway(Path(directory), media={"ports": media_range(400)}) as gateway,
        simulated_devices(gateway, *fleet),
    ):
        measure(gateway, options.cameras, options.rate)


if __name__ == "__main__":
    main()
