"""One UDP and TCP port for all receivers, told apart by SSRC and source (`[media] shared_port`).

Theory of operation. A packet goes to one receiver and is judged there by the source rule as on a port of its own
(docs/concepts/media-sources.md). Which one: that which latched its source and SSRC; else the one that agreed its SSRC,
or of whose SSRC it is a known variant (byte-swapped, read as hex: INV-03); else the only one that latched its source,
for a new epoch. What fits none is dropped (threat S-06); if one waiting receiver expects its address, that one is told
of the SSRC, so that a call fails with the reason. A TCP connection belongs to the receiver that its first RTP packet
names, and from then on it is a connection of that receiver like any other.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable
from typing import cast

from gb28181gw.media.reference.receiver import ReceiverCore
from gb28181gw.media.reference.receiver_tcp import PROVE_S, TcpReceiver, adopt_connection
from gb28181gw.media.reference.receiver_udp import UdpReceiver
from gb28181gw.media.reference.sockets import bind_tcp, bind_udp_pair
from gb28181gw.media.reference.source import Source, Verdict, variants_of
from gb28181gw.media.wire.exceptions import FramingError
from gb28181gw.media.wire.rfc4571 import Framer

MAX_UNNAMED = 256
"""Connections that did not show an RTP packet yet, and of one host:"""
MAX_UNNAMED_OF_HOST = 16
_LOOK_S = 0.05
_MAX_UNNAMED_BYTES = 128 * 1024
_SETTLED = frozenset({Verdict.ACCEPT, Verdict.HOLD, Verdict.DROP})
_RECEIVER_REPORT = 201


class SharedPort:
    """Owner of the sockets and of the table of receivers on them."""

    def __init__(self, host: str, port: int) -> None:
        """Bind, all or nothing. Raises OSError."""
        self.host = host
        self.port = port
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._members: dict[int, tuple[ReceiverCore, TcpReceiver]] = {}
        self._by_ssrc: dict[int, list[ReceiverCore]] = {}
        """Agreed SSRCs and their known variants."""
        self._latched: dict[tuple[Source, int], ReceiverCore] = {}
        self._keys: dict[int, tuple[Source, int]] = {}
        """The place of each receiver in `_latched`."""
        self._by_source: dict[Source, list[ReceiverCore]] = {}
        """The same by source alone: channels of one recorder share it."""
        self._looked_at = 0.0
        self._unnamed: set[_Unnamed] = set()
        self.dropped = 0
        """Packets and connections of nobody."""
        self._sockets: list[socket.socket] = [*bind_udp_pair(host, port)]
        try:
            self._sockets.append(bind_tcp(host, port))
        except OSError:
            self.close()
            raise

    async def start(self) -> None:
        """Begin to read. On an error nothing stays open."""
        loop = asyncio.get_running_loop()
        try:
            rtp, rtcp, listener = self._sockets
            self._rtp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=rtp)
            self._rtcp, _ = await loop.create_datagram_endpoint(lambda: _Control(self), sock=rtcp)
            self._server = await loop.create_server(lambda: _Unnamed(self), sock=listener, backlog=128)
            self._sockets.clear()  # the transports own them now
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        for transport in (self._rtp, self._rtcp):
            if transport is not None:
                transport.abort()
        self._rtp = self._rtcp = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for sock in self._sockets:
            sock.close()
        for connection in list(self._unnamed):
            connection.close()

    # -- receivers

    def is_agreed(self, ssrc: int) -> bool:
        """Some receiver was offered this very SSRC."""
        return any(ssrc in core.gate.agreed for core in self._by_ssrc.get(ssrc, ()))

    def join(self, core: ReceiverCore, tcp: TcpReceiver) -> UdpReceiver:
        """A receiver takes part from now on; what it sends over UDP goes through the result."""
        assert self._rtp is not None and self._rtcp is not None  # noqa: S101 - started
        self._members[core.id] = (core, tcp)
        self._index(core)
        return UdpReceiver(core, borrowed=(self._rtp, self._rtcp))

    def agreed(self, core: ReceiverCore) -> None:
        """Its SSRCs have changed."""
        self._forget_ssrcs(core)
        self._index(core)

    def leave(self, core: ReceiverCore) -> None:
        """It is closed. Idempotent."""
        if self._members.pop(core.id, None) is not None:
            self._forget_ssrcs(core)
            self._unsettle(core)

    def _index(self, core: ReceiverCore) -> None:
        for ssrc in core.gate.agreed:
            for value in (ssrc, *variants_of(ssrc)):
                cores = self._by_ssrc.setdefault(value, [])
                if core not in cores:
                    cores.append(core)

    def _forget_ssrcs(self, core: ReceiverCore) -> None:
        for ssrc in [ssrc for ssrc, cores in self._by_ssrc.items() if core in cores]:
            cores = self._by_ssrc[ssrc]
            cores.remove(core)
            if not cores:
                del self._by_ssrc[ssrc]

    # -- packets

    def datagram(self, data: bytes, source: Source) -> None:
        if len(data) >= 8 and 200 <= data[1] <= 204:
            self.control(data, source)
            return
        if len(data) < 12:
            self.dropped += 1
            return
        ssrc = int.from_bytes(data[8:12], "big")
        core = self._latched.get((source, ssrc))
        if core is None or core.gate.source != source or core.gate.ssrc != ssrc:
            core = self._find(source, ssrc)
            if core is None:
                self.dropped += 1
                return
        if core.packet(data, source) not in _SETTLED:
            self._settle(core)

    def control(self, data: bytes, source: Source) -> None:
        """RTCP: to the receiver whose sender says it, or to those that send (`through`) and may be meant."""
        if len(data) < 8:
            return
        sender = int.from_bytes(data[4:8], "big")
        for core in tuple(self._by_ssrc.get(sender, ())):
            if core.gate.ssrc == sender and core.gate.source is not None and core.gate.source[0] == source[0]:
                core.rtcp_packet(data, source)
                return
        if data[1] == _RECEIVER_REPORT:
            for core, _ in tuple(self._members.values()):
                if core.report_sinks:
                    core.rtcp_packet(data, source)

    def _find(self, source: Source, ssrc: int) -> ReceiverCore | None:
        cores = self._by_ssrc.get(ssrc)
        if cores:
            return _best(cores, source, ssrc)
        of_source = [core for core in self._by_source.get(source, ()) if core.gate.source == source]
        if len(of_source) == 1:
            return of_source[0]
        if not of_source:
            self._tell_refused(source, ssrc)
        return None

    def _tell_refused(self, source: Source, ssrc: int) -> None:
        """If just one receiver may be meant. Looked at now and then only: it takes all receivers, and a flood of
        packets of nobody must cost little."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        waiting = [
            core
            for core, _ in self._members.values()
            if core.gate.source is None and core.spec.expected_hosts and core.gate.expects(source)
        ]
        if len(waiting) == 1:
            waiting[0].refused(ssrc, source)

    def _settle(self, core: ReceiverCore) -> None:
        """It latched, or its SSRC changed."""
        gate = core.gate
        if gate.source is None or gate.ssrc is None or core.id not in self._members:
            return
        self._unsettle(core)
        key = (gate.source, gate.ssrc)
        self._keys[core.id] = key
        self._latched[key] = core
        self._by_source.setdefault(gate.source, []).append(core)

    def _unsettle(self, core: ReceiverCore) -> None:
        key = self._keys.pop(core.id, None)
        if key is None:
            return
        if self._latched.get(key) is core:
            del self._latched[key]
        others = self._by_source[key[0]]
        others.remove(core)
        if not others:
            del self._by_source[key[0]]

    # -- connections

    def named(
        self, connection: _Unnamed, source: Source, ssrc: int
    ) -> tuple[ReceiverCore, TcpReceiver] | None:
        """The receiver that a connection with this SSRC belongs to."""
        self._unnamed.discard(connection)
        cores = self._by_ssrc.get(ssrc)
        if not cores:
            self._tell_refused(source, ssrc)
            self.dropped += 1
            return None
        return self._members[_best(cores, source, ssrc).id]

    def made(self, connection: _Unnamed) -> bool:
        """Room for a connection of which nothing is known yet?"""
        hosts = Counter(other.source[0] for other in self._unnamed)
        if len(self._unnamed) >= MAX_UNNAMED or hosts[connection.source[0]] >= MAX_UNNAMED_OF_HOST:
            self.dropped += 1
            return False
        self._unnamed.add(connection)
        return True

    def gone(self, connection: _Unnamed) -> None:
        self._unnamed.discard(connection)

    def tick(self, now: float) -> None:
        """Close connections that did not say in time whose they are."""
        for connection in list(self._unnamed):
            if now - connection.since > PROVE_S:
                connection.close()


