"""A scripted upper platform beside a real gateway: `MiniPlatform`, used as the gateway's superior."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.cascade import seed
from tests.support.gateway import GatewayProcess, simulated_devices
from tests.support.sim_platform import REALM, SERVER_ID, MiniPlatform, Seen

LOCAL_ID = "34020100002000000001"
LOCAL_DOMAIN = "3402010000"
NVR = "34020000001180000001"
UPPER = SERVER_ID
PASSWORD = "upper-secret"


class Cascade:
    """One gateway with simulated devices, and one upper platform."""

    def __init__(self, gateway: GatewayProcess, platform: MiniPlatform) -> None:
        self.gateway = gateway
        self.platform = platform

    async def add_upper(self, **settings: Any) -> dict[str, Any]:
        """Add the platform and wait until it has us."""
        body = {
            "id": UPPER,
            "domain": REALM,
            "host": "127.0.0.1",
            "port": self.platform.port,
            "password": PASSWORD,
            "keepalive_s": 1,
            **settings,
        }
        answer = await asyncio.to_thread(self.gateway.post, "/uppers", body)
        assert answer.status_code == 201, answer.text
        await self.platform.until(lambda: LOCAL_ID in self.platform.registered)
        return dict(answer.json())

    async def share(self, **body: Any) -> dict[str, Any]:
        answer = await asyncio.to_thread(self.gateway.api.put, f"/api/v1/uppers/{UPPER}/channels", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def upper(self) -> dict[str, Any]:
        return dict(await asyncio.to_thread(self.gateway.get, f"/uppers/{UPPER}"))

    async def registered(self, wanted: bool = True) -> dict[str, Any]:
        """Wait until the gateway says so."""
        for _ in range(400):
            found = await self.upper()
            if found["registered"] is wanted:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"registered never became {wanted}: {found}")

    def answers(self, sn: int) -> list[Seen]:
        """Messages of the gateway with this SN."""
        mark = f"<SN>{sn}</SN>".encode()
        return [
            seen
            for seen in self.platform.seen
            if mark in seen.request.body and b"<Response>" in seen.request.body
        ]

    async def answer(self, sn: int) -> str:
        """The first answer with this SN."""
        await self.platform.until(lambda: self.answers(sn))
        return self.answers(sn)[0].request.body.decode("gb18030")

    async def catalogue(self, sn: int, target: str = "") -> list[dict[str, str]]:
        """Ask and wait until all items are there."""
        self.platform.query(LOCAL_ID, "Catalog", sn=sn, target=target)

        def items() -> list[dict[str, str]]:
            found: list[dict[str, str]] = []
            for seen in self.answers(sn):
                body = seen.request.body.decode("gb18030")
                found += [
                    dict(re.findall(r"<(\w+)>([^<]*)</\1>", item))
                    for item in re.findall(r"<Item>(.*?)</Item>", body, re.DOTALL)
                ]
            return found

        def complete() -> bool:
            parts = self.answers(sn)
            total = re.search(rb"<SumNum>(\d+)</SumNum>", parts[0].request.body) if parts else None
            return total is not None and len(items()) >= int(total[1])

        await self.platform.until(complete)
        return items()


@asynccontextmanager
async def cascade(
    directory: Path,
    *options: str,
    devices: int = 1,
    channels: int = 2,
    stored: int = 0,
    **settings: dict[str, Any],
) -> AsyncIterator[Cascade]:
    """A gateway with `devices` NVRs and a platform that knows it; `options` are the simulator's.

    `stored`: channels of devices that are away, in the database before the gateway starts.
    """
    platform = MiniPlatform(PASSWORD)
    await platform.open()
    settings.setdefault("sip", {}).update({"id": LOCAL_ID, "domain": LOCAL_DOMAIN})
    gateway = GatewayProcess(directory, **settings)
    if stored:
        await asyncio.to_thread(seed, directory / "data" / "gb28181gw.db", stored)
    with ExitStack() as stack:
        try:
            await asyncio.to_thread(gateway.start)
            if devices:
                stack.enter_context(
                    simulated_devices(
                        gateway,
                        "--server-id", LOCAL_ID, "--domain", LOCAL_DOMAIN, "--id", NVR,
                        "--count", str(devices), "--channels", str(channels), *options,
                    )
                )  # fmt: skip
                await asyncio.to_thread(gateway.wait_online, NVR, channels)
            yield Cascade(gateway, platform)
        finally:
            stack.close()
            await asyncio.to_thread(gateway.stop)
            await platform.close()
