"""The stores in memory: for tests, and a statement of what the others must do."""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gb28181gw.access.keys import Key
from gb28181gw.devices.models import Binding, CatalogueState, Channel, Device, Presence
from gb28181gw.devices.store import Ban, Done
from gb28181gw.downloads.store import StoredDownload
from gb28181gw.errors import GatewayError


class MemoryDeviceStore:
    """`devices.store.DeviceStore` without durability. `fail` makes every write fail as a dead database does."""

    def __init__(self) -> None:
        self.fail = False
        self._devices: dict[str, Device] = {}
        self._bindings: dict[str, Device] = {}
        self._channels: dict[str, dict[str, Channel]] = {}
        self._bans: dict[tuple[str, str], Ban] = {}
        self._secrets: dict[str, bytes] = {}

    async def load(self) -> list[Device]:
        found: list[Device] = []
        for device_id, row in self._devices.items():
            device = copy.copy(row)
            device.quirks = dict(row.quirks)
            device.channels = dict(self._channels.get(device_id, {}))
            bound = self._bindings.get(device_id)
            if bound is not None:
                device.binding = bound.binding
                device.seen_wall = bound.seen_wall
                device.keepalive_s = bound.keepalive_s
                if bound.binding is not None:
                    device.nonce = bound.binding.nonce
                    device.nonce_minted_at = bound.binding.nonce_minted_at
                    device.nonce_count = bound.binding.nonce_count
            found.append(device)
        return found

    async def load_bans(self) -> list[Ban]:
        return list(self._bans.values())

    async def secret(self, name: str) -> bytes:
        return self._secrets.setdefault(name, secrets.token_bytes(32))

    def save_binding(self, device: Device, binding: Binding, done: Done) -> None:
        self._bound(device, binding)
        self._finish(done)

    def enrol(self, device: Device, binding: Binding, done: Done) -> None:
        self._row(device)
        self._bound(device, binding)
        self._finish(done)

    async def save_device(self, device: Device) -> None:
        self._check()
        self._row(device)

    async def remove_device(self, device_id: str) -> None:
        self._check()
        self._devices.pop(device_id, None)
        self._bindings.pop(device_id, None)
        self._channels.pop(device_id, None)
        self.remove_bans(device_id)

    async def save_channels(self, channels: Sequence[Channel]) -> None:
        self._check()
        for channel in channels:
            self._channels.setdefault(channel.device_id, {})[channel.id] = channel

    def flush(self, seen: Sequence[Device], changed: Sequence[Device], done: Done) -> None:
        if not self.fail:
            for device in seen:
                bound = self._bindings.get(device.id)
                if bound is not None:
                    bound.seen_wall, bound.keepalive_s = device.seen_wall, device.keepalive_s
            for device in changed:
                self._row(device)
        self._finish(done)

    def save_ban(self, ban: Ban) -> None:
        self._bans[ban.ip, ban.device_id] = ban

    def remove_bans(self, device_id: str) -> None:
        for key in [key for key in self._bans if key[1] == device_id]:
            del self._bans[key]

    # -- helpers -------------------------------------------------------------------------------------------

    def _row(self, device: Device) -> None:
        if self.fail:
            return
        state = (
            CatalogueState.NONE
            if device.catalogue_state is CatalogueState.RUNNING
            else device.catalogue_state
        )
        self._devices[device.id] = replace(
            device,
            catalogue_state=state,
            quirks=dict(device.quirks),
            dialect=dict(device.dialect),
            nonce="",
            nonce_minted_at=0.0,
            nonce_count=0,
            channels={},
            binding=None,
            path=None,
            trial_until=0.0,
            presence=Presence.OFFLINE,
            seen=0.0,
            seen_wall=0.0,
            expires=0.0,
            keepalive_s=0.0,
            keepalive_at=0.0,
            keepalive_gaps=(),
            keepalives=0,
            warning="",
            lost_at=0.0,
            unregistered_at=0.0,
            slot=0,
            unsaved=0,
        )

    def _bound(self, device: Device, binding: Binding) -> None:
        if not self.fail:
            seen_wall = max(device.seen_wall, binding.registered_at)
            self._bindings[device.id] = replace(device, binding=binding, seen_wall=seen_wall)

    def _check(self) -> None:
        if self.fail:
            raise GatewayError("gb.route.storage_unavailable", "The database is made to fail.")

    def _finish(self, done: Done) -> None:
        error = GatewayError("gb.route.storage_unavailable", "The database fails.") if self.fail else None
        asyncio.get_running_loop().call_soon(done, error)


class MemoryKeyStore:
    """`access.keys.KeyStore` without durability."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = {key.id: key for key in keys}

    async def load_keys(self) -> list[Key]:
        return list(self.keys.values())

    async def add_key(self, key: Key) -> None:
        self.keys[key.id] = key

    async def remove_key(self, key_id: str) -> bool:
        return self.keys.pop(key_id, None) is not None


class MemoryDownloadStore:
    """`downloads.store.DownloadStore` without durability."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredDownload] = {}

    async def load_downloads(self) -> list[StoredDownload]:
        return sorted(self.rows.values(), key=lambda row: (row.created_at, row.id))

    async def save_download(self, download: StoredDownload) -> None:
        self.rows[download.id] = download

    async def remove_download(self, download_id: str) -> None:
        self.rows.pop(download_id, None)
