"""What `check` says of a host."""

from __future__ import annotations

import errno
import resource
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.cli import host, offloads
from gb28181gw.cli.host import (
    Finding,
    Level,
    bind_problem,
    bind_sentence,
    check_certificate,
    check_clock,
    check_data_dir,
    check_database,
    check_files,
    check_media_ports,
    check_offloads,
    check_plane,
    check_socket_buffers,
    check_transcoding,
)
from gb28181gw.media import native
from gb28181gw.settings import Settings, load_settings
from tests.support.certificates import authority


def settings(tmp_path: Path, **sections: Any) -> Settings:
    media = {"listen": "127.0.0.1", **sections.pop("media", {})}
    overrides = {"data_dir": str(tmp_path / "data"), "media": media, **sections}
    return load_settings(environ={}, overrides=overrides)


def levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


def test_each_reason_why_an_address_cannot_be_bound_has_its_sentence() -> None:
    assert "stop that, or use another port" in bind_sentence("a:1", errno.EADDRINUSE)
    assert "belongs into advertise" in bind_sentence("a:1", errno.EADDRNOTAVAIL)
    assert "CAP_NET_BIND_SERVICE" in bind_sentence("a:1", errno.EACCES)
    assert bind_sentence("a:1", errno.EIO).startswith("a:1 cannot be bound: ")


def test_r062_check_looks_at_the_certificate_of_sip_over_tls(tmp_path: Path) -> None:
    one, other = authority(tmp_path, "one"), authority(tmp_path, "other")

    def found(cert: Path, key: Path) -> list[Level]:
        sip = {"listen_tls": "127.0.0.1:5061", "tls_cert": str(cert), "tls_key": str(key)}
        return levels(list(check_certificate(settings(tmp_path, sip=sip))))

    assert found(one.cert, one.key) == [Level.OK]
    assert found(one.cert, other.key) == [Level.ERROR]
    assert list(check_certificate(settings(tmp_path))) == []


def test_bind_problem() -> None:
    assert bind_problem("127.0.0.1", 0, socket.SOCK_STREAM) is None
    assert bind_problem("192.0.2.1", 0, socket.SOCK_DGRAM) == errno.EADDRNOTAVAIL
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert bind_problem("127.0.0.1", taken.getsockname()[1], socket.SOCK_STREAM) == errno.EADDRINUSE


def test_media_ports_in_use_are_told_and_are_an_error_when_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {20000, 20001}

    def bind(_: str, port: int, __: object) -> int | None:
        return errno.EADDRINUSE if port in taken else None

    monkeypatch.setattr(host, "bind_problem", bind)
    wide = settings(tmp_path, media={"ports": "20000-20003"})
    narrow = settings(tmp_path, media={"ports": "20000-20001"})
    some = next(iter(check_media_ports(wide, running=False, deep=True)))
    every = next(iter(check_media_ports(narrow, running=False, deep=True)))
    own = next(iter(check_media_ports(narrow, running=True, deep=True)))
    assert (some.level, some.name) == (Level.WARNING, "media.ports")
    assert "2 of 4 ports looked at are in use (first 20000)" in some.detail
    assert every.level is Level.ERROR
    assert own.level is Level.OK


def test_ports_that_the_host_gives_away_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "range"
    file.write_text("32768\t60999\n")
    monkeypatch.setattr(host, "EPHEMERAL", file)
    overlapping = settings(tmp_path, media={"ports": "40000-40099"})
    found = list(check_media_ports(overlapping, running=False, deep=False))
    assert levels(found)[-1] is Level.WARNING
    assert "ip_local_reserved_ports=40000-40099" in found[-1].detail
    apart = settings(tmp_path, media={"ports": "20000-20099"})
    assert len(list(check_media_ports(apart, running=False, deep=False))) == 1


def test_the_socket_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive, send = tmp_path / "rmem_max", tmp_path / "wmem_max"
    monkeypatch.setattr(host, "RMEM_MAX", receive)
    monkeypatch.setattr(host, "WMEM_MAX", send)
    assert list(check_socket_buffers()) == []
    receive.write_text("212992\n")
    send.write_text("212992\n")
    small = list(check_socket_buffers())
    assert levels(small) == [Level.WARNING, Level.WARNING]
    assert "sysctl -w net.core.rmem_max=4194304" in small[0].detail
    assert "sysctl -w net.core.wmem_max=1048576" in small[1].detail
    receive.write_text("4194304\n")
    send.write_text("4194304\n")
    assert levels(list(check_socket_buffers())) == [Level.OK, Level.OK]


