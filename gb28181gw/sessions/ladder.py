"""Which ways a channel is asked for, in which order, and what an answer means for the next try.

Pure: the attempts are data, and `after_refusal` is a table of the refusals that another try can cure
(INV-09, INV-10, INV-11, INV-13, INV-14, INV-21).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from gb28181gw.media.engine import MediaTransport

AUTO_ORDER = (MediaTransport.TCP_PASSIVE, MediaTransport.UDP, MediaTransport.TCP_ACTIVE)
"""Contract 5.3: `auto` is the remembered way, else tcp-passive, udp, tcp-active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one INVITE asks."""

    transport: MediaTransport
    ps_only: bool = False
    """Offer payload type 96 alone (INV-13)."""
    to_device: bool = False
    """Ask the device's own id in place of the channel's (INV-09)."""


class Cure(Enum):
    """What helps against a refusal."""

    PS_ONLY = auto()
    """Offer fewer payload types on the same transport."""
    AGAIN = auto()
    """The same once more, after a second (a new Call-ID comes by itself)."""
    END_OLD_CALLS = auto()
    """Send BYE to every dialog of the device that we still remember, then as AGAIN."""
    ASK_DEVICE = auto()
    """Single-channel devices: ask the device's id."""
    NEXT_TRANSPORT = auto()
    """Only another transport can help."""
    NONE = auto()
    """The device means no."""


CURES: dict[int, tuple[Cure, ...]] = {
    400: (Cure.PS_ONLY, Cure.NEXT_TRANSPORT),
    404: (Cure.ASK_DEVICE,),
    415: (Cure.PS_ONLY, Cure.NEXT_TRANSPORT),
    481: (Cure.AGAIN,),
    486: (Cure.END_OLD_CALLS,),
    488: (Cure.PS_ONLY, Cure.NEXT_TRANSPORT),
    500: (Cure.AGAIN, Cure.NEXT_TRANSPORT),
    503: (Cure.AGAIN,),
    606: (Cure.PS_ONLY, Cure.NEXT_TRANSPORT),
}
"""SIP status of the refusal -> cures, each tried once a request."""


def first_ways(wanted: MediaTransport | None, remembered: MediaTransport | None) -> list[Way]:
    """The transports to try, best first.

    `wanted`: asked for by the caller, the device's setting or the configuration; None is `auto`.
    """
    if wanted is not None:
        return [Way(transport=wanted)]
    order = list(AUTO_ORDER)
    if remembered is not None:
        order.remove(remembered)
        order.insert(0, remembered)
    return [Way(transport=transport) for transport in order]


def cure_of(status: int, spent: set[Cure]) -> Cure:
    """The next cure for a refusal with `status` that was not spent on this request yet."""
    for cure in CURES.get(status, ()):
        if cure is Cure.NEXT_TRANSPORT or cure not in spent:
            return cure
    return Cure.NONE


def cured(way: Way, cure: Cure) -> Way:
    """`way` as the cure asks for it."""
    if cure is Cure.PS_ONLY:
        return replace(way, ps_only=True)
    if cure is Cure.ASK_DEVICE:
        return replace(way, to_device=True)
    return way
