"""Tests of sockets run on uvloop, which production uses, and on the stock loop, which has other habits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_BOTH = ("test_plane_", "test_outputs_", "test_transport_", "test_ua_")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops for what owns sockets; the stock loop for all others."""
    del config
    if item.path.name.startswith(_BOTH):
        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop}
