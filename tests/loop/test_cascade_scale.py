"""Tens of thousands of shared channels on a running gateway: told whole and paced, in bounded memory, beside live
requests."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gb28181gw.cascade.paging import WINDOW
from gb28181gw.sip.message import Request
from tests.support.sim_platform import ssrc_of, udp_sink
from tests.support.upper import LOCAL_ID, NVR, Cascade, cascade

CAMERA = "34020000001320000001"
_ID = re.compile(rb"<Item>\s*<DeviceID>(\d+)</DeviceID>")
_SUM = re.compile(rb"<SumNum>(\d+)</SumNum>")


def is_page(request: Request) -> bool:
    return b"<Response>" in request.body and b"<CmdType>Catalog<" in request.body


class Memory:
    """The most that the gateway's process had resident since this was made."""

    def __init__(self, both: Cascade) -> None:
        assert both.gateway.process is not None
        self._process = Path(f"/proc/{both.gateway.process.pid}")
        (self._process / "clear_refs").write_text("5")
        self._before = self._most_mb()

    def _most_mb(self) -> float:
        found = re.search(r"VmHWM:\s*(\d+) kB", (self._process / "status").read_text())
        assert found is not None
        return int(found[1]) / 1000

    @property
    def grown_mb(self) -> float:
        return self._most_mb() - self._before


@pytest.mark.parametrize(
    ("channels", "most_mb"), [(10_000, 15.0), pytest.param(50_000, 35.0, marks=pytest.mark.long)]
)
async def test_cs05_i10_a_large_catalogue_is_whole_paced_and_bounded_and_live_requests_go_on(
    tmp_path: Path, channels: int, most_mb: float
) -> None:
    async with cascade(tmp_path, channels=1, stored=channels) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper(transport="tcp")
        await both.share(all=True)
        memory = Memory(both)
        ids: set[bytes] = set()

        def whole(sn: int) -> bool:
            """Of what came since the last look."""
            mark, total = b"<SN>%d</SN>" % sn, None
            for one in platform.seen:
                body = one.request.body
                if is_page(one.request) and mark in body:
                    ids.update(_ID.findall(body))
                    total = _SUM.search(body)
            platform.seen.clear()
            return total is not None and len(ids) == int(total[1])

        # Not a page more than the window before one is answered; everything else is served meanwhile.
        platform.withhold = is_page
        platform.query(LOCAL_ID, "Catalog", sn=900)
        await platform.until(lambda: len(platform.withheld) == WINDOW, 20)
        invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port, ssrc="0200004321"))
        await platform.until(lambda: any(one.status == 200 and one.body for one, _ in platform.responses), 20)
        final = next(one for one, _ in platform.responses if one.status == 200 and one.body)
        platform.in_dialog("ACK", LOCAL_ID, invite, final)
        await platform.until(lambda: len(sink.packets) > 5, 20)
        assert {ssrc_of(packet) for packet in sink.packets} == {200004321}
        assert (await asyncio.to_thread(both.gateway.get, "/channels?size=1"))["total"] >= channels
        assert len(platform.withheld) == WINDOW

        platform.release()
        await platform.until(lambda: whole(900), 60)
        assert len(ids) >= channels + 1 and CAMERA.encode() in ids and NVR.encode() in ids

        # Again and again, as an impatient upper does: what was sent before is not held.
        for sn in (901, 902, 903, 904):
            ids.clear()
            platform.query(LOCAL_ID, "Catalog", sn=sn)
            await platform.until(lambda sn=sn: whole(sn), 60)  # type: ignore[misc]
        assert memory.grown_mb < most_mb
        platform.in_dialog("BYE", LOCAL_ID, invite, final)
