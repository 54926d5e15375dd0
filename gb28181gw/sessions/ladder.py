"""Which ways a channel is asked for, in which order, and what an answer means for the next try.

Pure: the attempts are data, and `after_refusal` is a table of the refusals that another try can cure
(INV-09, INV-10, INV-11, INV-13, INV-14, INV-21).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.media.engine import MediaTransport

AUTO_ORDER = (MediaTransport.TCP_PASSIVE, MediaTransport.UDP, MediaTransport.TCP_ACTIVE)
"""`auto` is the remembered way, else tcp-passive, udp, tcp-active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one INVITE asks."""

    transport: MediaTransport
    payloads: PayloadSet = PayloadSet.DEFAULT
    """Which payload types are offered (INV-13)."""
    to_device: bool = False
    """Ask the device's own id in place of the channel's (INV-09)."""


class Cure(Enum):
    """What helps against a refusal."""

    PS_ONLY = auto()
    """Offer payload type 96 alone on the same transport."""
    H265_99 = auto()
    """Offer H.265 under 99, as many platforms do."""
    EXTENDED = auto()
    """Offer the long list of old platforms."""
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


RUNGS: dict[Cure, PayloadSet] = {
    Cure.PS_ONLY: PayloadSet.PS_ONLY,
    Cure.H265_99: PayloadSet.H265_99,
    Cure.EXTENDED: PayloadSet.EXTENDED,
}
"""The cures that offer other payload types, in the order in which they are tried (INV-13)."""

CURES: dict[int, tuple[Cure, ...]] = {
    400: (Cure.PS_ONLY, Cure.NEXT_TRANSPORT),
    403: (Cure.ASK_DEVICE,),
    404: (Cure.ASK_DEVICE,),
    415: (*RUNGS, Cure.NEXT_TRANSPORT),
    481: (Cure.AGAIN,),
    486: (Cure.END_OLD_CALLS,),
    488: (*RUNGS, Cure.NEXT_TRANSPORT),
    500: (Cure.AGAIN, Cure.NEXT_TRANSPORT),
    503: (Cure.AGAIN,),
    606: (*RUNGS, Cure.NEXT_TRANSPORT),
}
"""SIP status of the refusal -> cures, each tried once a request."""


def first_ways(
    wanted: MediaTransport | None,
    remembered: MediaTransport | None,
    payloads: PayloadSet = PayloadSet.DEFAULT,
    *,
    to_device: bool = False,
) -> list[Way]:
    """The transports to try, best first.

    `wanted`: asked for by the caller, the device's setting or the configuration; None is `auto`.
    `to_device`: ask the device's own id from the beginning (recordings that it keeps as a centre).
    `payloads`: what the device's dialect says to offer first.
    """
    if wanted is not None:
        return [Way(transport=wanted, payloads=payloads, to_device=to_device)]
    order = list(AUTO_ORDER)
    if remembered is not None:
        order.remove(remembered)
        order.insert(0, remembered)
    return [Way(transport=transport, payloads=payloads, to_device=to_device) for transport in order]


def cure_of(status: int, spent: set[Cure]) -> Cure:
    """The next cure for a refusal with `status` that was not spent on this request yet."""
    for cure in CURES.get(status, ()):
        if cure is Cure.NEXT_TRANSPORT or cure not in spent:
            return cure
    return Cure.NONE


def cured(way: Way, cure: Cure) -> Way:
    """`way` as the cure asks for it."""
    if cure in RUNGS:
        return replace(way, payloads=RUNGS[cure])
    if cure is Cure.ASK_DEVICE:
        return replace(way, to_device=True)
    return way
