"""Who may open a URL of the media listener: by token, or by a key in the header.

Satisfies `outputs.source.PlayGuard`.
"""

from __future__ import annotations

from collections.abc import Callable

from gb28181gw.access.keys import Keys
from gb28181gw.access.roles import Action, may
from gb28181gw.access.tokens import Grant, PlayTokens, make_grant
from gb28181gw.errors import GatewayError


def bearer(authorization: str | None) -> str | None:
    """The key of an ``Authorization: Bearer KEY`` header (RFC 6750 2.1); None when there is none."""
    if not authorization:
        return None
    scheme, _, text = authorization.strip().partition(" ")
    return text.strip() if scheme.lower() == "bearer" and text.strip() else None


class MediaGuard:
    """Decides each opening of a play URL and tells which open connections have lost their permission.

    A token is good for opening until it expires; what was opened goes on until the key that asked for it is
    removed (docs/reference/api.md). `on_revoked` listeners get a function that says of a grant id whether it has ended.
    """

    def __init__(self, keys: Keys, tokens: PlayTokens) -> None:
        self._keys = keys
        self._tokens = tokens
        self._on_revoked: list[Callable[[Callable[[str], bool]], None]] = []
        keys.on_gone(self._key_gone)

    def check(self, path: str, token: str | None, authorization: str | None, client: str) -> Grant:
        """The grant under which `client` may open `path`: a stream to play, or the microphone of a talk.

        Raises GatewayError gb.output.bad_token for a token that does not fit, is expired or revoked (the same
        words for all, so that nothing can be learnt from them), and gb.route.unauthorised without a valid key.
        """
        if token:
            grant = self._tokens.read(path, token)
            if grant is None or not self.is_valid(grant.grant_id):
                raise GatewayError("gb.output.bad_token", peer=client)
            return grant
        text = bearer(authorization)
        key = self._keys.find(text) if text else None
        if key is None:
            raise GatewayError(
                "gb.route.unauthorised", "The URL needs its token, or a key in the header.", peer=client
            )
        if not may(key.role, Action.TALK if path.startswith("/talks/") else Action.PLAY):
            raise GatewayError("gb.route.not_authorised", peer=client)
        return make_grant(key.id)

    def check_open(self, path: str, token: str, is_open: Callable[[str], bool]) -> Grant | None:
        """The grant of a token that may have expired, if `is_open(grant_id)`: a view that consists of many requests.

        None for every other token; then `check` decides.
        """
        grant = self._tokens.read(path, token, expired=True)
        if grant is None or not self.is_valid(grant.grant_id) or not is_open(grant.grant_id):
            return None
        return grant

    def renew(self, path: str, grant_id: str) -> str:
        """A fresh token for the stream of `path` under a grant that was given."""
        return self._tokens.mint(path, Grant(grant_id=grant_id))

    def is_valid(self, grant_id: str) -> bool:
        """Whether connections of this grant may be opened and go on."""
        return self._keys.is_valid(grant_id.partition("-")[0])

    def on_revoked(self, listener: Callable[[Callable[[str], bool]], None]) -> None:
        """`listener(has_ended)` is called when grants ended; it closes connections whose grant has."""
        self._on_revoked.append(listener)

    def _key_gone(self, key_id: str) -> None:
        for listener in self._on_revoked:
            listener(lambda grant_id: grant_id.partition("-")[0] == key_id)
