"""SIP over TLS (8.2): gateways among themselves, and with Python's ssl and openssl as the other side."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, authority, signed
from tests.support.gateway import GatewayProcess, free_port, running_gateway, simulated_devices, wait_until

LOW, HIGH = "34020100002000000001", "34020200002000000001"
NVR, CAMERA = "34020000001180000001", "34020000001320000001"
SECRET = "tls-chain-secret"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def tls_gateway(
    directory: Path, root: Certificate, *, names: str = "IP:127.0.0.1"
) -> Iterator[tuple[GatewayProcess, int]]:
    """A gateway that listens on TLS too, and that port."""
    directory.mkdir(exist_ok=True)
    own, port = signed(directory, root, names=names), free_port()
    sip = {
        "id": HIGH, "domain": HIGH[:10], "password": SECRET, "listen_tls": f"127.0.0.1:{port}",
        "tls_cert": str(own.cert), "tls_key": str(own.key),
    }  # fmt: skip
    with running_gateway(directory, sip=sip) as gateway:
        yield gateway, port


@contextmanager
def lower_gateway(directory: Path) -> Iterator[GatewayProcess]:
    directory.mkdir()
    with running_gateway(directory, sip={"id": LOW, "domain": LOW[:10], "password": SECRET}) as gateway:
        yield gateway


def join(low: GatewayProcess, port: int, ca: str, host: str = "127.0.0.1") -> None:
    answer = low.post(
        "/uppers",
        {
            "id": HIGH, "domain": HIGH[:10], "host": host, "port": port, "transport": "tls", "tls_ca": ca,
            "password": SECRET, "keepalive_s": 2,
        },
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    assert low.api.put(f"/api/v1/uppers/{HIGH}/channels", json={"all": True}).status_code == 200


def request(method: str, port: int, branch: str) -> bytes:
    lines = (
        f"{method} sip:{HIGH}@127.0.0.1:{port} SIP/2.0",
        f"Via: SIP/2.0/TLS 127.0.0.1:5061;rport;branch=z9hG4bK{branch}",
        f"From: <sip:{NVR}@{HIGH[:10]}>;tag={branch}",
        f"To: <sip:{NVR}@{HIGH[:10]}>",
        f"Call-ID: {branch}@127.0.0.1",
        f"CSeq: 1 {method}",
        f"Contact: <sip:{NVR}@127.0.0.1:5061;transport=tls>",
        "Max-Forwards: 70",
        "Expires: 3600",
        "Content-Length: 0",
    )
    return "\r\n".join((*lines, "", "")).encode()


def test_r062_a_gateway_is_lower_platform_over_tls_and_plays(tmp_path: Path, root: Certificate) -> None:
    with ExitStack() as stack:
        high, port = stack.enter_context(tls_gateway(tmp_path / "high", root))
        low = stack.enter_context(lower_gateway(tmp_path / "low"))
        stack.enter_context(
            simulated_devices(
                low, "--password", SECRET, "--server-id", LOW, "--domain", LOW[:10], "--id", NVR, "--channels", "1"
            )
        )  # fmt: skip
        low.wait_online(NVR, 1)
        join(low, port, str(root.cert))
        assert low.wait_event("upper.registered", upper_id=HIGH)["transport"] == "tls"
        assert high.wait_online(LOW, 1)["transport"] == "tls"
        live = high.live(LOW, CAMERA)
        assert live["state"] == "running" and live["tracks"]
        assert high.api.delete(f"/api/v1/streams/{live['id']}").status_code == 204
        wait_until(lambda: low.get(f"/uppers/{HIGH}")["streams"] == 0, "no stream to be left")


@pytest.mark.parametrize("fault", ["stranger", "other name", "no file"])
def test_s07_r062_a_certificate_that_is_not_the_platforms_gets_no_register(
    tmp_path: Path, root: Certificate, fault: str
) -> None:
    stranger = authority(tmp_path, "stranger")
    with ExitStack() as stack:
        names = "IP:127.0.0.9,DNS:other.example" if fault == "other name" else "IP:127.0.0.1"
        high, port = stack.enter_context(tls_gateway(tmp_path / "high", root, names=names))
        low = stack.enter_context(lower_gateway(tmp_path / "low"))
        ca = {"stranger": str(stranger.cert), "other name": str(root.cert), "no file": "/nowhere/ca.pem"}[
            fault
        ]
        join(low, port, ca)
        failed = low.wait_event("upper.register_failed", upper_id=HIGH)
        said = "tls_ca: /nowhere/ca.pem" if fault == "no file" else "its certificate is refused"
        assert said in failed["detail"]
        found = low.get(f"/uppers/{HIGH}")
        assert found["registered"] is False and said in found["last_error"]
        assert not high.seen("device.enrolled") and high.get("/devices")["total"] == 0


def test_r062_python_ssl_is_answered_and_what_is_no_tls_is_not(tmp_path: Path, root: Certificate) -> None:
    with tls_gateway(tmp_path, root) as (gateway, port):
        context = ssl.create_default_context(cafile=str(root.cert))
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            assert secured.version() in ("TLSv1.2", "TLSv1.3")
            secured.sendall(request("REGISTER", port, "python"))
            answer = secured.recv(65536).decode()
        assert answer.startswith("SIP/2.0 401 ") and "Via: SIP/2.0/TLS 127.0.0.1:5061" in answer
        assert "WWW-Authenticate: Digest" in answer
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.sendall(request("REGISTER", port, "plain"))
            assert not plain.recv(65536).startswith(b"SIP/2.0")
        old = ssl.create_default_context(cafile=str(root.cert))
        with pytest.warns(DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", port), 10) as raw, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(raw, server_hostname="127.0.0.1")
        wait_until(
            lambda: "sip_transport_handshakes_failed_total 2" in gateway.api.get("/metrics").text,
            "both to be counted",
        )


def test_s20_silent_connections_to_the_tls_port_are_limited_for_each_host(
    tmp_path: Path, root: Certificate
) -> None:
    with tls_gateway(tmp_path, root) as (gateway, port), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(12)]
        wait_until(
            lambda: "sip_transport_connections_refused_total 4" in gateway.api.get("/metrics").text,
            "those beyond eight to be refused",
        )
        # The rest say nothing, and are closed when their time for a handshake is over.
        for one in silent:
            one.settimeout(20)
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
        wait_until(
            lambda: "sip_transport_connections_unverified 0" in gateway.api.get("/metrics").text,
            "none to be counted any more",
        )


def test_r062_openssl_s_client_is_answered(tmp_path: Path, root: Certificate) -> None:
    with tls_gateway(tmp_path, root) as (_, port):
        client = subprocess.Popen(
            [
                "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(root.cert),
                "-verify_return_error", "-verify_ip", "127.0.0.1", "-tls1_2", "-quiet",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert client.stdin is not None and client.stdout is not None
        with closing(client.stdin), closing(client.stdout):
            client.stdin.write(request("REGISTER", port, "openssl"))
            client.stdin.flush()
            lines = [client.stdout.readline().decode() for _ in range(2)]
            client.terminate()
            client.wait(10)
        assert lines[0].startswith("SIP/2.0 401 ") and lines[1].startswith("Via: SIP/2.0/TLS ")


def test_r062_a_platform_that_is_python_ssl_gets_a_register_over_tls(
    tmp_path: Path, root: Certificate
) -> None:
    own = signed(tmp_path, root, names="DNS:localhost", name="platform")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    named: list[str] = []
    context.sni_callback = lambda connection, name, old: named.append(name)
    got: list[str] = []

    def serve(listener: socket.socket) -> None:
        raw, _ = listener.accept()
        with raw, context.wrap_socket(raw, server_side=True) as secured:
            data = secured.recv(65536).decode()
            got.append(data)
            kept = [
                line
                for line in data.split("\r\n")
                if line.split(":")[0] in ("Via", "From", "Call-ID", "CSeq")
            ]
            to = next(line for line in data.split("\r\n") if line.startswith("To:"))
            answer = ("SIP/2.0 200 OK", *kept, f"{to};tag=1", "Expires: 3600", "Content-Length: 0", "", "")
            secured.sendall("\r\n".join(answer).encode())
            while secured.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, lower_gateway(tmp_path / "low") as low:
        listener.settimeout(30)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        join(low, listener.getsockname()[1], str(root.cert), host="localhost")
        assert low.wait_event("upper.registered", upper_id=HIGH)["transport"] == "tls"
        assert named == ["localhost"]
        assert got[0].startswith("REGISTER ") and "\r\nVia: SIP/2.0/TLS 127.0.0.1:" in got[0]
    thread.join(10)
    assert not thread.is_alive()
