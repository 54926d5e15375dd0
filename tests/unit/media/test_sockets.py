"""Media ports are bound in pairs, or not at all."""

from __future__ import annotations

import socket

import pytest

from gb28181gw.media.reference.sockets import bind_udp_pair
from tests.support.plane import free_port_pair


def test_med32_rtp_and_rtcp_are_bound_as_a_pair() -> None:
    port = free_port_pair()
    rtp, rtcp = bind_udp_pair("127.0.0.1", port)
    with rtp, rtcp:
        assert (rtp.getsockname()[1], rtcp.getsockname()[1]) == (port, port + 1)


def test_med32_f14_a_taken_rtcp_port_leaves_nothing_bound() -> None:
    port = free_port_pair()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port + 1))
        with pytest.raises(OSError, match="in use"):
            bind_udp_pair("127.0.0.1", port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", port))
