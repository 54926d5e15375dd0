"""Plain counters of the SIP transports; the exporter of metrics reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TransportCounters:
    """Owned by `Transports`, shared by its sockets. All of them only ever grow, except the two gauges."""

    received: int = 0
    """Datagrams, and messages of streams."""
    sent: int = 0
    send_failures: int = 0
    """Messages that could not be handed to the kernel: connection gone, unreachable, no such socket."""
    gated: int = 0
    """Datagrams dropped before they were parsed (S-20)."""
    malformed: int = 0
    pings: int = 0
    """CRLF keepalives (RFC 5626 3.5.1, REG-22)."""
    connections_accepted: int = 0
    connections_refused: int = 0
    """Above the limits of connections."""
    handshakes_failed: int = 0
    """Connections to the TLS listener that did not become TLS."""
    closed_idle: int = 0
    """Unverified connections without a message for too long."""
    closed_slow: int = 0
    """Connections that took too long over one message (slowloris)."""
    closed_framing: int = 0
    """Connections whose bytes could not be framed any more."""
    closed_backlog: int = 0
    """Connections whose peer stopped reading."""
    connections: int = 0
    """Gauge: open connections."""
    connections_unverified: int = 0
    """Gauge: those of them that have not proved themselves."""
