"""Tests of sockets run on uvloop, which production uses, and on the stock loop, which has other habits.

Tests of the media plane and of the outputs run over both planes: the reference plane is the oracle of the native one. A
module that is about one of them says so by `PLANES`, one about what a plane may not have yet by `NEEDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from gb28181gw.media import native
from tests.support import plane as support

_OF_MEDIA = ("test_plane_", "test_outputs_")
_BOTH = (*_OF_MEDIA, "test_transport_", "test_ua_")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops for what owns sockets; the stock loop for all others."""
    del config
    if item.path.name.startswith(_BOTH):
        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not metafunc.definition.path.name.startswith(_OF_MEDIA):
        return
    built = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
    needs = getattr(metafunc.module, "NEEDS", None)
    able = pytest.mark.skipif(
        needs is not None and needs not in native.NativePlane.features,
        reason=f"the native plane has no {needs}",
    )
    marks = {"python": (), "native": (built, able)}
    names = getattr(metafunc.module, "PLANES", ("python", "native"))
    metafunc.parametrize(
        "plane_name", [pytest.param(name, marks=marks[name]) for name in names], indirect=True
    )


@pytest.fixture(autouse=True)
def plane_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which plane `tests.support.plane.make_plane` makes."""
    name: str = getattr(request, "param", "python")
    monkeypatch.setattr(support, "selected", name)
    return name
