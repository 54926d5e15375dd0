"""`gb28181gw check` and the start, when the library of `[recording.s3]` is missing."""

from __future__ import annotations

import sys

import pytest

from gb28181gw.app.gateway import upload_plan
from gb28181gw.cli.host import Level, check_store
from gb28181gw.errors import GatewayError
from gb28181gw.settings import load_settings

S3 = {"bucket": "cameras", "endpoint": "https://s3.example.org", "access_key": "AKID", "secret_key": "x"}
SETTINGS = load_settings(environ={}, overrides={"recording": {"s3": S3}})


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = check_store(SETTINGS)
    assert (found.level, found.detail) == (
        Level.OK,
        "Recordings are brought to https://s3.example.org/cameras.",
    )
    monkeypatch.setitem(sys.modules, "obstore", None)
    (found,) = check_store(SETTINGS)
    assert found.level is Level.ERROR
    assert "pip install 'gb28181gw[s3]'" in found.detail
    with pytest.raises(GatewayError) as caught:
        upload_plan(SETTINGS.recording.s3)
    assert caught.value.code == "gb.config.invalid"


def test_without_a_bucket_the_library_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    settings = load_settings(environ={})
    assert list(check_store(settings)) == []
    assert upload_plan(settings.recording.s3) is None
