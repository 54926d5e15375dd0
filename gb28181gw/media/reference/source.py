"""Whom to believe: the media source rule (docs/concepts/media-sources.md) as a pure state machine.

Fed with what an RTP packet says and where it came from, it answers with a `Verdict`. It never looks at
clocks or sockets and does not know what the packets carry; `looks` is the caller's opinion of the payload.

The rule, in short (the numbers are those of the rule):

1. *Latch* on the first source whose two consecutive packets fit the SSRC and the payload type. Expected
   addresses may latch at once; others, in mode ``nat`` only, when no expected one sent within 2 s of the
   ACK, and an expected one that sends later takes over. Mode ``strict``: expected addresses and SSRCs only.
2. An SSRC that was not agreed is accepted from an expected address once the payload was recognised (INV-03).
3. Other sources of a latched stream are dropped.
4. The source moves (REG-18, MED-33, fault row F-07) when the same SSRC and payload type go on elsewhere,
   forward by at most 2,000 for 8 packets, after the old source fell silent.
5. A new SSRC or a jump of the sequence *from the latched source* begins a new epoch after 8 packets (MED-23).

Beyond the rule, against injection during silence (threat S-06): an address whose first packet does not
continue the sequence is refused for ten seconds, so sweeping through all sequence numbers does not find the
window.

Packets that are not decided yet are held, a bounded number of them, and come back with the verdict that
accepts them: the first pack of a stream carries the first key frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Source = tuple[str, int] | tuple[str, int, int]
"""(host, port) of a datagram, (host, port, connection number) of TCP: the two never compare equal."""

LATCH_PACKETS = 2
SWITCH_PACKETS = 8
FORWARD_LIMIT = 2000
BACKWARD_LIMIT = 512
"""A packet that is older than this belongs to another sequence and not to a reordering of this one."""
NEAR = 16
"""Consecutive, seen from a network that reorders."""
_RUN_GAP = 256
"""Packets that may be lost within a run that shall take the stream over."""
GRACE_S = 2.0
SILENT_SAME_HOST_S = 0.2
SILENT_OTHER_HOST_S = 2.0
REFUSED_S = 10.0
_MAX_CANDIDATES = 4
_CANDIDATE_IDLE_S = 1.0
_MAX_REFUSED = 256
_MAX_HELD = 64
_MAX_HELD_BYTES = 1 << 20
_CONFLICT_PER_S = 10


def address(source: Source) -> str:
    """``ip:port`` of a source, for people."""
    host = source[0]
    return f"[{host}]:{source[1]}" if ":" in host else f"{host}:{source[1]}"


class Verdict(Enum):
    """What becomes of the packet."""

    DROP = "drop"
    HOLD = "hold"
    """Not decided; it comes back from `take_held` if its source is accepted."""
    ACCEPT = "accept"
    LATCHED = "latched"
    """The source is believed now; `take_held` has its packets, this one included."""
    SWITCHED = "switched"
    """The same stream goes on from another address; `take_held` as above."""
    EPOCH = "epoch"
    """A new sequence or SSRC of the same source: flush, then `take_held`."""
    TAKEN_OVER = "taken_over"
    """An expected address replaces one that latched by grace: a new generation, then `take_held`."""


class Looks(IntEnum):
    """The caller's opinion of a payload."""

    NOTHING = 0
    """Empty, or no RTP of media."""
    PLAUSIBLE = 1
    """Could be the middle of anything."""
    RECOGNISED = 2
    """Begins as a pack, a PES or a NAL unit begins."""


@dataclass(slots=True)
class _Run:
    """Consecutive packets of one source and SSRC which are not accepted yet."""

    ssrc: int
    payload_type: int
    sequence: int
    at: float
    count: int = 1
    recognised: bool = False
    held: list[bytes] = field(default_factory=list)
    held_bytes: int = 0

    def goes_on(self, ssrc: int, sequence: int) -> bool:
        if ssrc != self.ssrc:
            return False
        step = (sequence - self.sequence) & 0xFFFF
        return step <= NEAR or step >= 0x10000 - NEAR

    def add(self, now: float, sequence: int, looks: Looks, data: bytes) -> None:
        self.at = now
        step = (sequence - self.sequence) & 0xFFFF
        if step == 0:
            return  # the network doubled it
        if step < 0x8000:
            self.sequence = sequence
        self.count += 1
        self.recognised = self.recognised or looks is Looks.RECOGNISED
        self.held.append(data)
        self.held_bytes += len(data)
        while len(self.held) > _MAX_HELD or self.held_bytes > _MAX_HELD_BYTES:
            self.held_bytes -= len(self.held.pop(0))


