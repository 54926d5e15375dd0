"""Pictures that a device takes: order them, wait for them, write them to files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from gb28181gw.cli.running import RunningGateway

LOOK_S = 0.5
"""So often the order is looked at."""
_SUFFIX = {"image/jpeg": ".jpg", "image/png": ".png"}


def order(
    gateway: RunningGateway, channel_path: str, *, count: int, interval_s: int, wait_s: float
) -> dict[str, Any]:
    """Order pictures and wait until the order is over, or for so long. Raises as `RunningGateway.post`."""
    found: dict[str, Any] = gateway.post(
        f"{channel_path}/snapshots", {"count": count, "interval_s": interval_s}
    )
    until = time.monotonic() + wait_s
    while found["state"] == "waiting" and time.monotonic() < until:
        time.sleep(LOOK_S)
        found = gateway.get_json(f"/api/v1/snapshots/orders/{found['id']}")
    return found


def fetch(gateway: RunningGateway, order_id: str, directory: Path) -> list[Path]:
    """Write the pictures of an order into `directory`; names are ours, whatever the device called them."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in gateway.get_json(f"/api/v1/snapshots?order_id={order_id}&size=10")["items"]:
        file = directory / f"{picture['id']}{_SUFFIX[picture['content_type']]}"
        file.write_bytes(gateway.get(f"/api/v1/snapshots/{picture['id']}/image"))
        written.append(file)
    return written


def tell(found: dict[str, Any], files: list[Path], *, as_json: bool) -> int:
    """Print how it went; the exit status."""
    if as_json:
        print(json.dumps({**found, "files": [str(file) for file in files]}))
    else:
        for file in files:
            print(file)
        if found["state"] != "complete":
            print(
                f"{found['received']} of {found['asked']} pictures came ({found['state']}).", file=sys.stderr
            )
    return 0 if found["state"] == "complete" else 1
