"""What `gb28181gw check` looks at: each check answers with findings, sentences that name the key or the setting."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gb28181gw.cli.offloads import has_gro, has_gso
from gb28181gw.clock import clock_synchronised

if TYPE_CHECKING:
    from gb28181gw.settings import HostPort, Settings


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It runs, but not as well as it could."""
    ERROR = "error"
    """It does not run, or not for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    name: str
    """The key or the property of the host."""
    detail: str


_TRANSCODE_CORES = 0.35
_TRANSCODE_MB = 80


def _ok(name: str, detail: str) -> Finding:
    return Finding(level=Level.OK, name=name, detail=detail)


def _warning(name: str, detail: str) -> Finding:
    return Finding(level=Level.WARNING, name=name, detail=detail)


def _error(name: str, detail: str) -> Finding:
    return Finding(level=Level.ERROR, name=name, detail=detail)


RMEM_MAX: Final = Path("/proc/sys/net/core/rmem_max")
WMEM_MAX: Final = Path("/proc/sys/net/core/wmem_max")
EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RMEM_WANTED: Final = 4 * 1024 * 1024
_WMEM_WANTED: Final = 1024 * 1024
_FDS_WANTED: Final = 4096
_FREE_BYTES_WANTED: Final = 512 * 1024 * 1024
_SAMPLED_PORTS: Final = 50
_EARLIEST_SANE: Final = 1_704_067_200
"""2024-01-01: a host clock before it was never set."""


# ---------------------------------------------------------------- network


def check_listeners(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether each listener can be bound; `running`: the ports are held by our own instance."""
    wanted: list[tuple[str, HostPort, tuple[socket.SocketKind, ...]]] = [
        ("sip.listen", settings.sip.address, (socket.SOCK_DGRAM, socket.SOCK_STREAM)),
        ("media.http", settings.media.http_address, (socket.SOCK_STREAM,)),
        ("http.listen", settings.http.address, (socket.SOCK_STREAM,)),
    ]
    if settings.sip.tls_address is not None:
        wanted.append(("sip.listen_tls", settings.sip.tls_address, (socket.SOCK_STREAM,)))
    if settings.media.shared_port:
        from gb28181gw.settings import HostPort

        shared = HostPort(settings.media.listen, settings.media.shared_port)
        wanted.append(("media.shared_port", shared, (socket.SOCK_DGRAM, socket.SOCK_STREAM)))
    for key, address, kinds in wanted:
        problem = next(filter(None, (bind_problem(address.host, address.port, kind) for kind in kinds)), None)
        if problem is None:
            yield _ok(key, f"{address} is free.")
        elif problem == errno.EADDRINUSE and running:
            yield _ok(key, f"{address} is held by the gateway that runs with this configuration.")
        else:
            yield _error(key, bind_sentence(str(address), problem))
    problem = bind_problem(settings.media.listen, 0, socket.SOCK_DGRAM)
    if problem is not None:
        yield _error("media.listen", bind_sentence(settings.media.listen, problem))


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """Whether SIP over TLS can use its certificate."""
    from gb28181gw.errors import GatewayError
    from gb28181gw.transport.tls import server_context

    sip = settings.sip
    if not sip.listen_tls:
        return
    try:
        server_context(sip.tls_cert, sip.tls_key)
    except GatewayError as error:
        yield _error("sip.tls_cert", error.detail)
    else:
        yield _ok("sip.tls_cert", "The certificate and its key belong together.")


