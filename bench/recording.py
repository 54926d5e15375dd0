"""CPU of recording one channel: frames into fragmented MP4 files, without the stream and its made sound.

python -m bench.recording [--minutes 10]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gb28181gw.media.tracks import Frame
from gb28181gw.recording.files import SegmentWriter
from tests.support.media import video_clip

BATCH = 8
"""Frames that come to the thread together: 0.3 s."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    minutes = parser.parse_args().minutes
    clip = video_clip(width=1280, height=720, frames=50, gop=50)
    size = sum(len(frame.payload) for frame in clip)
    with tempfile.TemporaryDirectory() as directory:
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


if __name__ == "__main__":
    main()
