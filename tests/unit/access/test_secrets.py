"""The secrets of the first start."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from gb28181gw.access.secrets import (
    PASSWORD_ALPHABET,
    Secrets,
    load_or_create_secrets,
    make_data_dir,
    make_secrets,
    read_secrets,
)
from gb28181gw.errors import GatewayError


def test_s08_the_first_start_makes_a_file_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets.toml"
    made = load_or_create_secrets(path)
    assert made.created
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_or_create_secrets(path)
    assert not again.created
    assert (again.sip_password, again.admin_key, again.token_key) == (
        made.sip_password, made.admin_key, made.token_key,
    )  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.toml"]
    assert made.sip_password not in repr(made)
    assert made.admin_key not in repr(made)


def test_s08_the_password_can_be_typed_from_a_screen() -> None:
    passwords = {make_secrets().sip_password for _ in range(50)}
    assert len(passwords) == 50
    for password in passwords:
        assert len(password) == 16
        assert set(password) <= set(PASSWORD_ALPHABET)
        assert any(c.isdecimal() for c in password)
        assert any(c.isupper() for c in password)
        assert any(c.islower() for c in password)
    assert not set("0Oo1Il2Z5S8B") & set(PASSWORD_ALPHABET)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_s08_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secrets.toml"
    load_or_create_secrets(path)
    path.chmod(mode)
    with pytest.raises(GatewayError, match="chmod 600") as caught:
        load_or_create_secrets(path)
    assert caught.value.code == "gb.config.data_dir"
    assert str(path) in caught.value.detail


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not toml",
        'sip_password = "short"\n',
        "sip_password = 5\n",
        "\udcff",
        'admin_key = "x"\ntoken_key = "zz"\n',
    ],
)
def test_a_broken_file_is_refused_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(GatewayError, match="is broken"):
        load_or_create_secrets(path)
    assert path.read_bytes() == content.encode("utf-8", "surrogateescape")


def test_two_that_start_together_agree(tmp_path: Path) -> None:
    path = tmp_path / "secrets.toml"
    found: list[Secrets] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        found.append(load_or_create_secrets(path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({secrets.sip_password for secrets in found}) == 1
    assert sum(secrets.created for secrets in found) == 1
    assert found[0].admin_key == read_secrets(path).admin_key


def test_the_data_dir_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_data_dir(path)
    make_data_dir(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert list(path.iterdir()) == []


def test_a_data_dir_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(GatewayError) as caught:
            make_data_dir(path)
        assert caught.value.code == "gb.config.data_dir"
        assert str(path) in caught.value.detail


def test_a_data_dir_that_cannot_be_made_is_told() -> None:
    with pytest.raises(GatewayError, match="cannot be used") as caught:
        make_data_dir(Path("/proc/gb28181gw"))
    assert caught.value.code == "gb.config.data_dir"
