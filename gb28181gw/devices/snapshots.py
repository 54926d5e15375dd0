"""Pictures that a device takes and uploads by itself: SnapShotConfig (GB/T 28181-2022 9.14, A.2.1.24, A.2.5.7).

Theory of operation. An order makes a session with two secrets of 128 bits and more: its id, which the device repeats
in UploadSnapShotFinished, and the token in the URL that the device uploads to. The token is good for this session
alone: for so many pictures, for so long, each of bounded size and really a JPEG or PNG. Without a live session
nothing can be written, and there is no way to read by it; pictures are read over the API with a key (S-09). Sessions
live in memory and end with the process; pictures stay until their time is over or the disk's share is used up.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.devices.commands import Outcome
from gb28181gw.devices.models import Device
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.schema import Values
from gb28181gw.observability.events import EventBus

MAX_PICTURE_BYTES: Final = 8 * 1024 * 1024
UPLOADS_AT_ONCE: Final = 8
"""Bodies in memory."""
GRACE_S: Final = 120.0
"""A device has so long beyond the time that its pictures take."""
FINISHED_S: Final = 15.0
"""Uploads may come so long after the device said that it has finished."""
LIVE_LIMIT: Final = 200
"""Sessions that wait for pictures."""
KEPT: Final = 1_000
"""Sessions that can be looked up."""
PRUNE_EVERY_S: Final = 3_600.0
DAY_S: Final = 86_400.0

_SIGNATURES: Final = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


def picture_type(data: bytes) -> str:
    """The content type by the first bytes, whatever the uploader says; empty: neither JPEG nor PNG."""
    return next((name for magic, name in _SIGNATURES if data.startswith(magic)), "")


class SnapshotState(StrEnum):
    """Of a session."""

    WAITING = "waiting"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    """No picture came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture as it is kept."""

    id: str
    session_id: str
    device_id: str
    channel_id: str
    received_at: float
    """Seconds since 1970 UTC."""
    content_type: str
    size: int
    """Bytes."""
    name: str
    """As uploaded; of the standard's form it tells the device and the time (9.14.1). Empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFilter:
    """What is looked for; empty members do not narrow."""

    device_id: str = ""
    channel_id: str = ""
    session_id: str = ""
    start: float | None = None
    end: float | None = None
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """A session, for the API."""

    id: str
    device_id: str
    channel_id: str
    state: SnapshotState
    asked: int
    received: int
    pictures: tuple[str, ...]
    """Their ids."""
    started_at: float


class SnapshotStore(Protocol):
    """Keeps pictures; `storage` implements it. Calls raise gb.route.storage_unavailable."""

    async def save_picture(self, picture: Picture, data: bytes) -> None: ...

    async def pictures(self, wanted: PictureFilter) -> tuple[list[Picture], int]:
        """Newest first, and how many there are in all."""
        ...

    async def picture(self, picture_id: str) -> tuple[Picture, bytes] | None: ...

    async def prune_pictures(self, *, before: float, max_bytes: int) -> int:
        """Remove what was received before, and the oldest beyond so many bytes; the number of pictures."""
        ...


class Commanding(Protocol):
    """`devices.commands.Commands`."""

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome: ...


