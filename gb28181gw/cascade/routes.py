"""Paths of a request through platforms, and whose wish it is (GB/T 28181-2022 Annex H, 8.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gb28181gw.sip.message import Request
from gb28181gw.ua.passage import Passage

_MAX_HOPS: Final = 16
_MAX_IDENTITY: Final = 512
_IDS = re.compile(r"\d{20}(?:-\d{20})*", re.ASCII)


GOES_ROUND: Final = "Monitor-User-Identity names us already, or too many: it goes round"


class OfferError(Exception):
    """An INVITE cannot be served as it is: SIP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What an INVITE says about its way, and what our answers say about it."""

    own_id: str
    lower_id: str
    """The lower platform that has the channel; empty: a device of ours."""
    preferred: tuple[str, ...] = ()
    """`X-PreferredPath`, next hop first."""
    identity: str = ""
    """`Monitor-User-Identity`: newest gateway first, the user last."""

    def check(self) -> None:
        """Raises OfferError for a path that goes round, or a chain of askers that does (482), and for a path that leads
        elsewhere (404)."""
        if self.goes_round:
            raise OfferError(482, GOES_ROUND)
        if len(set(self.preferred)) != len(self.preferred) or len(self.preferred) > _MAX_HOPS:
            raise OfferError(482, "X-PreferredPath goes round")
        rest = self.rest
        if rest and rest[0] != self.lower_id:
            raise OfferError(404, f"X-PreferredPath leads to {rest[0]}, which does not have the channel here")

    @property
    def goes_round(self) -> bool:
        """We have passed this on before, or it came through more hops than anybody has."""
        hops = self.identity.split("-")
        return self.own_id in hops or len(hops) > _MAX_HOPS + 1

    @property
    def rest(self) -> tuple[str, ...]:
        """The preferred path behind us."""
        if self.own_id in self.preferred:
            return self.preferred[self.preferred.index(self.own_id) + 1 :]
        return ()

    def headers(self, below: str = "") -> tuple[tuple[str, str], ...]:
        """For every answer to the INVITE, good or bad: we first, then the way that the answer below had, or whom we
        asked."""
        if _IDS.fullmatch(below) is None or below.count("-") >= _MAX_HOPS:
            below = self.lower_id
        return (("X-RoutePath", f"{self.own_id}-{below}" if below else self.own_id),)

    def passage(self) -> Passage:
        """What goes on to the lower platform; to a device nothing does."""
        if not self.lower_id:
            return Passage()
        return Passage(
            preferred=self.rest,
            identity=f"{self.own_id}-{self.identity}"[:_MAX_IDENTITY] if self.identity else "",
        )


def read_route(request: Request, *, own_id: str, lower_id: str) -> Route:
    """The headers of an INVITE; what is not of their form counts as absent."""
    preferred = (request.headers.get("X-PreferredPath") or "").strip()
    identity = (request.headers.get("Monitor-User-Identity") or "").strip()
    return Route(
        own_id=own_id,
        lower_id=lower_id,
        preferred=tuple(preferred.split("-")) if _IDS.fullmatch(preferred) else (),
        identity=identity[:_MAX_IDENTITY] if identity.isprintable() else "",
    )
