"""The secrets that the first start makes, and the file that keeps them: `data_dir/secrets.toml`, mode 0600 (S-08)."""

from __future__ import annotations

import os
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gb28181gw.access.keys import make_key_text
from gb28181gw.errors import GatewayError

PASSWORD_CHARS: Final = 16
PASSWORD_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679"  # noqa: S105 - an alphabet, no password
"""No characters that are mistaken for another when typed from a screen: 0 O o, 1 I l i, 2 Z, 5 S, 8 B."""
_MAC_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the first start made."""

    sip_password: str = field(repr=False)
    """Shared by devices without a password of their own, unless `[sip] password` is set."""
    admin_key: str = field(repr=False)
    token_key: bytes = field(repr=False)
    """Key of the play tokens."""
    created: bool = False
    """True when this very call made them."""


def make_secrets() -> Secrets:
    return Secrets(
        sip_password=_make_password(),
        admin_key=make_key_text(),
        token_key=secrets.token_bytes(_MAC_KEY_BYTES),
        created=True,
    )


def _make_password() -> str:
    """16 random characters, with a small letter, a capital and a digit among them: some devices insist."""
    while True:
        text = "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_CHARS))
        if (
            any(c.islower() for c in text)
            and any(c.isupper() for c in text)
            and any(c.isdecimal() for c in text)
        ):
            return text


def make_data_dir(path: Path) -> None:
    """Make the directory (0700) when it is missing. Raises GatewayError gb.config.data_dir with a sentence."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}-{secrets.token_hex(4)}"
        probe.touch(mode=0o600)
        probe.unlink()
    except FileExistsError as error:
        raise GatewayError("gb.config.data_dir", f"data_dir {path} is not a directory.") from error
    except OSError as error:
        raise GatewayError(
            "gb.config.data_dir", f"data_dir {path} cannot be used: {error.strerror}."
        ) from error


def load_or_create_secrets(path: Path) -> Secrets:
    """Read the file, or make it. Two processes that start together agree on one file.

    Raises GatewayError gb.config.data_dir when it cannot be read or made, is broken, or others can read it.
    """
    try:
        return read_secrets(path)
    except FileNotFoundError:
        made = make_secrets()
    if not _write_new(path, _to_toml(made)):
        return read_secrets(path)
    return made


def read_secrets(path: Path) -> Secrets:
    """Read the file. Raises FileNotFoundError, or GatewayError gb.config.data_dir."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise GatewayError("gb.config.data_dir", f"{path} cannot be read: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        # The mode of the opened file, not of whatever has the name a moment later.
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise GatewayError(
                "gb.config.data_dir",
                f"{path} can be read by other users of this host; run 'chmod 600 {path}', and delete the file "
                "if somebody may have read it: the next start makes new secrets.",
            )
        content = file.read(65_536)
    try:
        values = tomllib.loads(content.decode("utf-8"))
        return Secrets(
            sip_password=_text(values, "sip_password", 8),
            admin_key=_text(values, "admin_key", 20),
            token_key=_mac_key(values, "token_key"),
        )
    except ValueError as error:
        raise GatewayError(
            "gb.config.data_dir",
            f"{path} is broken ({error}); restore it, or delete it: the next start makes new secrets, and the "
            "devices then need the new password.",
        ) from error


def _text(values: dict[str, object], name: str, least: int) -> str:
    value = values.get(name)
    if not isinstance(value, str) or len(value) < least:
        raise ValueError(f"{name} is missing or too short")
    return value


def _mac_key(values: dict[str, object], name: str) -> bytes:
    return bytes.fromhex(_text(values, name, _MAC_KEY_BYTES * 2))


def _to_toml(made: Secrets) -> str:
    return (
        "# Made by the first start of gb28181gw. Keep it: without it the play URLs given out end, and devices need\n"
        "# a new password. Nobody but the gateway's user may read it.\n"
        f'sip_password = "{made.sip_password}"\n'
        f'admin_key = "{made.admin_key}"\n'
        f'token_key = "{made.token_key.hex()}"\n'
    )


def _write_new(path: Path, text: str) -> bool:
    """Write the whole file under its name at once, durably; False when another process was first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise GatewayError("gb.config.data_dir", f"{path} cannot be written: {error.strerror}.") from error
    return True
