"""The media benchmark works: its tools are built, run for a second, and tell what they should."""

from __future__ import annotations

import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from bench.media_plane import Bench, arguments, build_tools

SPAN = 8
pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")


def free_block() -> int:
    """The first of `4 * SPAN` ports that nobody has now."""
    for _ in range(100):
        first = random.randrange(5_000, 15_000) * 2
        with suppress(OSError):
            for port in range(first, first + 4 * SPAN):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with closing(socket.socket(socket.AF_INET, kind)) as probe:
                        probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free block of ports")


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    build_tools()


@contextmanager
def running(plane: str = "native") -> Iterator[Bench]:
    words = ["--plane", plane, "--seconds", "1"]
    words += ["--first-port", str(free_block()), "--port-span", str(SPAN)]
    with closing(Bench(arguments().parse_args(words))) as bench:
        yield bench


@pytest.mark.parametrize(("plane", "way"), [("native", "gro"), ("native", "tcp"), ("python", "udp")])
def test_ingest_and_its_floor(plane: str, way: str) -> None:
    with running(plane) as bench:
        assert bench.ingest_floor(2, gso=way == "gro", tcp=way == "tcp") > 0
        run = bench.run_ingest(2, gso=way == "gro", tcp=way == "tcp")
    assert run.cost > 0
    assert run.share > 0
    assert " 0 lost" in run.note


def test_fan_out_and_its_floor() -> None:
    with running() as bench:
        row = bench.fan_out(3, ws=True, merge_ms=300)
    assert isinstance(row.value, float)
    assert row.value > 0
    assert row.floor
    assert " 0 frames dropped, 0 closed" in row.note


def test_delay_of_pictures() -> None:
    with running() as bench:
        rows = [row.value for row in bench.delay(streams=2)]
    assert len(rows) == 2
    assert all(isinstance(value, float) and value > 0 for value in rows)
