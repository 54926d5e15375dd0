"""The stores on SQLite. All SQL of the default storage is here and in `migrations`."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from gb28181gw.devices.dialects import learnable
from gb28181gw.devices.models import Binding, CatalogueState, Channel, ChannelStatus, Device, Refusal
from gb28181gw.devices.store import Ban, Done
from gb28181gw.errors import GatewayError
from gb28181gw.sip.path import Path
from gb28181gw.storage.database import Database, RowStatement, Value

CHANNEL_ROWS: Final = 500
"""Rows of one transaction of a catalogue (F-12)."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _upsert(table: str, columns: Sequence[str], keys: Sequence[str]) -> RowStatement:
    """INSERT of whole rows that replaces the values of a row with the same key."""
    rest = [column for column in columns if column not in keys]
    return RowStatement(
        f"INSERT INTO {table} ({', '.join(columns)})",
        len(columns),
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{column}=excluded.{column}" for column in rest),
    )


_DEVICE_COLUMNS = _names(
    "id name password media_transport charset timezone dialect approved provisioned username manufacturer model "
    "firmware reported_name detected_edition media_way quirks catalogue_state catalogue_received "
    "catalogue_expected catalogue_at created_at talk_way subscribe learnt"
)
_BINDING_COLUMNS = _names(
    "device_id active transport remote_host remote_port local_host local_port registered_at expires_at domain "
    "call_id cseq contact user_agent edition nonce nonce_minted_at nonce_count networks last_seen_at keepalive_s"
)
_CHANNEL_COLUMNS = _names(
    "device_id id name kind status ptz_type parental parent_ids group_id civil_code block address owner "
    "manufacturer model longitude latitude ip_address port register_way secrecy details fault implicit missed gone"
)

_SAVE_DEVICE = _upsert("devices", _DEVICE_COLUMNS, ("id",))
_SAVE_BINDING = _upsert("bindings", _BINDING_COLUMNS, ("device_id",))
_SAVE_CHANNEL = _upsert("channels", _CHANNEL_COLUMNS, ("device_id", "id"))
_SAVE_BAN = _upsert("bans", ("ip", "device_id", "until", "level"), ("ip", "device_id"))
_SAVE_SEEN = "UPDATE bindings SET last_seen_at=?, keepalive_s=? WHERE device_id=?"


def milliseconds(wall_s: float) -> int:
    """Seconds since 1970 as stored."""
    return round(wall_s * 1000)