def _best(cores: Iterable[ReceiverCore], source: Source, ssrc: int) -> ReceiverCore:
    """Of several, which happens when a device answers with an SSRC of its own: who knows the source best."""

    def rank(core: ReceiverCore) -> tuple[bool, bool, bool, bool]:
        gate = core.gate
        return (
            ssrc not in gate.agreed,
            gate.source != source,
            not gate.expects(source),
            gate.source is not None,
        )

    return min(cores, key=rank)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: SharedPort) -> None:
        self._take = owner.datagram

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """An ICMP answer to one of our reports."""


class _Control(asyncio.DatagramProtocol):
    def __init__(self, owner: SharedPort) -> None:
        self._take = owner.control

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """As for RTP."""


class _Unnamed(asyncio.Protocol):
    """A connection until its first RTP packet."""

    def __init__(self, owner: SharedPort) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._framer = Framer()
        self._bytes = b""
        self.since = 0.0
        self.source: Source = ("", 0, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.since = asyncio.get_running_loop().time()
        peer = transport.get_extra_info("peername") or ("", 0)
        self.source = (peer[0], peer[1], 0)
        if not self._owner.made(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        try:
            packets = self._framer.feed(data)
        except FramingError:
            self.close()
            return
        for packet in packets:
            if packet is not None and len(packet) >= 12 and not 200 <= packet[1] <= 204:
                self._name(int.from_bytes(packet[8:12], "big"))
                return
        if len(self._bytes) > _MAX_UNNAMED_BYTES:
            self.close()

    def _name(self, ssrc: int) -> None:
        found = self._owner.named(self, self.source, ssrc)
        if found is None or self._transport is None:
            self.close()
            return
        core, tcp = found
        adopt_connection(self._transport, tcp, core, self._bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.gone(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
