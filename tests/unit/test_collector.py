"""What was loaded at the start is not gone through by the garbage collector (I8)."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import gc
from gb28181gw.app.gateway import COLLECTOR, calm_collector
loaded = [[number] for number in range(100_000)]
calm_collector()
assert gc.get_freeze_count() > 100_000, gc.get_freeze_count()
assert gc.get_threshold() == COLLECTOR
assert len(gc.get_objects()) < 10_000, len(gc.get_objects())
"""


def test_i8_what_was_loaded_is_frozen() -> None:
    # In a process of its own: what is frozen stays frozen.
    subprocess.run([sys.executable, "-c", LOOK], check=True, timeout=60)


def test_i8_the_process_does_so_before_it_says_that_it_is_ready() -> None:
    from inspect import getsource

    from gb28181gw.app import gateway

    text = getsource(gateway._serve)
    assert text.index("gateway.start()") < text.index("calm_collector()") < text.index("tell_ready")