class SqliteDeviceStore:
    """`devices.store.DeviceStore` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[Device]:
        return await self._database.run(_load)

    async def load_bans(self) -> list[Ban]:
        rows = await self._database.run(
            lambda connection: connection.execute("SELECT ip, device_id, until, level FROM bans").fetchall()
        )
        return [Ban(ip, device_id, until / 1000, level) for ip, device_id, until, level in rows]

    async def secret(self, name: str) -> bytes:
        return await self._database.run(lambda connection: _secret(connection, name))

    def save_binding(self, device: Device, binding: Binding, done: Done) -> None:
        self._database.submit_row(
            _SAVE_BINDING, _binding_row(device, binding), lambda _result, error: done(error)
        )

    def enrol(self, device: Device, binding: Binding, done: Done) -> None:
        device_row, binding_row = _device_row(device), _binding_row(device, binding)

        def write(connection: sqlite3.Connection) -> None:
            _SAVE_DEVICE.run(connection, [device_row])
            _SAVE_BINDING.run(connection, [binding_row])

        self._database.submit(write, lambda _result, error: done(error))

    async def save_device(self, device: Device) -> None:
        row = _device_row(device)
        await self._database.run(lambda connection: _SAVE_DEVICE.run(connection, [row]))

    async def remove_device(self, device_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM channels WHERE device_id=?", (device_id,))
            connection.execute("DELETE FROM bindings WHERE device_id=?", (device_id,))
            connection.execute("DELETE FROM bans WHERE device_id=?", (device_id,))
            connection.execute("DELETE FROM subscriptions WHERE device_id=?", (device_id,))
            connection.execute("DELETE FROM ptz_positions WHERE device_id=?", (device_id,))
            connection.execute("DELETE FROM devices WHERE id=?", (device_id,))

        await self._database.run(delete)

    async def save_channels(self, channels: Sequence[Channel]) -> None:
        for at in range(0, len(channels), CHANNEL_ROWS):
            rows = [_channel_row(channel) for channel in channels[at : at + CHANNEL_ROWS]]
            await self._database.run(_writer(_SAVE_CHANNEL, rows))

    def flush(self, seen: Sequence[Device], changed: Sequence[Device], done: Done) -> None:
        seen_rows = [
            (milliseconds(device.seen_wall), round(device.keepalive_s), device.id) for device in seen
        ]
        changed_rows = [_device_row(device) for device in changed]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_SAVE_SEEN, seen_rows)
            _SAVE_DEVICE.run(connection, changed_rows)

        self._database.submit(write, lambda _result, error: done(error))

    def save_ban(self, ban: Ban) -> None:
        self._behind(
            lambda: self._database.submit_row(
                _SAVE_BAN, (ban.ip, ban.device_id, milliseconds(ban.until), ban.level)
            )
        )

    def remove_bans(self, device_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM bans WHERE device_id=?", (device_id,))

        self._behind(lambda: self._database.submit(delete))

    def _behind(self, submit: Callable[[], None]) -> None:
        """Bans are written behind: a full queue must not keep the registrar from banning in memory."""
        try:
            submit()
        except GatewayError:
            self._database.counters.failed += 1


def _writer(statement: RowStatement, rows: Sequence[Sequence[Value]]) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: statement.run(connection, rows)


def _secret(connection: sqlite3.Connection, name: str) -> bytes:
    key = f"secret.{name}"
    connection.execute(
        "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
        (key, secrets.token_hex(32)),
    )
    return bytes.fromhex(connection.execute("SELECT value FROM settings WHERE key=?", (key,)).fetchone()[0])


# -- rows: the order is that of the column lists above -----------------------------------------------------------


def _device_row(device: Device) -> tuple[Value, ...]:
    return (
        device.id,
        device.name,
        device.password,
        device.media_transport,
        device.charset,
        device.timezone,
        json.dumps(device.dialect) if device.dialect else "",
        int(device.approved),
        int(device.provisioned),
        device.username,
        device.manufacturer,
        device.model,
        device.firmware,
        device.reported_name,
        device.detected_edition,
        device.media_way,
        json.dumps(device.quirks) if device.quirks else "{}",
        # A query that runs now will not run after a restart.
        "" if device.catalogue_state is CatalogueState.RUNNING else device.catalogue_state.value,
        device.catalogue_received,
        device.catalogue_expected,
        milliseconds(device.catalogue_at),
        milliseconds(device.created_at),
        device.talk_way,
        None if device.subscribe is None else " ".join(device.subscribe),
        _learnt_text(device),
    )


def _learnt_text(device: Device) -> str:
    if not device.learnt and not device.refused:
        return ""
    refused = {
        name: [one.times, milliseconds(one.at), one.by, one.why] for name, one in device.refused.items()
    }
    return json.dumps({"switches": device.learnt, "refused": refused}, ensure_ascii=False)


def _read_learnt(device: Device, text: str) -> None:
    """What the rows of `_learnt_text` say; other programs' switches are left out."""
    if not text:
        return
    found = json.loads(text)
    device.learnt = learnable(found["switches"])
    device.refused = {
        name: Refusal(times=times, at=at / 1000, by=by, why=why)
        for name, (times, at, by, why) in found["refused"].items()
    }


def _binding_row(device: Device, binding: Binding) -> tuple[Value, ...]:
    path = binding.path
    return (
        device.id,
        int(binding.active),
        path.transport,
        path.remote_host,
        path.remote_port,
        path.local_host,
        path.local_port,
        milliseconds(binding.registered_at),
        milliseconds(binding.expires_at),
        binding.domain,
        binding.call_id,
        binding.cseq,
        binding.contact,
        binding.user_agent,
        binding.edition,
        binding.nonce,
        milliseconds(binding.nonce_minted_at),
        binding.nonce_count,
        _networks_text(tuple(binding.networks.items())),
        milliseconds(max(device.seen_wall, binding.registered_at)),
        round(device.keepalive_s),
    )


@lru_cache(maxsize=4096)
def _networks_text(networks: tuple[tuple[str, int], ...]) -> str:
    """Most devices register from the same network for ever."""
    return json.dumps(dict(networks))


def _channel_row(channel: Channel) -> tuple[Value, ...]:
    return (
        channel.device_id,
        channel.id,
        channel.name,
        channel.kind,
        channel.status,
        channel.ptz_type,
        None if channel.parental is None else int(channel.parental),
        "/".join(channel.parent_ids),
        channel.group_id,
        channel.civil_code,
        channel.block,
        channel.address,
        channel.owner,
        channel.manufacturer,
        channel.model,
        channel.longitude,
        channel.latitude,
        channel.ip_address,
        channel.port,
        channel.register_way,
        channel.secrecy,
        json.dumps(channel.details, ensure_ascii=False) if channel.details else "",
        channel.fault,
        int(channel.implicit),
        channel.missed,
        int(channel.gone),
    )


def _load(connection: sqlite3.Connection) -> list[Device]:
    devices = {row[0]: _read_device(row) for row in _select(connection, "devices", _DEVICE_COLUMNS)}
    for row in _select(connection, "bindings", _BINDING_COLUMNS):
        device = devices.get(row[0])
        if device is not None:
            binding = device.binding = _read_binding(row)
            device.seen_wall = row[19] / 1000
            device.keepalive_s = float(row[20])
            device.nonce = binding.nonce
            device.nonce_minted_at = binding.nonce_minted_at
            device.nonce_count = binding.nonce_count
    _load_channels(connection, devices)
    return list(devices.values())


