"""Where a SIP message came from or goes to: the transport address, never the text of Via or Contact."""

from __future__ import annotations

from typing import NamedTuple


class Path(NamedTuple):
    """One signalling path. Hashable and small: it is the key of bindings and transactions.

    A response is sent on the path of its request (RFC 3581, RFC 3261 18.2.2); a request goes to the path that
    a verified REGISTER bound (`devices/binding.py`).
    """

    transport: str
    """``udp``, ``tcp`` or ``tls``."""
    remote_host: str
    remote_port: int
    local_host: str = ""
    """Address of ours that the peer talks to; what goes into Via, Contact and SDP. Empty: not known yet."""
    local_port: int = 0
    connection_id: int = 0
    """TCP/TLS: number of the connection, unique in the process. 0 for UDP."""

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"

    @property
    def peer(self) -> str:
        """``ip:port`` of the far end (`remote_address` of the API)."""
        if ":" in self.remote_host:
            return f"[{self.remote_host}]:{self.remote_port}"
        return f"{self.remote_host}:{self.remote_port}"
