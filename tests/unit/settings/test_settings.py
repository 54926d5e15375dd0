"""Configuration: what holds, what is refused, and in which words."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.media import native
from gb28181gw.settings import (
    SAMPLE_PASSWORDS,
    HostPort,
    PortRange,
    Settings,
    SettingsError,
    default_toml,
    known_keys,
    load_settings,
    parse_listen,
    parse_port_range,
    parse_zone,
)

CONTRACT_TEXT = """
data_dir
sip.id sip.domain sip.listen sip.listen_tls sip.advertise sip.tls_cert sip.tls_key sip.password sip.enrolment
sip.allow sip.keepalive_s sip.keepalive_misses sip.date sip.timezone
media.listen media.advertise media.ports media.port_rest_s media.http media.http_advertise media.origins
media.token_s media.shared_port media.transport media.plane media.workers media.idle_stop_s
media.source_timeout_s
http.listen http.cert http.key
rtsp.listen
storage.url
log.format log.level
"""
ADDED = [
    "sip.subscribe",
    "sip.subscribe_s",
    "sip.position_interval_s",
    "media.on_loss",
    "media.merge_ms",
    "media.transcode",
    "media.push_ca",
    "media.webrtc_sessions",
    "downloads.at_once",
    "downloads.per_device",
    "downloads.keep_days",
    "downloads.max_gb",
    "storage.alarm_days",
    "storage.position_days",
    "storage.snapshot_days",
    "storage.snapshot_mb",
    "storage.still_mb",
    "recording.directory",
    "recording.segment_s",
    "recording.keep_days",
    "recording.max_gb",
    "recording.min_free_mb",
    "recording.s3.bucket",
    "recording.s3.endpoint",
    "recording.s3.region",
    "recording.s3.prefix",
    "recording.s3.access_key",
    "recording.s3.secret_key",
    "recording.s3.secret_key_file",
    "recording.s3.virtual_host",
    "recording.s3.allow_http",
    "recording.s3.ca_file",
    "recording.s3.parallel",
    "recording.s3.keep_local",
]
"""Keys beyond the contract."""
CONTRACT = CONTRACT_TEXT.split()


def problems(environ: dict[str, str] | None = None, **sections: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ=environ or {}, overrides=sections)
    assert caught.value.code == "gb.config.invalid"
    return list(caught.value.problems)


def load(**sections: Any) -> Settings:
    return load_settings(environ={}, overrides=sections)


def test_the_keys_are_those_of_the_contract() -> None:
    assert [key for key in known_keys() if key not in ADDED] == CONTRACT
    assert set(ADDED) <= set(known_keys())


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings(environ={})
    assert settings.sip.address == HostPort("0.0.0.0", 5060)  # noqa: S104
    assert settings.http.address == HostPort("127.0.0.1", 18080)
    assert settings.media.http_address == HostPort("0.0.0.0", 18081)  # noqa: S104
    assert settings.media.port_range == PortRange(20000, 29999)
    assert settings.sip.zone.utcoffset(None) == datetime.timedelta(hours=8)
    assert settings.database_path == Path("data/gb28181gw.db")
    assert settings.secrets_path == Path("data/secrets.toml")
    assert settings.warnings() == ()


def test_the_default_file_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "default.toml"
    file.write_text(default_toml())
    assert load_settings(file, environ={}) == load_settings(environ={})
    assert set(tomllib.loads(default_toml())) == {
        "data_dir",
        "downloads",
        "sip",
        "media",
        "http",
        "rtsp",
        "storage",
        "recording",
        "log",
    }


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[sip]\nkeepalive_s = 30\nkeepalive_misses = 5\n")
    settings = load_settings(
        file,
        environ={
            "GB28181GW_SIP__KEEPALIVE_S": "45",
            "GB28181GW_DATA_DIR": "/srv/x",
            "GB28181GW_SIP__ALLOW": '["3402*", "3403*"]',
            "gb28181gw_log__level": "debug",
            "GB28181GWX": "not ours",
            "PATH": "/bin",
        },
    )
    assert settings.sip.keepalive_s == 45
    assert settings.sip.keepalive_misses == 5
    assert settings.data_dir == Path("/srv/x")
    assert settings.sip.allow == ("3402*", "3403*")
    assert settings.log.level == "debug"


def test_a_list_in_the_environment_may_be_separated_by_commas() -> None:
    settings = load_settings(environ={"GB28181GW_MEDIA__ORIGINS": "https://a.example, https://b.example"})
    assert settings.media.origins == ("https://a.example", "https://b.example")
    assert load_settings(environ={"GB28181GW_SIP__ALLOW": ""}).sip.allow == ()


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"sip": {"passwort": "x"}}, "sip.passwort is not a known key. Did you mean sip.password?"),
        ({"sip": {"http": "x"}}, "sip.http is not a known key. Did you mean media.http?"),
        ({"zzz": 1}, "zzz is not a known key. See docs/reference/configuration.md."),
        ({"log": 3}, "log is a section"),
        ({"sip": {"id": "12"}}, "sip.id: '12' is not an id"),
        ({"sip": {"id": 34020000002000000001}}, "sip.id: 34020000002000000001 must be a string in quotes."),
        ({"sip": {"domain": "a b"}}, "sip.domain: 'a b' is not a domain"),
        ({"sip": {"listen": "5060"}}, "sip.listen: '5060' is not 'address:port'"),
        ({"sip": {"listen": "host.example:5060"}}, "sip.listen: 'host.example' is not an IP address"),
        ({"sip": {"listen": "0.0.0.0:70000"}}, "sip.listen: '70000' is not a port"),
        ({"sip": {"listen": "::1:5060"}}, "sip.listen: '::1:5060' is not 'address:port'"),
        ({"sip": {"listen_tls": "5061"}}, "sip.listen_tls: '5061' is not 'address:port'"),
        (
            {"sip": {"listen_tls": "0.0.0.0:5061"}},
            "sip.tls_cert: sip.listen_tls needs a certificate and its key",
        ),
        (
            {"sip": {"listen_tls": "0.0.0.0:5061", "tls_cert": "/nowhere.pem", "tls_key": "/nowhere.key"}},
            "sip.tls_cert: there is no file /nowhere.pem.",
        ),
        (
            {"sip": {"listen_tls": "0.0.0.0:5060", "tls_cert": "/etc/passwd", "tls_key": "/etc/passwd"}},
            "sip.listen_tls: port 5060 is that of sip.listen already",
        ),
        ({"sip": {"advertise": "::"}}, "sip.advertise: '::' cannot be told to anybody"),
        ({"sip": {"advertise": "a_b!"}}, "sip.advertise: 'a_b!' is neither a host name nor an IP address"),
        ({"sip": {"password": "a1b2c3"}}, "sip.password: a shared password has at least 8 characters."),
        ({"sip": {"password": "密码密码密码密码"}}, "sip.password: use printable ASCII"),
        (
            {"sip": {"enrolment": "maybe"}},
            "sip.enrolment: 'maybe' is not allowed; use 'open', 'approve' or 'closed'.",
        ),
        ({"sip": {"allow": "3402*"}}, "sip.allow: '3402*' must be a list"),
        ({"sip": {"allow": ["34[02]"]}}, "sip.allow: '34[02]' is not a pattern of ids"),
        ({"sip": {"keepalive_s": 1}}, "sip.keepalive_s: 1 must be at least 5 seconds."),
        ({"sip": {"keepalive_misses": 21}}, "sip.keepalive_misses: 21 must be at most 20."),
        ({"sip": {"keepalive_s": "soon"}}, "sip.keepalive_s: 'soon' must be a whole number"),
        ({"sip": {"timezone": "Asia/Shanghai"}}, "sip.timezone: 'Asia/Shanghai' is not an offset from UTC"),
        ({"sip": {"timezone": "+15:00"}}, "sip.timezone: '+15:00' is not an offset from UTC"),
        ({"media": {"listen": "0.0.0.0:1"}}, "media.listen: '0.0.0.0:1' is not an IP address"),
        ({"media": {"advertise": "cam.example"}}, "media.advertise: 'cam.example' is not an IP address"),
        ({"media": {"ports": "20000"}}, "media.ports: '20000' is not a range of ports"),
        ({"media": {"ports": "20001-20001"}}, "media.ports: '20001-20001' holds no stream"),
        ({"media": {"ports": "30000-20000"}}, "media.ports: '30000-20000' holds no stream"),
        (
            {"media": {"shared_port": 20000}},
            "media.shared_port: port 20000 lies within media.ports 20000-29999",
        ),
        ({"media": {"shared_port": 5059}}, "media.shared_port: port 5060 is that of sip.listen already"),
        ({"media": {"origins": ["example.org"]}}, "media.origins: 'example.org' is not an origin"),
        ({"media": {"http_advertise": "a/b"}}, "media.http_advertise: 'a/b' is neither a host name"),
        ({"storage": {"url": "postgresql://u:p@h/d"}}, "storage.url: PostgreSQL comes with a later version"),
        ({"storage": {"url": "mysql://h/d"}}, "storage.url: only SQLite in data_dir is supported"),
        ({"log": {"level": "loud"}}, "log.level: 'loud' is not allowed"),
        ({"http": {"cert": "c.pem"}}, "http.key: a certificate and its key go together"),
        ({"http": {"listen": "127.0.0.1:18081"}}, "http.listen: port 18081 is that of media.http already"),
        ({"sip": {"listen": "0.0.0.0:20000"}}, "sip.listen: port 20000 lies within media.ports 20000-29999"),
    ],
)
def test_each_problem_is_a_sentence_that_names_the_key(sections: dict[str, Any], sentence: str) -> None:
    found = problems(**sections)
    assert any(problem.startswith(sentence) for problem in found), found


def test_native_plane_is_refused_with_the_reason_where_it_was_not_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "is_built", lambda: True)
    assert load(media={"plane": "native", "workers": 3}).media.workers == 3
    monkeypatch.setattr(native, "is_built", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "No module named '_native'")
    assert problems(media={"plane": "native"}) == [
        "media.plane: the native plane was not built here (No module named '_native'); install g++ and "
        "python3-dev and install gb28181gw again, or use auto or python."
    ]


def test_all_problems_are_told_at_once() -> None:
    found = problems(
        {"GB28181GW_SIP__KEEPALIVE": "3", "GB28181GW_MEDIA__TOKEN_S": "x"},
        sip={"passwort": "x", "id": "1"},
        log={"level": "loud"},
    )
    assert len(found) == 5
    assert "GB28181GW_SIP__KEEPALIVE names no key. Did you mean sip.keepalive_s?" in " ".join(found)
    assert any(
        p.startswith("media.token_s (environment variable GB28181GW_MEDIA__TOKEN_S): 'x'") for p in found
    )


def test_s14_a_refused_password_is_not_repeated() -> None:
    for password in ("short", "密码密码密码密码密码"):
        assert password not in " ".join(problems(sip={"password": password}))
    assert "a good secret" not in repr(load(sip={"password": "a good secret"}))
    assert "p4ss" not in " ".join(problems(storage={"url": "postgresql://u:p4ss@h/d"}))


@pytest.mark.parametrize("password", [*sorted(SAMPLE_PASSWORDS), "Admin123", "aaaaaaaa", "abababab"])
def test_s08_sample_passwords_are_refused(password: str) -> None:
    assert problems(sip={"password": password})[0].startswith("sip.password: ")


@pytest.mark.parametrize("password", ["", "-", "correct horse battery"])
def test_s08_other_passwords_are_taken(password: str) -> None:
    assert load(sip={"password": password}).sip.password == password


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, sentence in (
        ("a.toml", None, "cannot be read: No such file"),
        ("b.toml", b"[sip\n", "is not valid TOML"),
        ("c.toml", b"\xff\xfe", "is not UTF-8"),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SettingsError, match=sentence) as caught:
            load_settings(file, environ={})
        assert str(file) in caught.value.problems[0]


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"sip": {"domain": "3403000000"}}, "sip.domain"),
        ({"http": {"listen": "0.0.0.0:18080"}}, "http.listen"),
        ({"sip": {"enrolment": "open"}}, "sip.enrolment"),
        ({"sip": {"password": "-"}}, "sip.password"),
        ({"media": {"origins": ["*"]}}, "media.origins"),
        ({"sip": {"tls_cert": "c.pem"}}, "sip.tls_cert"),
        ({"media": {"ports": "20000-20009"}}, "media.ports"),
        ({"sip": {"advertise": "gw.example"}}, "sip.advertise"),
    ],
)
def test_s24_what_is_probably_not_meant_is_a_warning(sections: dict[str, Any], key: str) -> None:
    warnings = load(**sections).warnings()
    assert [warning.key for warning in warnings] == [key]
    assert key in warnings[0].sentence


def test_net01_net02_listen_and_advertise_are_settings_of_their_own() -> None:
    settings = load(
        sip={"listen": "[::]:5060", "advertise": "gw.example"},
        media={"listen": "::", "advertise": "203.0.113.9", "http_advertise": "play.example:443"},
    )
    assert settings.sip.address == HostPort("::", 5060)
    assert str(settings.sip.address) == "[::]:5060"
    assert settings.media.advertise == "203.0.113.9"


def test_reg26_a_name_is_allowed_towards_platforms_and_warned_about() -> None:
    assert "cannot look names up" in load(sip={"advertise": "gw.example"}).warnings()[0].sentence
    assert load(sip={"advertise": "203.0.113.9"}).warnings() == ()
    assert load(sip={"advertise": "2001:db8::1"}).warnings() == ()


def test_net06_the_default_range_is_wide_and_a_tiny_one_is_warned_about() -> None:
    assert load().media.port_range.pairs == 5000
    assert [warning.key for warning in load(media={"ports": "20000-20019"}).warnings()] == ["media.ports"]


def test_settings_do_not_change() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.sip.id = "x"


def test_values() -> None:
    assert parse_listen("127.0.0.1:0") == HostPort("127.0.0.1", 0)
    assert parse_listen("127.0.0.1:1").is_loopback
    assert not parse_listen("[2001:db8::1]:1").is_loopback
    assert parse_port_range("20001-20004").pairs == 1
    assert parse_port_range(" 1 - 65535 ").pairs == 32767
    assert 20000 in parse_port_range("20000-20001")
    assert parse_zone("-03:30").utcoffset(None) == -datetime.timedelta(hours=3, minutes=30)


S3 = {"bucket": "cameras", "endpoint": "https://s3.example.org", "access_key": "AKID"}


def test_s08_the_secret_of_the_object_store_is_not_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[recording.s3]\nsecret_key = "hidden-there"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})
    (problem,) = caught.value.problems
    assert "does not belong into this file" in problem
    assert "hidden-there" not in problem
    environ = {"GB28181GW_RECORDING__S3__SECRET_KEY": "of the environment"}
    settings = load_settings(environ=environ, overrides={"recording": {"s3": S3}})
    assert settings.recording.s3.secret() == "of the environment"
    assert "of the environment" not in repr(settings)


def test_s08_the_file_of_a_secret_is_its_owners(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("only-for-me\n")
    named = {**S3, "secret_key_file": str(secret)}
    secret.chmod(0o644)
    assert "chmod 600" in problems(recording={"s3": named})[0]
    secret.chmod(0o600)
    assert load(recording={"s3": named}).recording.s3.secret() == "only-for-me"
    secret.write_text("two words")
    assert "nothing else" in problems(recording={"s3": named})[0]
    secret.unlink()
    assert "cannot be read" in problems(recording={"s3": named})[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "recording.s3.secret_key: give the secret"),
        ({"secret_key": "x", "secret_key_file": "y"}, "one of the two"),
        ({"secret_key": "x", "access_key": ""}, "recording.s3.access_key: a bucket needs a key"),
        ({"secret_key": "x", "endpoint": ""}, "recording.s3.endpoint: a bucket needs the URL"),
        ({"secret_key": "x", "endpoint": "http://10.0.0.1:9000"}, "recording.s3.allow_http"),
        ({"secret_key": "x", "endpoint": "s3.example.org"}, "is not an endpoint"),
        ({"secret_key": "x", "bucket": "No_Bucket"}, "is not the name of a bucket"),
        ({"secret_key": "x", "prefix": "/a"}, "is not a prefix"),
        ({"secret_key": "x", "ca_file": "/nowhere.pem"}, "there is no file /nowhere.pem"),
        ({"secret_key": "x", "parallel": 0}, "recording.s3.parallel: 0 must be at least 1"),
        (
            {"secret_key": "x", "keep_local": "perhaps"},
            "recording.s3.keep_local: 'perhaps' must be true or false",
        ),
        ({"secret_kex": "x"}, "Did you mean recording.s3.secret_key?"),
    ],
)
def test_s08_an_object_store_is_used_with_all_it_needs_or_not_at_all(
    changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in " ".join(problems(recording={"s3": {**S3, **changes}}))


def test_every_key_has_a_type_and_a_sentence() -> None:
    for key, info in known_keys().items():
        assert info.type, key
        assert info.description.endswith("."), key
        if key.endswith("_s"):
            assert info.unit == "seconds", key