@dataclass(slots=True)
class SnapshotCounters:
    """Plain counters for the exporter."""

    ordered: int = 0
    pictures: int = 0
    bytes: int = 0
    refused: int = 0
    """Uploads without a live session, too many, or no pictures."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Session:
    id: str
    token: str
    device_id: str
    channel_id: str
    asked: int
    started_at: float
    until: float
    """Monotonic."""
    pictures: list[str] = field(default_factory=list)
    coming: int = 0
    told: int | None = None
    """Pictures that the device says it uploaded; None: it has not finished."""


class UploadTicket:
    """One upload that was let in; `release` it in any case."""

    def __init__(self, owner: Snapshots, session: _Session) -> None:
        self.limit = MAX_PICTURE_BYTES
        self._owner = owner
        self._session: _Session | None = session

    async def take(self, name: str, data: bytes) -> None:
        """Keep the picture. Raises gb.route.invalid for what is none, and gb.route.storage_unavailable."""
        if self._session is not None:
            await self._owner.keep(self._session, name, data)

    def release(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            self._owner.released(session)


class Snapshots:
    """Owner of the sessions, and the face of the store."""

    def __init__(
        self,
        *,
        registry: Registry,
        commands: Commanding,
        store: SnapshotStore,
        bus: EventBus,
        clock: Clock,
        base_url: Callable[[Device], str],
        days: int = 30,
        max_bytes: int = 1 << 30,
    ) -> None:
        """`base_url(device)` is where that device reaches the receiver, without the token."""
        self.counters = SnapshotCounters()
        self._registry = registry
        self._commands = commands
        self._store = store
        self._bus = bus
        self._clock = clock
        self._base_url = base_url
        self._keep_s = days * DAY_S
        self._max_bytes = max_bytes
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._by_token: dict[str, _Session] = {}
        self._uploads = 0
        self._unpruned = 0
        self._pruning: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to forget what is old."""
        self._pruning = asyncio.get_running_loop().create_task(self._prune())

    async def close(self) -> None:
        """Nothing is taken any more."""
        self._by_token.clear()
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.gather(self._pruning, return_exceptions=True)

    # -- ordering ------------------------------------------------------------------------------------------

    async def order(
        self,
        device_id: str,
        channel_id: str,
        *,
        count: int = 1,
        interval_s: int = 1,
        force: bool = False,
        key_id: str = "",
    ) -> SnapshotView:
        """Have the device take `count` pictures, 1 to 10, and upload them; returns when it agreed.

        Raises GatewayError as `Commands.run`, and gb.route.busy for too many sessions.
        """
        self._tidy()
        if len(self._by_token) >= LIVE_LIMIT:
            raise GatewayError("gb.route.busy", f"{LIVE_LIMIT} orders of pictures are under way.")
        now = self._clock.monotonic()
        session = _Session(
            id=str(uuid.uuid4()),
            token=secrets.token_urlsafe(24),
            device_id=device_id,
            channel_id=channel_id,
            asked=count,
            started_at=self._clock.wall(),
            until=now + count * interval_s + GRACE_S,
        )
        url = f"{self._base_url(self._registry.require(device_id))}/{session.token}"
        # Before the order leaves: a device may upload before it answers.
        self._by_token[session.token] = session
        self._sessions[session.id] = session
        values: Values = {
            "SnapShotConfig": {
                "SnapNum": count,
                "Interval": interval_s,
                "UploadURL": url,
                "SessionID": session.id,
            }
        }
        try:
            await self._commands.run(
                device_id, "DeviceConfig", values, channel_id=channel_id, force=force, key_id=key_id
            )
        except BaseException:
            self._by_token.pop(session.token, None)
            self._sessions.pop(session.id, None)
            raise
        self.counters.ordered += 1
        return self._view(session)

    def session(self, session_id: str) -> SnapshotView:
        """Raises gb.route.not_found."""
        self._tidy()
        session = self._sessions.get(session_id)
        if session is None:
            raise GatewayError("gb.route.not_found", "No order of pictures has this id, or it is long over.")
        return self._view(session)

    def finished(self, device_id: str, session_id: str, files: Sequence[str]) -> None:
        """UploadSnapShotFinished of the device that was ordered (S-03)."""
        session = self._sessions.get(session_id)
        if session is None or session.device_id != device_id or session.told is not None:
            return
        session.told = len(files)
        session.until = min(session.until, self._clock.monotonic() + FINISHED_S)

    def _view(self, session: _Session) -> SnapshotView:
        return SnapshotView(
            id=session.id,
            device_id=session.device_id,
            channel_id=session.channel_id,
            state=self._state(session),
            asked=session.asked,
            received=len(session.pictures),
            pictures=tuple(session.pictures),
            started_at=session.started_at,
        )

    def _state(self, session: _Session) -> SnapshotState:
        got = len(session.pictures)
        if got >= session.asked:
            return SnapshotState.COMPLETE
        over = self._clock.monotonic() >= session.until
        if over or (session.told is not None and got >= session.told and not session.coming):
            return SnapshotState.PARTIAL if got else SnapshotState.FAILED
        return SnapshotState.WAITING

    def _tidy(self) -> None:
        """Tokens of sessions that are over open nothing."""
        now = self._clock.monotonic()
        for session in [one for one in self._by_token.values() if now >= one.until]:
            del self._by_token[session.token]
        while len(self._sessions) > KEPT:
            self._sessions.popitem(last=False)

    # -- receiving -----------------------------------------------------------------------------------------

    def admit(self, token: str, client: str) -> UploadTicket:
        """Let an upload in. Raises gb.route.not_found, the same for every reason that a stranger could learn from,
        and gb.route.rate_limited."""
        self._tidy()
        session = self._by_token.get(token)
        if session is None or len(session.pictures) + session.coming >= session.asked:
            self._refused(client, "no_session" if session is None else "too_many")
            raise GatewayError("gb.route.not_found", "Nothing is served under this path.")
        if self._uploads >= UPLOADS_AT_ONCE:
            self._refused(client, "rate_limited")
            raise GatewayError("gb.route.rate_limited", "Too many pictures come at one time.")
        session.coming += 1
        self._uploads += 1
        return UploadTicket(self, session)

    async def keep(self, session: _Session, name: str, data: bytes) -> None:
        """Of a ticket."""
        content_type = picture_type(data)
        if not content_type:
            self._refused("", "no_picture", session)
            raise GatewayError("gb.route.invalid", "body: is neither a JPEG nor a PNG picture.")
        picture = Picture(
            id=secrets.token_hex(16),
            session_id=session.id,
            device_id=session.device_id,
            channel_id=session.channel_id,
            received_at=self._clock.wall(),
            content_type=content_type,
            size=len(data),
            name=name,
        )
        await self._store.save_picture(picture, data)
        session.pictures.append(picture.id)
        self.counters.pictures += 1
        self.counters.bytes += len(data)
        self._bus.emit(
            "snapshot.received",
            device_id=session.device_id,
            channel_id=session.channel_id,
            session=session.id,
            picture=picture.id,
            size=len(data),
            content_type=content_type,
        )
        self._unpruned += len(data)
        if self._unpruned > self._max_bytes // 16:
            await self._prune_once()

    def released(self, session: _Session) -> None:
        """Of a ticket."""
        session.coming -= 1
        self._uploads -= 1

    def _refused(self, client: str, reason: str, session: _Session | None = None) -> None:
        self.counters.refused += 1
        self._bus.emit(
            "snapshot.refused",
            client=client or None,
            device_id=session.device_id if session is not None else None,
            reason=reason,
        )

    # -- the store -----------------------------------------------------------------------------------------

    async def pictures(self, wanted: PictureFilter) -> tuple[list[Picture], int]:
        return await self._store.pictures(wanted)

    async def picture(self, picture_id: str) -> tuple[Picture, bytes]:
        """Raises gb.route.not_found."""
        found = await self._store.picture(picture_id)
        if found is None:
            raise GatewayError("gb.route.not_found", "No picture has this id.")
        return found

    async def _prune(self) -> None:
        while True:
            await self._prune_once()
            await asyncio.sleep(PRUNE_EVERY_S)

    async def _prune_once(self) -> None:
        self._unpruned = 0
        with contextlib.suppress(GatewayError):  # a store that is away is asked again in an hour
            await self._store.prune_pictures(
                before=self._clock.wall() - self._keep_s, max_bytes=self._max_bytes
            )
