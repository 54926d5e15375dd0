"""Recording one channel: CPU of frames into fragmented MP4 files, without the stream and its made sound; and how long
a finished file keeps its thread until it is on the disk.

python -m bench.recording [--minutes 10] [--directory /where/recordings/go]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gb28181gw.media.tracks import Frame
from gb28181gw.recording import files
from gb28181gw.recording.files import SegmentWriter
from tests.support.media import video_clip

BATCH = 8
"""Frames that come to the thread together: 0.3 s."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument(
        "--directory", type=Path, help="On the disk that is meant; by default the temporary one."
    )
    wanted = parser.parse_args()
    minutes = wanted.minutes
    waits: list[float] = []
    settle = files.settle

    def timed(*values: Any, **named: Any) -> None:
        since = time.monotonic()
        settle(*values, **named)
        waits.append(time.monotonic() - since)

    files.settle = timed
    clip = video_clip(width=1280, height=720, frames=50, gop=50)
    size = sum(len(frame.payload) for frame in clip)
    with tempfile.TemporaryDirectory(dir=wanted.directory) as directory:
        writer = SegmentWriter(Path(directory), "d", "c", "continuous", segment_s=60.0, expect_audio=False)
        began = time.process_time()
        waiting: list[tuple[Frame, float]] = []
        for turn in range(minutes * 30):
            shift = turn * 180_000
            for frame in clip:
                moved = replace(frame, dts_90k=frame.dts_90k + shift, pts_90k=frame.pts_90k + shift)
                waiting.append((moved, 1_700_000_000.0 + moved.dts_90k / 90_000))
                if len(waiting) == BATCH:
                    writer.write(waiting)
                    waiting = []
        writer.finish()
        used = time.process_time() - began
    print(
        f"{size * 4 / 1e6:.1f} Mbit/s, 25 pictures a second: {used / minutes / 60 * 100:.2f} % of a core a channel, "
        f"{len(writer.changes) // 2} files"
    )
    # As fast as the disk takes it, so the whole file waits to be written; a recorder's has been written by and by.
    waits.sort()
    print(
        f"until a file of {size * 30 / 1e6:.0f} MB is on the disk: median "
        f"{waits[len(waits) // 2] * 1000:.0f} ms, longest {waits[-1] * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