def test_offloads_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(list(check_offloads())) == [
        Level.OK if present else Level.WARNING for present in (offloads.has_gro(), offloads.has_gso())
    ]
    monkeypatch.setattr(offloads, "UDP_SEGMENT", 9999)  # a kernel that does not know it
    assert not offloads.has_gro()
    assert not offloads.has_gso()
    found = list(check_offloads())
    assert levels(found) == [Level.WARNING, Level.WARNING]
    assert "Linux 5.0 and newer have it" in found[0].detail


def test_the_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = settings(tmp_path)
    found = list(check_data_dir(missing))
    assert levels(found) == [Level.OK, Level.OK]
    assert "will be made" in found[0].detail
    assert not missing.data_dir.exists()
    missing.data_dir.touch()
    assert "is not a directory" in next(iter(check_data_dir(missing))).detail
    missing.data_dir.unlink()
    missing.data_dir.mkdir()
    missing.secrets_path.write_text("")
    missing.secrets_path.chmod(0o644)
    assert levels(list(check_data_dir(missing))) == [Level.OK, Level.ERROR]
    monkeypatch.setattr(host, "_FREE_BYTES_WANTED", 2**63)
    assert "MiB are free" in next(iter(check_data_dir(missing))).detail
    monkeypatch.setattr("gb28181gw.cli.host.os.access", lambda *_: False)
    assert "cannot be written" in next(iter(check_data_dir(missing))).detail


def test_the_database(tmp_path: Path) -> None:
    here = settings(tmp_path)
    assert next(iter(check_database(here))).detail == "The first start makes it."
    here.data_dir.mkdir()
    connection = sqlite3.connect(here.database_path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert "is sound" in next(iter(check_database(here))).detail
    here.database_path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert next(iter(check_database(here))).level is Level.ERROR


def test_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, level in ((1024, Level.WARNING), (65536, Level.OK), (resource.RLIM_INFINITY, Level.OK)):
        monkeypatch.setattr("gb28181gw.cli.host.resource.getrlimit", lambda _, limit=limit: (limit, limit))
        assert next(iter(check_files())).level is level


@pytest.mark.parametrize(
    ("now", "synchronised", "date", "level"),
    [
        (0.0, True, "auto", Level.ERROR),
        (1_800_000_000.0, True, "auto", Level.OK),
        (1_800_000_000.0, None, "auto", Level.OK),
        (1_800_000_000.0, False, "auto", Level.WARNING),
        (1_800_000_000.0, False, "off", Level.OK),
    ],
)
def test_f19_the_clock(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    now: float,
    synchronised: bool | None,
    date: str,
    level: Level,
) -> None:
    monkeypatch.setattr(host, "clock_synchronised", lambda: synchronised)
    assert next(iter(check_clock(settings(tmp_path, sip={"date": date}), now))).level is level


def test_the_kernel_is_asked_about_its_clock() -> None:
    assert host.clock_synchronised() in (True, False, None)


def test_check_names_the_media_plane_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    python = load_settings(environ={"GB28181GW_MEDIA__PLANE": "python"})
    assert levels(list(check_plane(python))) == [Level.OK]
    monkeypatch.setattr(native, "is_built", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "no compiler")
    (told,) = check_plane(load_settings(environ={}))
    assert (told.level, "no compiler" in told.detail) == (Level.WARNING, True)
    monkeypatch.setattr(native, "is_built", lambda: True)
    monkeypatch.setattr(native, "has_gro", lambda: True)
    (told,) = check_plane(load_settings(environ={"GB28181GW_MEDIA__WORKERS": "3"}))
    assert told.level is Level.OK
    assert "3 threads; the kernel merges" in told.detail


def test_check_tells_what_transcoding_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert list(check_transcoding(load_settings(environ={}))) == []
    (few,) = check_transcoding(load_settings(environ={"GB28181GW_MEDIA__TRANSCODE": "2"}))
    assert few.level is Level.OK and "0.7 of 4 CPU" in few.detail
    (many,) = check_transcoding(load_settings(environ={"GB28181GW_MEDIA__TRANSCODE": "8"}))
    assert many.level is Level.WARNING
