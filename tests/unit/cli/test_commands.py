"""The command line: what it prints where, and its exit status."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from gb28181gw.access.keys import Keys, first_key, hash_key
from gb28181gw.access.secrets import load_or_create_secrets, make_data_dir
from gb28181gw.api.server import ApiServer, ApiServerConfig
from gb28181gw.cli.common import print_table
from gb28181gw.cli.main import make_app
from gb28181gw.devices.models import Refusal
from gb28181gw.errors import GatewayError
from gb28181gw.observability.logs import configure_logging
from gb28181gw.observability.trace import Direction
from gb28181gw.settings import Settings, default_toml, load_settings
from gb28181gw.sim.options import DeviceOptions
from gb28181gw.sip.path import Path as SipPath
from gb28181gw.storage.database import Database
from tests.support.api_services import CAMERA, NVR, Rig, TestClock, api_rig

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of its own on loopback."""
    file = tmp_path / "gb28181gw.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\n'
        f'[sip]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[media]\nlisten = "127.0.0.1"\nhttp = "127.0.0.1:{free_port()}"\nports = "20500-20599"\n'
        f'[http]\nlisten = "127.0.0.1:{free_port()}"\n'
    )
    return file


@pytest.fixture(autouse=True)
def restore_logging() -> object:
    yield
    structlog.reset_defaults()


# ---------------------------------------------------------------- the whole


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("serve", "check", "device", "key", "secrets", "simulate", "trace", "version"):
        assert command in result.stdout


def test_version() -> None:
    assert run("version").stdout.startswith("gb28181gw 0.")
    assert set(json.loads(run("version", "--json").stdout)) == {"gb28181gw", "python", "host"}


def test_called_wrongly_is_2() -> None:
    assert run("serve", "--port", "1").exit_code == 2
    assert run("nonsense").exit_code == 2


LAZY = {
    "aiortc", "av", "fastapi", "gb28181gw.app", "gb28181gw.settings", "gb28181gw.sim", "gb28181gw.storage", "lxml",
    "numpy", "orjson", "prometheus_client", "pydantic", "rich", "sqlite3", "starlette", "structlog", "uvicorn",
    "uvloop", "websockets",
}  # fmt: skip
NEVER_FOR_SERVE = {
    "aiortc",
    "av",
    "rich.progress",
    "rich.live",
    "typer.rich_utils",
    "numpy",
    "obstore",
    "gb28181gw.sim",
}


