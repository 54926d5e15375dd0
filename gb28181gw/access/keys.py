"""Access keys: made here, shown once, kept as a hash (S-08)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from gb28181gw.access.roles import Role

PREFIX: Final = "gbk_"
"""Lets people and secret scanners recognise a key."""
_SECRET_BYTES: Final = 32
_MAX_KEY_CHARS: Final = 128
FIRST_KEY_ID: Final = "first"
"""Id of the admin key of `secrets.toml`, which no database holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One access key. The key itself is not here: only its hash is kept."""

    id: str
    """16 hexadecimal digits, or `FIRST_KEY_ID`."""
    name: str
    role: Role
    hash: str
    """SHA-256 of the key's ASCII text, hexadecimal. The key has 256 random bits: a slow hash would add nothing."""
    created_at: float
    """Seconds since 1970 UTC, as `expires_at`."""
    expires_at: float | None = None
    """None: never."""

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


class KeyStore(Protocol):
    """Where keys are kept; `storage` implements it. Errors are GatewayError gb.route.storage_unavailable."""

    async def load_keys(self) -> list[Key]: ...

    async def add_key(self, key: Key) -> None:
        """Returns when the key is durable."""
        ...

    async def remove_key(self, key_id: str) -> bool:
        """False: there was none."""
        ...


def hash_key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def make_key_text() -> str:
    """A new key: 256 random bits, URL-safe."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode("ascii")


def make_key(name: str, role: Role, *, now: float, days: float | None = None) -> tuple[Key, str]:
    """A new key and its text, which is not kept anywhere. It expires only when `days` is given."""
    text = make_key_text()
    key = Key(
        id=secrets.token_hex(8),
        name=name,
        role=role,
        hash=hash_key(text),
        created_at=now,
        expires_at=None if days is None else now + days * 86_400,
    )
    return key, text


def first_key(text: str) -> Key:
    """The admin key that the first start made."""
    return Key(id=FIRST_KEY_ID, name="first start", role=Role.ADMIN, hash=hash_key(text), created_at=0.0)


class Keys:
    """Owner of the keys in memory. The store may be written by the command line while the gateway runs: an
    unknown key therefore makes the store be read again, at most once in `reread_s`."""

    def __init__(
        self,
        store: KeyStore,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        built_in: Iterable[Key] = (),
        reread_s: float = 0.25,
    ) -> None:
        self._store = store
        self._wall = wall
        self._monotonic = monotonic
        self._built_in = {key.hash: key for key in built_in}
        self._by_hash: dict[str, Key] = dict(self._built_in)
        self._reread_s = reread_s
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._on_gone: list[Callable[[str], None]] = []

    def on_gone(self, listener: Callable[[str], None]) -> None:
        """`listener(key_id)` is called when a key was removed, here or by another process."""
        self._on_gone.append(listener)

    async def load(self) -> None:
        """Read the store. Also called now and then, so that changes by the command line arrive."""
        async with self._reading:
            await self._load()

    async def _load(self) -> None:
        before = {key.id for key in self._by_hash.values()}
        self._by_hash = {key.hash: key for key in await self._store.load_keys()} | self._built_in
        self._read_at = self._monotonic()
        for key_id in before - {key.id for key in self._by_hash.values()}:
            self._tell_gone(key_id)

    def _tell_gone(self, key_id: str) -> None:
        for listener in self._on_gone:
            listener(key_id)

    def find(self, text: str) -> Key | None:
        """The valid key of this text among those in memory."""
        if not 0 < len(text) <= _MAX_KEY_CHARS:
            return None
        digest = hash_key(text)
        key = self._by_hash.get(digest)
        if key is None or not hmac.compare_digest(key.hash, digest) or key.expired(self._wall()):
            return None
        return key

    async def verify(self, text: str) -> Key | None:
        """The valid key of this text; one made by another process a moment ago is found too."""
        key = self.find(text)
        if key is not None or not text.startswith(PREFIX) or len(text) > _MAX_KEY_CHARS:
            return key
        async with self._reading:
            if self._read_at is None or self._monotonic() - self._read_at >= self._reread_s:
                await self._load()
        return self.find(text)

    def is_valid(self, key_id: str) -> bool:
        """Whether the key with this id still opens anything."""
        now = self._wall()
        return any(key.id == key_id and not key.expired(now) for key in self._by_hash.values())

    def all(self) -> list[Key]:
        """All keys, the built-in one first, then by age."""
        return sorted(
            self._by_hash.values(), key=lambda key: (key.id != FIRST_KEY_ID, key.created_at, key.id)
        )

    async def create(self, name: str, role: Role, *, days: float | None = None) -> tuple[Key, str]:
        """A new key; its text is returned once and never again."""
        key, text = make_key(name, role, now=self._wall(), days=days)
        await self._store.add_key(key)
        self._by_hash[key.hash] = key
        return key, text

    async def remove(self, key_id: str) -> Key | None:
        """Remove for good; None when there is none. The built-in key cannot be removed: ValueError."""
        if any(key.id == key_id for key in self._built_in.values()):
            raise ValueError("the first key lives in secrets.toml")
        found = next((key for key in self._by_hash.values() if key.id == key_id), None)
        if not await self._store.remove_key(key_id) and found is None:
            return None
        if found is not None:
            self._by_hash.pop(found.hash, None)
            self._tell_gone(key_id)
        return found
