"""What the first start tells: where its secrets are, and never what they are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.gateway import running_gateway

pytestmark = pytest.mark.interop


def test_s08_secrets_are_made_once_and_never_told(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        path = tmp_path / "data" / "secrets.toml"
        (made,) = gateway.seen("secrets.created")
        assert made["path"] == str(path)
        secrets = [value for value in tomllib.loads(path.read_text()).values() if isinstance(value, str)]
        said = repr(gateway.events) + "\n".join(gateway.other_lines)
        assert len(secrets) == 3
        assert not [secret for secret in secrets if secret in said]
        gateway.kill()
        gateway.events.clear()
        gateway.start()
        assert not gateway.seen("secrets.created")
