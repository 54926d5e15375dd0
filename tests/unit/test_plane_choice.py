"""Which media plane runs: `[media] plane` and what was built."""

from __future__ import annotations

import shutil

import pytest

from gb28181gw.app.gateway import choose_plane
from gb28181gw.media import native
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.settings import MediaSettings


@pytest.mark.parametrize(
    ("plane", "built", "chosen"),
    [
        ("auto", True, NativePlane),
        ("auto", False, ReferencePlane),
        ("python", True, ReferencePlane),
        ("native", True, NativePlane),
    ],
)
def test_the_plane_follows_the_setting_and_the_build(
    plane: str, built: bool, chosen: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_built", lambda: built)
    assert choose_plane(MediaSettings(plane=plane)) is chosen


@pytest.mark.skipif(not shutil.which("c++"), reason="no compiler")
def test_where_a_compiler_is_the_native_plane_was_built() -> None:
    assert native.is_built(), native.why_not()


async def test_the_native_plane_has_the_threads_it_was_told() -> None:
    if not native.is_built():
        pytest.skip("the native plane was not built")
    plane = NativePlane(3)
    assert plane.workers == 3
    await plane.close()
    await plane.close()