def bind_problem(host: str, port: int, kind: socket.SocketKind) -> int | None:
    """None when it can be bound, else the errno."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        try:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            return error.errno or errno.EIO
    return None


def bind_sentence(address: str, problem: int) -> str:
    """What it means and what to do."""
    if problem == errno.EADDRINUSE:
        return f"{address} is in use by another program: stop that, or use another port."
    if problem == errno.EADDRNOTAVAIL:
        return (
            f"{address} is no address of this host: bind one that is, or 0.0.0.0; "
            "a public address that a router translates belongs into advertise."
        )
    if problem == errno.EACCES:
        return f"{address} may not be bound by this user: ports below 1024 need CAP_NET_BIND_SERVICE."
    return f"{address} cannot be bound: {os.strerror(problem)}."


def check_media_ports(settings: Settings, *, running: bool, deep: bool) -> Iterator[Finding]:
    """Whether other programs sit in the range; every port with `deep`, else a sample."""
    ports = settings.media.port_range
    step = 1 if deep else max(1, (ports.last - ports.first) // _SAMPLED_PORTS)
    looked_at = range(ports.first, ports.last + 1, step)
    taken = [
        port
        for port in looked_at
        if any(
            bind_problem(settings.media.listen, port, kind) == errno.EADDRINUSE
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
    ]
    name = "media.ports"
    if len(taken) == len(looked_at) and not running:
        yield _error(name, f"All {len(looked_at)} ports looked at are in use: choose another range.")
    elif taken and not running:
        yield _warning(
            name,
            f"{len(taken)} of {len(looked_at)} ports looked at are in use (first {taken[0]}); they are skipped.",
        )
    else:
        yield _ok(name, f"{settings.media.ports} has room for {ports.pairs} streams at a time.")
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, EPHEMERAL.read_text().split())
        if ports.first <= last and first <= ports.last:
            yield _warning(
                name,
                f"The host gives ports {first}-{last} to any program that asks for one, and media.ports overlaps: "
                f"reserve them with 'sysctl -w net.ipv4.ip_local_reserved_ports={ports.first}-{ports.last}'.",
            )


def check_plane(settings: Settings) -> Iterator[Finding]:
    """Which media plane runs, and what the kernel does for it."""
    from gb28181gw.media import native

    name = "media.plane"
    if settings.media.plane == "python":
        yield _ok(name, "The Python media plane runs, as configured.")
    elif not native.is_built():
        yield _warning(
            name,
            f"The native media plane was not built ({native.why_not()}); the Python plane runs, which carries "
            "fewer streams. Install g++ and python3-dev and install gb28181gw again.",
        )
    else:
        workers = settings.media.workers or len(os.sched_getaffinity(0))
        merging = "merges" if native.has_gro() else "does not merge"
        yield _ok(
            name,
            f"The native media plane runs with {workers} threads; the kernel {merging} datagrams (UDP GRO).",
        )


def check_transcoding(settings: Settings) -> Iterator[Finding]:
    """What `[media] transcode` may cost when all that it allows is used; measured by `bench.webrtc`."""
    allowed, name = settings.media.transcode, "media.transcode"
    cores = len(os.sched_getaffinity(0))
    if not allowed:
        return
    detail = (
        f"{allowed} streams of H.265 may be made into H.264: some {allowed * _TRANSCODE_CORES:.1f} of {cores} CPU "
        f"cores and {allowed * _TRANSCODE_MB} MB at 1920x1080 with 25 pictures a second, more for lively pictures."
    )
    yield _warning(name, detail) if allowed * _TRANSCODE_CORES > cores / 2 else _ok(name, detail)


def check_store(settings: Settings) -> Iterator[Finding]:
    """The library for `[recording.s3]` is an extra. Whether the store answers, the log tells."""
    from gb28181gw.app.gateway import upload_plan
    from gb28181gw.errors import GatewayError

    s3, name = settings.recording.s3, "recording.s3"
    if not s3.bucket:
        return
    try:
        upload_plan(s3)
    except GatewayError as error:
        yield _error(name, error.detail)
    else:
        yield _ok(name, f"Recordings are brought to {s3.endpoint.rstrip('/')}/{s3.bucket}.")


def check_socket_buffers() -> Iterator[Finding]:
    """UDP bursts of key frames need room in the kernel, coming and going."""
    for file, wanted, what in (
        (RMEM_MAX, _RMEM_WANTED, "come in bursts"),
        (WMEM_MAX, _WMEM_WANTED, "leave in bursts"),
    ):
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):
            continue
        name = f"net.core.{file.name}"
        if limit < wanted:
            yield _warning(
                name,
                f"{limit} bytes is little for key frames that {what} over UDP: "
                f"'sysctl -w {name}={wanted}', and the same line in /etc/sysctl.d for the next boot.",
            )
        else:
            yield _ok(name, f"{limit} bytes.")


def check_offloads() -> Iterator[Finding]:
    """Fewer system calls a packet; everything works without them. No sysctl brings them: the kernel has them or not."""
    for name, present, what, since in (
        ("UDP GRO", has_gro(), "merges datagrams that come together", "5.0"),
        ("UDP GSO", has_gso(), "sends many datagrams by one call", "4.18"),
    ):
        if present:
            yield _ok(name, f"The kernel {what}.")
        else:
            yield _warning(
                name,
                f"The kernel does not do it here; media costs more CPU. Linux {since} and newer have it; "
                "some sandboxes of containers hide it.",
            )


# ---------------------------------------------------------------- host


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    """Writable, private, and with room; nothing is left behind."""
    path, name = settings.data_dir, "data_dir"
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield _error(name, f"{existing} is not a directory.")
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield _error(
            name, f"{existing} cannot be written by this user: give it write access, or change data_dir."
        )
        return
    free = shutil.disk_usage(existing).free
    if free < _FREE_BYTES_WANTED:
        yield _warning(name, f"Only {free // 1_048_576} MiB are free at {existing.resolve()}.")
    else:
        verb = "is writable" if existing == path else "will be made"
        yield _ok(name, f"{path.resolve()} {verb}.")
    yield from _check_secrets(settings)


def _check_secrets(settings: Settings) -> Iterator[Finding]:
    from gb28181gw.access.secrets import read_secrets
    from gb28181gw.errors import GatewayError

    try:
        read_secrets(settings.secrets_path)
    except FileNotFoundError:
        yield _ok("secrets.toml", "The first start makes it.")
    except GatewayError as error:
        yield _error("secrets.toml", error.detail)
    else:
        yield _ok("secrets.toml", "It is there, and only its owner can read it.")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Deep only: SQLite's own check of the file, without changing it."""
    import sqlite3

    path, name = settings.database_path, "database"
    if not path.exists():
        yield _ok(name, "The first start makes it.")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        yield _error(name, f"{path} cannot be read: {error}.")
        return
    if answer == "ok":
        yield _ok(name, f"{path} is sound.")
    else:
        yield _error(name, f"{path} is damaged ({answer}): restore a copy, or move it away to begin anew.")


def check_files() -> Iterator[Finding]:
    """Every stream and every viewer is a file descriptor or more."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    name = "open files"
    if soft != resource.RLIM_INFINITY and soft < _FDS_WANTED:
        yield _warning(
            name, f"The limit is {soft}: raise it with 'ulimit -n 65536' or LimitNOFILE= of systemd."
        )
    else:
        yield _ok(name, f"The limit is {soft}.")


def check_clock(settings: Settings, now: float | None = None) -> Iterator[Finding]:
    """Cameras take their time from us."""
    name = "clock"
    wall = time.time() if now is None else now
    if wall < _EARLIEST_SANE:
        yield _error(name, "The host's clock was never set; cameras would take their time from it.")
    elif settings.sip.date != "off" and clock_synchronised() is False:
        yield _warning(
            name,
            "The host's clock is not synchronised; cameras take their time from it: start chrony or timesyncd.",
        )
    else:
        yield _ok(name, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall)))