def _begin(now: float, ssrc: int, payload_type: int, sequence: int, looks: Looks, data: bytes) -> _Run:
    return _Run(
        ssrc,
        payload_type,
        sequence,
        now,
        recognised=looks is Looks.RECOGNISED,
        held=[data],
        held_bytes=len(data),
    )


class HostSet:
    """Addresses, or networks in CIDR form; what is neither is left out."""

    __slots__ = ("_hosts", "_networks")

    def __init__(self, texts: frozenset[str]) -> None:
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            try:
                if "/" in text:
                    self._networks.append(ip_network(text, strict=False))
                else:
                    self._hosts.add(str(ip_address(text)))
            except ValueError:
                continue

    def __bool__(self) -> bool:
        return bool(self._hosts or self._networks)

    def __contains__(self, host: str) -> bool:
        if host in self._hosts:
            return True
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # what a socket of both families says of an IPv4 peer
        return str(address) in self._hosts or any(address in network for network in self._networks)


def ssrc_variant(seen: int, agreed: frozenset[int]) -> str:
    """How an SSRC that was not agreed came about, as far as it is known (INV-03)."""
    if seen == 0:
        return "zero"
    for value in agreed:
        swapped, as_hex = variants_of(value)
        if seen == swapped:
            return "byte_swapped"
        if seen == as_hex:
            return "read_as_hex"
    return "other"


def variants_of(ssrc: int) -> tuple[int, int]:
    """What an SSRC becomes with devices that write it wrongly (INV-03): byte-swapped, its digits read as hex."""
    return int.from_bytes(ssrc.to_bytes(4, "big"), "little"), int(f"{ssrc:010d}", 16) & 0xFFFFFFFF


