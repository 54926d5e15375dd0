"""Play tokens: what `?token=` of a play URL carries (docs/reference/api.md, S-15).

A token is ``GRANT.EXPIRY.MAC``. The grant names the key that asked and a random part, the expiry is when the URL
can be opened last, and the MAC covers both together with the stream's path, so that a token opens that stream
in every form (FLV, WebSocket, …) and no other. Nothing is stored for a token; the key of the MAC is kept in
`secrets.toml`, so a URL lives on over a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MAC_BYTES: Final = 16
_MAX_TOKEN_CHARS: Final = 160
_FORMS: Final = re.compile(
    r"(?:\.(?:flv|mp4|ts)|/(?:index\.m3u8|(?:init|segment|part)-[0-9-]{1,20}\.(?:mp4|m4s)|wh[ei]p(?:/.*)?))\Z",
    re.ASCII | re.DOTALL,
)
_GRANT: Final = re.compile(r"[0-9a-z]{1,32}-[0-9A-Za-z_-]{6,32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The permission under which something is played; it can be revoked as a whole."""

    grant_id: str
    """``KEY-RANDOM``: KEY is the id of the access key that asked; every URL of one answer of the API has the same."""

    @property
    def id(self) -> str:
        """What `outputs.source.Grant` asks for."""
        return self.grant_id


def make_grant(key_id: str) -> Grant:
    return Grant(grant_id=f"{key_id}-{secrets.token_urlsafe(9)}")


def stream_path(path: str) -> str:
    """What a decoded request path names: ``/live/A_B.flv``, ``/live/A_B/index.m3u8`` are ``live/A_B``, and
    ``/talks/A/whip`` is ``talks/A``.
    """
    return _FORMS.sub("", path.strip("/"))


class PlayTokens:
    """Makes and reads tokens. `ttl_s` is `[media] token_s`."""

    def __init__(self, key: bytes, *, ttl_s: int, wall: Callable[[], float]) -> None:
        if len(key) < 32:
            raise ValueError("a token key has at least 32 bytes")
        self._key = key
        self._ttl_s = ttl_s
        self._wall = wall

    def mint(self, path: str, grant: Grant) -> str:
        """A token that opens the stream of `path` for `ttl_s` seconds from now."""
        expiry = int(self._wall()) + self._ttl_s
        return f"{grant.grant_id}.{expiry:x}.{self._mac(stream_path(path), grant.grant_id, expiry)}"

    def read(self, path: str, token: str, *, expired: bool = False) -> Grant | None:
        """The grant of a token that fits the path and is not expired, else None. `expired`: it may be."""
        if len(token) > _MAX_TOKEN_CHARS or token.count(".") != 2:
            return None
        grant_id, expiry_text, mac = token.split(".")
        if not _GRANT.fullmatch(grant_id) or not re.fullmatch(r"[0-9a-f]{1,12}", expiry_text, re.ASCII):
            return None
        expiry = int(expiry_text, 16)
        expected = self._mac(stream_path(path), grant_id, expiry)
        if not hmac.compare_digest(expected.encode(), mac.encode("utf-8", "surrogatepass")):
            return None
        if self._wall() >= expiry and not expired:
            return None
        return Grant(grant_id=grant_id)

    def _mac(self, stream: str, grant_id: str, expiry: int) -> str:
        text = f"{stream}\0{grant_id}\0{expiry}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, text, hashlib.sha256).digest()[:_MAC_BYTES]
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
