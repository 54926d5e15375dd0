from __future__ import annotations

import errno
import socket

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.transport.binding import bind_tcp, bind_udp, set_keepalive


@pytest.mark.parametrize(("bind", "transport"), [(bind_udp, "UDP"), (bind_tcp, "TCP")])
def test_port_in_use_is_a_sentence_with_the_address(bind: object, transport: str) -> None:
    with bind("127.0.0.1", 0) as first:  # type: ignore[operator]
        port = first.getsockname()[1]
        with pytest.raises(GatewayError) as caught:
            bind("127.0.0.1", port)  # type: ignore[operator]
    assert caught.value.code == "gb.config.port_in_use"
    assert f"{transport} 127.0.0.1:{port}" in caught.value.detail


@pytest.mark.parametrize("bind", [bind_udp, bind_tcp])
def test_net02_foreign_address_is_a_sentence_with_the_address(bind: object) -> None:
    with pytest.raises(GatewayError) as caught:
        bind("192.0.2.1", 5060)  # type: ignore[operator]
    assert caught.value.code == "gb.config.address_unavailable"
    assert "192.0.2.1:5060" in caught.value.detail
    assert "advertise" in caught.value.row.hint


def test_missing_right_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    class Refusing(socket.socket):
        bind = refuse

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(GatewayError, match="below 1024"):
        bind_udp("::1", 5060)


def test_udp_buffer_is_enlarged_as_far_as_the_kernel_allows() -> None:
    with bind_udp("127.0.0.1", 0) as bound, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        before = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= before
        assert not bound.getblocking()


def test_f08_keepalive_of_connections_is_30_10_3() -> None:
    with bind_tcp("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as connection:
        set_keepalive(connection)
        option = connection.getsockopt
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


def test_listener_port_is_free_again_at_once() -> None:
    with bind_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted = _accept(listener)
            accepted.close()  # this side closes first and keeps TIME_WAIT
    bind_tcp("127.0.0.1", port).close()
    assert port > 0


def _accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(5)
    return listener.accept()[0]
