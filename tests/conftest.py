"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# CI asks the same questions each time, so that a red run is a change's doing; at a desk they are new each time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