def imported_by(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(result.stdout.split())


def test_importing_serve_imports_little() -> None:
    modules = imported_by("import gb28181gw.cli.serve")
    assert not modules & LAZY
    ours = {name for name in modules if name.startswith("gb28181gw")}
    assert ours == {
        "gb28181gw",
        "gb28181gw.cli",
        "gb28181gw.cli.serve",
        "gb28181gw.cli.common",
        "gb28181gw.errors",
    }


def test_the_command_line_imports_little() -> None:
    assert not imported_by("import gb28181gw.cli.main") & LAZY


def test_what_serve_runs_leaves_the_heavy_libraries_for_their_first_use() -> None:
    modules = imported_by("import gb28181gw.cli.serve, gb28181gw.app")
    assert "uvloop" in modules
    assert not modules & NEVER_FOR_SERVE


# ---------------------------------------------------------------- serve


def test_serve_hands_over_the_settings_and_returns_the_status(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def fake(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("gb28181gw.app.run", fake)
    assert run("serve", "--config", config).exit_code == 0
    assert seen[0].media.ports == "20500-20599"


def test_f24_a_bad_configuration_is_told_in_the_log_with_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[sip]\npasswort = "x"\nid = "1"\n')
    result = subprocess.run(
        [sys.executable, "-m", "gb28181gw", "serve", "--config", str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["gateway.start_failed"] * 2
    assert "sip.passwort is not a known key. Did you mean sip.password?" in [line["detail"] for line in lines]
    assert all(line["code"] == "gb.config.invalid" and line["hint"] for line in lines)


def test_a_start_that_fails_is_told_in_the_log(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Settings) -> int:
        raise GatewayError("gb.config.port_in_use", "sip.listen 127.0.0.1:5060 is in use.", port=5060)

    monkeypatch.setattr("gb28181gw.app.run", fail)
    written: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        "gb28181gw.observability.events.EventBus.emit",
        lambda _, name, **fields: written.append((name, fields)),
    )
    assert run("serve", "--config", config).exit_code == 1
    ((name, fields),) = written
    assert name == "gateway.start_failed"
    assert fields["reason"] == "port_in_use"
    assert fields["detail"] == "sip.listen 127.0.0.1:5060 is in use."
    assert "change the named key" in str(fields["hint"])


# ---------------------------------------------------------------- keys and secrets


def test_key_create_before_the_first_start(config: Path, tmp_path: Path) -> None:
    result = run("key", "create", "--name", "wall", "--role", "viewer", "--days", "2", "--config", config)
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    key = result.stdout.strip()
    assert key.startswith("gbk_")
    assert "viewer" in result.stderr
    assert key not in result.stderr
    with sqlite3.connect(tmp_path / "data" / "gb28181gw.db") as database:
        rows = database.execute("SELECT name, role, hash, expires_at - created_at FROM keys").fetchall()
    database.close()
    assert rows == [("wall", "viewer", hash_key(key), 2 * 86_400_000)]


async def test_key_create_while_the_gateway_has_the_database_open(config: Path, tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data")
    database = Database(tmp_path / "data" / "gb28181gw.db")
    database.start()
    try:
        result = await asyncio.to_thread(
            run, "key", "create", "--name", "a", "--role", "admin", "--config", config
        )
        assert result.exit_code == 0
        rows = await database.fetch("SELECT hash, expires_at FROM keys")
        assert rows == [(hash_key(result.stdout.strip()), None)]
    finally:
        await database.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "a"),
        ("--role", "admin"),
        ("--name", "a", "--role", "root"),
        ("--name", " ", "--role", "admin"),
        ("--name", "a\nb", "--role", "admin"),
        ("--name", "a", "--role", "admin", "--days", "0"),
        ("--name", "a", "--role", "admin", "--days", "nan"),
    ],
)
def test_key_create_called_wrongly_makes_nothing(
    config: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run("key", "create", *arguments, "--config", config)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert not (tmp_path / "data").exists()


def test_key_create_with_a_data_dir_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    file = tmp_path / "c.toml"
    file.write_text(f'data_dir = "{tmp_path / "data"}"\n')
    result = run("key", "create", "--name", "a", "--role", "admin", "--config", file)
    assert result.exit_code == 1
    assert "is not a directory" in result.stderr
    assert "write access to data_dir" in result.stderr


def test_secrets_are_shown_when_there_are_some(config: Path, tmp_path: Path) -> None:
    nothing = run("secrets", "--config", config)
    assert nothing.exit_code == 1
    assert "gb28181gw serve" in nothing.stderr
    assert not (tmp_path / "data").exists()
    make_data_dir(tmp_path / "data")
    made = load_or_create_secrets(tmp_path / "data" / "secrets.toml")
    shown = run("secrets", "--config", config)
    assert shown.exit_code == 0
    assert made.sip_password in shown.stdout
    assert made.admin_key in shown.stdout
    assert json.loads(run("secrets", "--json", "--config", config).stdout) == {
        "sip_password": made.sip_password,
        "admin_key": made.admin_key,
    }


def test_secrets_shows_the_password_in_force(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data_dir(tmp_path / "data")
    load_or_create_secrets(tmp_path / "data" / "secrets.toml")
    monkeypatch.setenv("GB28181GW_SIP__PASSWORD", "of my own")
    assert json.loads(run("secrets", "--json", "--config", config).stdout)["sip_password"] == "of my own"
    monkeypatch.setenv("GB28181GW_SIP__PASSWORD", "-")
    assert json.loads(run("secrets", "--json", "--config", config).stdout)["sip_password"] == ""
    assert "none is accepted" in run("secrets", "--config", config).stdout


def test_s08_secrets_that_others_can_read_are_not_used(config: Path, tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data")
    load_or_create_secrets(tmp_path / "data" / "secrets.toml")
    (tmp_path / "data" / "secrets.toml").chmod(0o644)
    result = run("secrets", "--config", config)
    assert result.exit_code == 1
    assert "chmod 600" in result.stderr


# ---------------------------------------------------------------- check


def findings(result: Result) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(result.stdout)["findings"]}


def test_check_of_a_host_that_is_ready(config: Path) -> None:
    result = run("check", "--deep", "--json", "--config", config)
    rows = findings(result)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    for name in (
        "sip.listen",
        "media.http",
        "http.listen",
        "media.ports",
        "data_dir",
        "secrets.toml",
        "database",
    ):
        assert rows[name]["level"] == "ok", rows[name]
    assert "sip.listen" in run("check", "--config", config).stdout


def test_check_prints_the_default_configuration() -> None:
    assert run("check", "--defaults").stdout == default_toml()


def test_check_of_a_bad_configuration_tells_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[sip]\nlisten = "5060"\n[log]\nlevel = "loud"\n')
    result = run("check", "--config", file)
    assert result.exit_code == 1
    assert "sip.listen: '5060' is not 'address:port'" in result.stdout
    assert "log.level: 'loud' is not allowed" in result.stdout


def test_check_tells_a_taken_port_and_a_foreign_address(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as shared,
    ):
        taken.bind(("127.0.0.1", 0))
        shared.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GB28181GW_SIP__LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("GB28181GW_MEDIA__HTTP", "192.0.2.1:18081")
        monkeypatch.setenv("GB28181GW_MEDIA__LISTEN", "127.0.0.1")
        monkeypatch.setenv("GB28181GW_MEDIA__SHARED_PORT", str(shared.getsockname()[1]))
        result = run("check", "--json", "--config", config)
    rows = findings(result)
    assert result.exit_code == 1
    assert "is in use by another program" in rows["sip.listen"]["detail"]
    assert "belongs into advertise" in rows["media.http"]["detail"]
    assert "is in use by another program" in rows["media.shared_port"]["detail"]


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[Rig]:
    """An API as a gateway with this configuration serves it."""
    configure_logging(stream=io.BytesIO())  # the test's stdout is the command's
    settings = load_settings(config, environ={})
    make_data_dir(settings.data_dir)
    made = load_or_create_secrets(settings.secrets_path)
    clock = TestClock()
    keys = Keys(
        store_of_nothing(), wall=clock.wall, monotonic=clock.monotonic, built_in=[first_key(made.admin_key)]
    )
    async with api_rig(keys=keys) as rig:
        address = settings.http.address
        server = ApiServer(rig.app, ApiServerConfig(host=address.host, port=address.port))
        await server.start()
        try:
            yield rig
        finally:
            await server.stop()


def store_of_nothing():  # type: ignore[no-untyped-def]
    from tests.support.stores import MemoryKeyStore

    return MemoryKeyStore()


async def test_check_recognises_its_own_running_gateway(config: Path) -> None:
    async with running(config):
        result = await asyncio.to_thread(run, "check", "--json", "--config", config)
    rows = findings(result)
    assert result.exit_code == 0
    assert rows["gateway"]["detail"] == "It runs with this configuration: ok."
    assert "held by the gateway" in rows["http.listen"]["detail"]


async def test_check_does_not_take_another_gateway_for_its_own(config: Path, tmp_path: Path) -> None:
    async with running(config):
        (tmp_path / "data" / "secrets.toml").unlink()
        load_or_create_secrets(tmp_path / "data" / "secrets.toml")
        result = await asyncio.to_thread(run, "check", "--json", "--config", config)
    assert result.exit_code == 1
    assert "in use by another program" in findings(result)["http.listen"]["detail"]


# ---------------------------------------------------------------- trace

SIP_PATH = SipPath("udp", "192.0.2.10", 5060, "192.0.2.1", 5060)
REGISTER = b'REGISTER sip:x SIP/2.0\r\nCSeq: 1 REGISTER\r\nX: password="c4n4ryS3cr3t"\r\n\r\n'


async def test_trace_prints_the_ladder(config: Path, tmp_path: Path) -> None:
    async with running(config) as rig:
        rig.services.trace.record(NVR, Direction.IN, SIP_PATH, REGISTER)
        rig.services.trace.record(
            NVR, Direction.OUT, SIP_PATH, b"SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\n\r\n"
        )
        ladder = await asyncio.to_thread(run, "trace", NVR, "--config", config)
        full = await asyncio.to_thread(run, "trace", NVR, "--full", "--last", "2", "--config", config)
        as_json = await asyncio.to_thread(run, "trace", NVR, "--json", "--config", config)
        capture = tmp_path / "d.pcap"
        saved = await asyncio.to_thread(run, "trace", NVR, "--pcap", capture, "--config", config)
    first, second = ladder.stdout.splitlines()
    assert "192.0.2.10:5060 ──▶ 192.0.2.1:5060" in first
    assert "REGISTER sip:x SIP/2.0" in first
    assert "◀──" in second
    assert "SIP/2.0 401 Unauthorized" in second
    assert "    CSeq: 1 REGISTER" in full.stdout
    assert "c4n4ryS3cr3t" not in full.stdout + as_json.stdout
    assert [json.loads(line)["direction"] for line in as_json.stdout.splitlines()] == ["in", "out"]
    assert saved.exit_code == 0
    assert capture.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"


async def test_trace_of_an_unknown_device_and_of_a_quiet_one(config: Path) -> None:
    async with running(config):
        unknown = await asyncio.to_thread(run, "trace", "x/../y", "--config", config)
        quiet = await asyncio.to_thread(run, "trace", NVR, "--config", config)
        wrong = await asyncio.to_thread(run, "trace", NVR, "--key", "gbk_no", "--config", config)
    assert unknown.exit_code == 1
    assert unknown.stderr
    assert quiet.exit_code == 0
    assert "No messages yet" in quiet.stderr
    assert wrong.exit_code == 1
    assert "key create" in wrong.stderr


def test_trace_without_a_gateway_says_so(config: Path) -> None:
    result = run("trace", NVR, "--config", config)
    assert result.exit_code == 1
    assert "No gateway answers at http://127.0.0.1:" in result.stderr
    assert run("trace", NVR, "--url", "file:///etc/passwd", "--config", config).exit_code == 1


# ---------------------------------------------------------------- device


async def test_device_ptz_moves_and_stops(config: Path) -> None:
    async with running(config) as rig:
        moved = await asyncio.to_thread(
            run, "device", "ptz", NVR, CAMERA, "--pan", "0.5", "--for", "0.01", "--json", "--config", config
        )
        lens = await asyncio.to_thread(run, "device", "ptz", NVR, CAMERA, "--iris", "-1", "--config", config)
        mixed = await asyncio.to_thread(
            run, "device", "ptz", NVR, CAMERA, "--iris", "1", "--pan", "1", "--config", config
        )
        assert rig.ptz.asked == [
            ("move", NVR, CAMERA, 0.5, 0.0, 0.0),
            ("move", NVR, CAMERA, 0.0, 0.0, 0.0),
            ("lens", NVR, CAMERA, 0.0, -1.0),
        ]
    assert json.loads(moved.stdout)["pan"] == 0.5
    assert (moved.exit_code, lens.exit_code, mixed.exit_code) == (0, 0, 2)
    assert lens.stdout == ""


async def test_device_dialect_tells_switches_tolerances_and_what_it_does_not_know(config: Path) -> None:
    async with running(config) as rig:
        rig.devices.devices[NVR].refused["PTZPosition@1"] = Refusal(times=1, at=1.0, by="ua|", why="silent")
        shown = await asyncio.to_thread(run, "device", "dialect", NVR, "--config", config)
        as_json = await asyncio.to_thread(run, "device", "dialect", NVR, "--json", "--config", config)
    assert shown.exit_code == 0, shown.stderr
    for text in ("edition", "2.0", "told", "xml.bare_ampersand", "XML-05", "PTZPosition@1", "silent"):
        assert text in shown.stdout
    assert json.loads(as_json.stdout)["unsupported"] == {"PTZPosition@1": "silent"}


async def test_device_presets(config: Path) -> None:
    async with running(config) as rig:
        listed = await asyncio.to_thread(run, "device", "preset", NVR, CAMERA, "--config", config)
        as_json = await asyncio.to_thread(
            run, "device", "preset", NVR, CAMERA, "list", "--json", "--config", config
        )
        stored = await asyncio.to_thread(
            run, "device", "preset", NVR, CAMERA, "set", "7", "--name", "Gate", "--config", config
        )
        wrong = await asyncio.to_thread(
            run, "device", "preset", NVR, CAMERA, "goto", "256", "--config", config
        )
        assert rig.ptz.asked == [("set", NVR, CAMERA, 7, "Gate")]
    assert "Gate" in listed.stdout
    assert json.loads(as_json.stdout)["items"][0] == {"id": 1, "name": "Gate"}
    assert stored.exit_code == 0
    assert wrong.exit_code == 1
    assert "number" in wrong.stderr


async def test_device_command_takes_fields_by_their_names(config: Path) -> None:
    async with running(config) as rig:
        done = await asyncio.to_thread(
            run, "device", "command", NVR, "DeviceConfig", "BasicParam.HeartBeatInterval=30",
            "BasicParam.Name=007", "--channel", CAMERA, "--force", "--config", config,
        )  # fmt: skip
        as_json = await asyncio.to_thread(
            run, "device", "command", NVR, "RecordInfo", "StartTime=2024-05-01", "EndTime=2024-05-02",
            "IndistinctQuery=0", "--json", "--config", config,
        )  # fmt: skip
        wrong = await asyncio.to_thread(
            run, "device", "command", NVR, "RecordCmd", "Record", "--config", config
        )
        refused = await asyncio.to_thread(
            run, "device", "command", NVR, "RecordCmd", "RecordCmd=Play", "--config", config
        )
        config_values = {"BasicParam": {"HeartBeatInterval": 30, "Name": "007"}}
        times = {"StartTime": "2024-05-01", "EndTime": "2024-05-02", "IndistinctQuery": "0"}
        assert rig.commands.asked == [
            (NVR, "DeviceConfig", config_values, CAMERA, True),
            (NVR, "RecordInfo", times, None, False),
        ]
    assert "Result" in done.stdout
    assert json.loads(as_json.stdout)["Result"] == "OK"
    assert wrong.exit_code == 2
    assert "FIELD=VALUE" in wrong.stderr
    assert refused.exit_code == 1
    assert "RecordCmd" in refused.stderr


async def test_device_subscriptions_are_shown_and_renewed(config: Path) -> None:
    async with running(config) as rig:
        shown = await asyncio.to_thread(run, "device", "subscriptions", NVR, "--config", config)
        renewed = await asyncio.to_thread(
            run, "device", "subscriptions", NVR, "--renew", "--json", "--config", config
        )
        assert rig.subscriptions.renewed == [NVR]
    assert "catalog" in shown.stdout and "active" in shown.stdout
    assert json.loads(renewed.stdout)["items"][0]["event"] == "Catalog;id=1"


async def test_device_snapshots_are_ordered_and_written(config: Path, tmp_path: Path) -> None:
    async with running(config) as rig:
        rig.snapshots.received = 2
        done = await asyncio.to_thread(
            run,
            "device",
            "snapshots",
            NVR,
            CAMERA,
            "--count",
            "2",
            "--out",
            tmp_path / "out",
            "--config",
            config,
        )
        rig.snapshots.received = 0
        late = await asyncio.to_thread(
            run, "device", "snapshots", NVR, CAMERA, "--wait", "0", "--json", "--config", config
        )
        assert rig.snapshots.ordered == [(NVR, CAMERA, 2, 1, False), (NVR, CAMERA, 1, 1, False)]
    (file,) = (tmp_path / "out").iterdir()
    assert done.exit_code == 0 and done.stdout.split() == [str(file)]
    assert file.suffix == ".jpg" and file.read_bytes().startswith(b"\xff\xd8\xff")
    assert late.exit_code == 1 and json.loads(late.stdout)["files"] == []


def test_device_without_a_gateway_says_so(config: Path) -> None:
    result = run("device", "preset", NVR, CAMERA, "--config", config)
    assert result.exit_code == 1
    assert "No gateway answers" in result.stderr


# ---------------------------------------------------------------- simulate


def test_simulate_hands_every_option_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[DeviceOptions] = []

    def fake(options: DeviceOptions) -> int:
        seen.append(options)
        return 7

    monkeypatch.setattr("gb28181gw.sim.command.run_device", fake)
    assert run("simulate", "device").exit_code == 7
    assert seen[0] == DeviceOptions()
    changed = {
        "--server": "192.0.2.1:5070", "--server-id": "1", "--domain": "2", "--password": "p", "--id": "3",
        "--username": "u", "--count": "4", "--channels": "5", "--channel-id": "6", "--name": "东门",
        "--transport": "tcp", "--bind": "127.0.0.2", "--video": "h265", "--audio": "aac", "--size": "64x64",
        "--fps": "7", "--bitrate": "8", "--gop": "9", "--b-frames": "2", "--loop": "3", "--media": str(tmp_path),
        "--keepalive": "1.5", "--expires": "61", "--edition": "2.0", "--charset": "UTF-8", "--catalog-page": "3",
        "--quirk": "INV-01", "--seed": "5", "--sip-loss": "0.1", "--sip-duplicate": "0.2", "--sip-reorder": "0.3",
        "--rtp-loss": "0.4", "--rtp-duplicate": "0.5", "--rtp-reorder": "0.6", "--register-rate": "1",
        "--retry": "2", "--duration": "3", "--alarm": "4", "--position": "5", "--talk-codec": "aac",
        "--talk-transport": "tcp-active", "--speakers": "1", "--hear-dir": str(tmp_path),
        "--record-hours": "6", "--record-file": "70",
        "--change": "6",
    }  # fmt: skip
    flat = [part for pair in changed.items() for part in pair]
    assert run("simulate", "device", *flat, "--live-clock", "--json").exit_code == 7
    default, given = DeviceOptions(), seen[1]
    same = [f.name for f in dataclasses.fields(default) if getattr(default, f.name) == getattr(given, f.name)]
    assert same == []


def test_simulate_lists_the_quirks() -> None:
    rows = json.loads(run("simulate", "device", "--list-quirks", "--json").stdout)
    assert {"id", "does"} == set(rows[0])


# ---------------------------------------------------------------- download


async def test_download_saves_a_verified_file(config: Path, tmp_path: Path) -> None:
    span = ("2024-05-01T08:00:00", "2024-05-01T08:10:00+08:00")
    async with running(config) as rig:
        done = await asyncio.to_thread(
            run, "download", NVR, CAMERA, *span, "--speed", "8", "--output", tmp_path, "--config", config
        )
        request = rig.downloads.views["d1"].request
        as_json = await asyncio.to_thread(
            run, "download", NVR, CAMERA, *span, "--output", tmp_path / "b.mp4", "--remove", "--json",
            "--config", config,
        )  # fmt: skip
        assert rig.downloads.views == {}
    assert (request.length_s, request.speed) == (600, 8.0)  # without an offset it is the platform's zone
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.mp4").read_bytes() == b"a recording"
    assert "25 pictures" in done.stdout
    assert "Missing: 5.0 s" in done.stderr
    assert json.loads(as_json.stdout)["saved"] == str(tmp_path / "b.mp4")
    assert not list(tmp_path.glob("*.part"))


async def test_download_that_failed_tells_why(config: Path, tmp_path: Path) -> None:
    async with running(config) as rig:
        rig.downloads.error = GatewayError("gb.sip.rejected", "It said 404.", sip_status=404)
        failed = await asyncio.to_thread(
            run, "download", NVR, CAMERA, "2024-05-01", "2024-05-02", "--output", tmp_path, "--config", config
        )
    assert failed.exit_code == 1
    assert "It said 404." in failed.stderr
    assert not list(tmp_path.glob("*.mp4"))


def test_download_wants_times(config: Path) -> None:
    result = run("download", NVR, CAMERA, "yesterday", "today", "--config", config)
    assert result.exit_code == 2
    assert "is no time" in result.stderr


def test_a_table_that_goes_elsewhere_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    head = ["Of", "Until", "Detail"]
    rows = [["34020000001180000001", "2026-11-23 04:26:43", "word " * 40], ["[b]", "", ""]]
    print_table(head, rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(cell.strip() in lines[3] for cell in rows[0])
    assert "[b]" in lines[4]


async def test_upper_adds_shares_shows_and_removes(config: Path, tmp_path: Path) -> None:
    upper = "34020000002000000055"
    table = tmp_path / "channels.csv"
    table.write_text(f"device_id,channel_id,shared_id\n{NVR},{CAMERA},34020000001320000777\n")

    async def upper_command(*arguments: str) -> Result:
        return await asyncio.to_thread(run, "upper", *arguments, "--config", config)

    async with running(config) as rig:
        added = await upper_command(
            "add", upper, "--host", "192.0.2.9", "--domain", "3402000000", "--password", "s3cret", "--json"
        )
        shared = await upper_command("share", upper, str(table))
        assert rig.uppers.views[upper].upper.password == "s3cret"
        assert [shared_id for _, shared_id in rig.uppers.shares[upper][1]] == ["34020000001320000777"]
        shown = await upper_command("list")
        channels = await upper_command("channels", upper, "--csv")
        catalogue = await upper_command("catalog", upper, "--json")
        nothing = await upper_command("share", upper)
        everything = await upper_command("share", upper, "--all", "--json")
        removed = await upper_command("remove", upper)
        unknown = await upper_command("show", upper)
    assert added.exit_code == 0 and "s3cret" not in added.stdout
    assert "34020000001320000777" in shared.stdout and "192.0.2.9:5060" in shown.stdout
    assert channels.stdout.splitlines()[1].startswith(f"{NVR},{CAMERA},34020000001320000777")
    assert json.loads(catalogue.stdout)["total"] == 1
    assert nothing.exit_code == 2 and json.loads(everything.stdout)["all"] is True
    assert removed.exit_code == 0 and unknown.exit_code == 1 and "Unknown upper" in unknown.stderr


def test_simulate_platform_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gb28181gw.sim.platform_command as command

    handed: list[object] = []

    def run_platform(options: object, task: object) -> int:
        handed.extend((options, task))
        return 0

    monkeypatch.setattr(command, "run_platform", run_platform)
    done = run(
        "simulate", "platform", "--listen", "127.0.0.1:5099", "--id", "34020000002000000077", "--domain", "34",
        "--password", "p", "--algorithm", "SHA-256", "--edition", "2.0", "--redirect", "192.0.2.1:5060",
        "--play", "first", "--output", str(tmp_path / "x.ps"), "--seconds", "3", "--media", "tcp-active",
        "--ptz", "left", "--subscribe", "Alarm", "--duration", "9", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert handed[0] == command.PlatformOptions(
        listen="127.0.0.1:5099", id="34020000002000000077", domain="34", password="p", algorithm="SHA-256",
        edition="2.0", redirect="192.0.2.1:5060",
    )  # fmt: skip
    assert handed[1] == command.PlatformTask(
        play="first", output=tmp_path / "x.ps", seconds=3.0, media="tcp-active", ptz="left",
        subscribe=("Alarm",), duration_s=9.0, json=True,
    )  # fmt: skip
