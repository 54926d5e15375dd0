"""The metrics that a running gateway shows are those of the reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.gateway import running_gateway

pytestmark = pytest.mark.interop

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


def test_o04_every_metric_is_documented_and_every_documented_one_is_there(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        text = gateway.api.get("/metrics").text
    shown = {
        (name.removeprefix("gb28181gw_"), kind)
        for name, kind in re.findall(r"^# TYPE (gb28181gw_\w+) (\w+)$", text, re.MULTILINE)
        if not name.endswith("_created")
    }
    documented = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))
    assert len(shown) >= 60
    assert documented == shown
    assert not re.search(r'(device_id|channel_id|peer)="', text)