class SourceGate:
    """The decision for one receiver. `expected` holds addresses or networks in CIDR form."""

    def __init__(
        self,
        *,
        ssrc: int,
        payload_types: frozenset[int],
        expected: frozenset[str] = frozenset(),
        strict: bool = False,
    ) -> None:
        self._agreed = frozenset({ssrc})
        self._payload_types = payload_types
        self._expected = HostSet(expected)
        self._strict = strict
        self._acknowledged_at: float | None = None
        self.source: Source | None = None
        """The latched source."""
        self.ssrc: int | None = None
        """The SSRC that is accepted now."""
        self.sequence = 0
        """The highest sequence number accepted, modulo 2^16."""
        self.last_accepted: float | None = None
        self.by_grace = False
        """Latched on an address that was not expected (rule 1, mode nat)."""
        self._types: set[int] = set()
        self._candidates: dict[Source, _Run] = {}
        self._epoch_run: _Run | None = None
        self._refused: dict[str, float] = {}
        self._held: list[bytes] = []
        self.foreign = 0
        self.conflict = False
        """More than ten foreign packets came within a second since `take_conflict`."""
        self._conflict_second = 0
        self._conflict_count = 0
        self.mismatch: int | None = None
        """An SSRC that fits nothing agreed, seen since `take_mismatch`."""
        self._mismatch_told: set[int] = set()

    # -- what the control plane tells
    # -------------------------------------------------------------------------

    @property
    def agreed(self) -> frozenset[int]:
        return self._agreed

    def agree(self, ssrc: int) -> None:
        """The answer's `y=` (INV-02); the offered one stays good: some answer one and use the other."""
        self._agreed = frozenset({*self._agreed, ssrc}) if len(self._agreed) < 4 else frozenset({ssrc})

    def expect(self, expected: frozenset[str]) -> None:
        self._expected = HostSet(expected)

    def accept_payloads(self, payload_types: frozenset[int]) -> None:
        self._payload_types = payload_types

    def acknowledged(self, now: float) -> None:
        """The ACK was sent: the 2 s of rule 1 begin. Later calls change nothing."""
        if self._acknowledged_at is None:
            self._acknowledged_at = now

    def refuse(self, now: float, ssrc: int) -> None:
        """A packet of an SSRC that cannot be told to belong here, on a port that several share."""
        self._note_mismatch(ssrc)
        self._count_foreign(now)

    def unlatch(self) -> None:
        """The latched TCP connection ended: the next source latches as the first one did."""
        self.source = None
        self.ssrc = None
        self.by_grace = False
        self._epoch_run = None
        self._candidates.clear()
        self._types.clear()

    def forget(self, source: Source) -> None:
        """A source that cannot come back (a closed connection)."""
        self._candidates.pop(source, None)

    # -- packets ---

    def receive(
        self,
        now: float,
        source: Source,
        ssrc: int,
        payload_type: int,
        sequence: int,
        looks: Looks,
        data: bytes,
    ) -> Verdict:
        """Decide one RTP packet (RTCP is filtered before)."""
        if source == self.source:
            return self._from_latched(now, ssrc, payload_type, sequence, looks, data)
        if looks is Looks.NOTHING:
            return self._drop(now)
        if self.source is None:
            return self._before_latch(now, source, ssrc, payload_type, sequence, looks, data)
        return self._from_other(now, self.source, source, ssrc, payload_type, sequence, looks, data)

    def take_held(self) -> list[bytes]:
        """The packets that the last verdict accepted, in order of arrival."""
        held, self._held = self._held, []
        return held

    def take_conflict(self) -> bool:
        conflict, self.conflict = self.conflict, False
        return conflict

    def take_mismatch(self) -> int | None:
        """An SSRC to report; each value once."""
        mismatch, self.mismatch = self.mismatch, None
        return mismatch

    def expects(self, source: Source) -> bool:
        """May this address latch at once? With nothing known every address may, except in strict."""
        if not self._expected:
            return not self._strict
        return source[0] in self._expected

    def _from_latched(
        self, now: float, ssrc: int, payload_type: int, sequence: int, looks: Looks, data: bytes
    ) -> Verdict:
        step = (sequence - self.sequence) & 0xFFFF
        if ssrc == self.ssrc and (step <= FORWARD_LIMIT or step >= 0x10000 - BACKWARD_LIMIT):
            if step <= FORWARD_LIMIT:
                self.sequence = sequence
            self.last_accepted = now
            run = self._epoch_run
            if run is not None and (self.ssrc in self._agreed or run.ssrc not in self._agreed):
                self._epoch_run = None
            if self._candidates:
                self._candidates.clear()
            return Verdict.ACCEPT
        if looks is Looks.NOTHING:
            return self._drop(now)
        run = self._epoch_run
        if run is not None and run.goes_on(ssrc, sequence):
            run.add(now, sequence, looks, data)
        else:
            if ssrc != self.ssrc:
                # Two SSRCs from one address are two senders behind one NAT, or an old session (MED-30): the
                # locked one ends the other's run by going on, unless the other is the one that was agreed.
                self._note_mismatch(ssrc)
            self._epoch_run = run = _begin(now, ssrc, payload_type, sequence, looks, data)
        if run.count < SWITCH_PACKETS:
            return Verdict.HOLD
        if self._strict and ssrc not in self._agreed:
            self._epoch_run = None
            return self._drop(now)
        self._lock(now, self.source, run)
        return Verdict.EPOCH

    def _before_latch(
        self,
        now: float,
        source: Source,
        ssrc: int,
        payload_type: int,
        sequence: int,
        looks: Looks,
        data: bytes,
    ) -> Verdict:
        expected = self.expects(source)
        fits = ssrc in self._agreed
        if not fits:
            self._note_mismatch(ssrc)
        if not ((expected and fits) if self._strict else (expected or fits)):
            return self._drop(now)
        run = self._candidate(now, source, ssrc, payload_type, sequence, looks, data)
        if run is None:
            return self._drop(now)
        known_type = run.payload_type in self._payload_types
        if run.count < LATCH_PACKETS or not (run.recognised or (fits and known_type)):
            return Verdict.HOLD
        if not expected and not self._grace_is_over(now):
            return Verdict.HOLD
        self.by_grace = not expected
        self._lock(now, source, run)
        return Verdict.LATCHED

    def _from_other(
        self,
        now: float,
        latched: Source,
        source: Source,
        ssrc: int,
        payload_type: int,
        sequence: int,
        looks: Looks,
        data: bytes,
    ) -> Verdict:
        self._count_foreign(now)
        if self.by_grace and ssrc in self._agreed and self.expects(source):
            run = self._candidate(now, source, ssrc, payload_type, sequence, looks, data)
            if run is None or run.count < LATCH_PACKETS:
                return Verdict.HOLD if run is not None else Verdict.DROP
            if run.recognised or run.payload_type in self._payload_types:
                self.by_grace = False
                self.foreign -= run.count
                self._lock(now, source, run)
                return Verdict.TAKEN_OVER
            return Verdict.HOLD
        if self._strict and not self.expects(source):
            return Verdict.DROP
        return self._may_switch(now, latched, source, ssrc, payload_type, sequence, looks, data)

    def _may_switch(
        self,
        now: float,
        latched: Source,
        source: Source,
        ssrc: int,
        payload_type: int,
        sequence: int,
        looks: Looks,
        data: bytes,
    ) -> Verdict:
        """Rule 4."""
        same_host = source[0] == latched[0]
        key = f"{source[0]}:{source[1]}" if same_host else source[0]
        until = self._refused.get(key)
        if until is not None:
            if now < until:
                return Verdict.DROP
            del self._refused[key]
        silent = now - (self.last_accepted or 0.0)
        run = self._candidates.get(source)
        origin = run.sequence if run is not None else self.sequence
        step = (sequence - origin) & 0xFFFF
        goes_on = ssrc == self.ssrc and payload_type in self._types
        if goes_on and (step == 0 or step >= 0x10000 - NEAR):
            return Verdict.DROP  # reordered or doubled on the way: tells nothing
        if not goes_on or step > (FORWARD_LIMIT if run is None else _RUN_GAP):
            self._candidates.pop(source, None)
            self._refuse(now, key)
            return Verdict.DROP
        if run is None:
            run = self._candidate(now, source, ssrc, payload_type, sequence, looks, data)
            if run is None:
                return Verdict.DROP
        else:
            run.add(now, sequence, looks, data)
        near = same_host or (bool(self._expected) and self.expects(source))
        if run.count < SWITCH_PACKETS or silent < (SILENT_SAME_HOST_S if near else SILENT_OTHER_HOST_S):
            return Verdict.HOLD
        self.by_grace = self.by_grace and not self.expects(source)
        self.foreign -= run.count
        self._lock(now, source, run)
        return Verdict.SWITCHED

    def _candidate(
        self,
        now: float,
        source: Source,
        ssrc: int,
        payload_type: int,
        sequence: int,
        looks: Looks,
        data: bytes,
    ) -> _Run | None:
        """The run of a source with this packet added; None when too many sources try."""
        run = self._candidates.get(source)
        if run is not None and run.goes_on(ssrc, sequence):
            run.add(now, sequence, looks, data)
            return run
        if run is None and len(self._candidates) >= _MAX_CANDIDATES:
            # Neither the dead nor strangers who came first may lock an expected address out.
            gone = next((s for s, r in self._candidates.items() if now - r.at > _CANDIDATE_IDLE_S), None)
            if gone is None and self.expects(source):
                gone = next((s for s in self._candidates if not self.expects(s)), None)
            if gone is None:
                return None
            del self._candidates[gone]
        run = _begin(now, ssrc, payload_type, sequence, looks, data)
        self._candidates[source] = run
        return run

    def _grace_is_over(self, now: float) -> bool:
        """Rule 1: the expected addresses had 2 s since the ACK and did not send anything that fits."""
        if self._acknowledged_at is None or now - self._acknowledged_at < GRACE_S:
            return False
        return not any(self.expects(source) for source in self._candidates)

    def _lock(self, now: float, source: Source | None, run: _Run) -> None:
        self.source = source
        self.ssrc = run.ssrc
        self.sequence = run.sequence
        self.last_accepted = now
        self._types = {run.payload_type, *self._payload_types}
        self._held = run.held
        self._epoch_run = None
        self._candidates.clear()

    def _refuse(self, now: float, key: str) -> None:
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = now + REFUSED_S

    def _note_mismatch(self, ssrc: int) -> None:
        if ssrc not in self._agreed and ssrc not in self._mismatch_told and len(self._mismatch_told) < 16:
            self._mismatch_told.add(ssrc)
            self.mismatch = ssrc

    def _drop(self, now: float) -> Verdict:
        self._count_foreign(now)
        return Verdict.DROP

    def _count_foreign(self, now: float) -> None:
        self.foreign += 1
        second = int(now)
        if second != self._conflict_second:
            self._conflict_second, self._conflict_count = second, 0
        self._conflict_count += 1
        if self._conflict_count == _CONFLICT_PER_S + 1:
            self.conflict = True