def _load_channels(connection: sqlite3.Connection, devices: dict[str, Device]) -> None:
    """200,000 rows at a start are common, so nothing here is done twice: repeated texts and lists are shared."""
    statuses = {status.value: status for status in ChannelStatus}
    shared: dict[str, str] = {}
    share = shared.setdefault
    parents: dict[str, tuple[str, ...]] = {"": ()}
    truth = {None: None, 0: False, 1: True}
    owner_id, channels = "", {}
    # fmt: off
    for (
        device_id, own_id, name, kind, status, ptz_type, parental, parent_ids, group_id, civil_code, block, address,
        owner, manufacturer, model, longitude, latitude, ip_address, port, register_way, secrecy, details, fault,
        implicit, missed, gone,
    ) in _select(connection, "channels", _CHANNEL_COLUMNS):
        # fmt: on
        if device_id != owner_id:
            device = devices.get(device_id)
            if device is None:
                continue
            # Rows come in the order of the key: the device changes seldom.
            owner_id, channels = device.id, device.channels
        if parent_ids not in parents:
            parents[parent_ids] = tuple(parent_ids.split("/"))
        channels[own_id] = Channel(
            owner_id,
            own_id,
            name,
            share(kind, kind),
            statuses.get(status, ChannelStatus.UNKNOWN),
            share(ptz_type, ptz_type),
            truth[parental],
            parents[parent_ids],
            share(group_id, group_id),
            share(civil_code, civil_code),
            share(block, block),
            share(address, address),
            share(owner, owner),
            share(manufacturer, manufacturer),
            share(model, model),
            longitude,
            latitude,
            ip_address,
            port,
            register_way,
            secrecy,
            tuple((share(key, key), share(text, text)) for key, text in json.loads(details)) if details else (),
            share(fault, fault),
            implicit == 1,
            missed,
            gone == 1,
        )


def _select(connection: sqlite3.Connection, table: str, columns: Iterable[str]) -> sqlite3.Cursor:
    return connection.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608  # names of this module


def _read_device(row: Sequence[object]) -> Device:
    values = dict(zip(_DEVICE_COLUMNS, row, strict=True))
    device = Device(
        id=str(values["id"]),
        name=str(values["name"]),
        password=None if values["password"] is None else str(values["password"]),
        media_transport=str(values["media_transport"]),
        charset=str(values["charset"]),
        timezone=str(values["timezone"]),
        dialect=_strings(str(values["dialect"])),
        approved=values["approved"] == 1,
        provisioned=values["provisioned"] == 1,
        username=str(values["username"]),
        manufacturer=str(values["manufacturer"]),
        model=str(values["model"]),
        firmware=str(values["firmware"]),
        reported_name=str(values["reported_name"]),
        detected_edition=str(values["detected_edition"]),
        media_way=str(values["media_way"]),
        quirks={str(name): int(count) for name, count in json.loads(str(values["quirks"])).items()},
        catalogue_state=CatalogueState(str(values["catalogue_state"])),
        catalogue_received=_integer(values["catalogue_received"]) or 0,
        catalogue_expected=_integer(values["catalogue_expected"]),
        catalogue_at=(_integer(values["catalogue_at"]) or 0) / 1000,
        created_at=(_integer(values["created_at"]) or 0) / 1000,
        talk_way=str(values["talk_way"]),
        subscribe=None if values["subscribe"] is None else tuple(str(values["subscribe"]).split()),
    )
    _read_learnt(device, str(values["learnt"]))
    return device


def _strings(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text).items()} if text else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _read_binding(row: Sequence[object]) -> Binding:
    values = dict(zip(_BINDING_COLUMNS, row, strict=True))
    return Binding(
        path=Path(
            str(values["transport"]),
            str(values["remote_host"]),
            _integer(values["remote_port"]) or 0,
            str(values["local_host"]),
            _integer(values["local_port"]) or 0,
        ),
        active=values["active"] == 1,
        registered_at=(_integer(values["registered_at"]) or 0) / 1000,
        expires_at=(_integer(values["expires_at"]) or 0) / 1000,
        domain=str(values["domain"]),
        call_id=str(values["call_id"]),
        cseq=_integer(values["cseq"]) or 0,
        contact=str(values["contact"]),
        user_agent=str(values["user_agent"]),
        edition=str(values["edition"]),
        nonce=str(values["nonce"]),
        nonce_minted_at=(_integer(values["nonce_minted_at"]) or 0) / 1000,
        nonce_count=_integer(values["nonce_count"]) or 0,
        networks={str(net): int(at) for net, at in json.loads(str(values["networks"])).items()},
    )
