"""A span of the recording as one MP4 file, joined while it is sent: nothing is written for it.

Fragments are taken over as they are, with other times; so segments of one form only can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gb28181gw.media.wire.fmp4 import TIMESCALE
from gb28181gw.recording.models import Segment
from gb28181gw.recording.reader import Fragment, SegmentError, fragments, read_head
from gb28181gw.recording.sources import SegmentFiles


def wanted_fragments(
    path: Path, at: int, began: float, start: float, end: float
) -> Iterator[tuple[Fragment, float]]:
    """(fragment, wall time) of a file from the last key frame before `start` to `end`."""
    before: list[tuple[Fragment, float]] = []
    for fragment in fragments(path, at):
        wall = began + fragment.begin_90k / TIMESCALE
        if wall >= end:
            break
        if wall <= start:
            if fragment.is_key:
                before = []
            before.append((fragment, wall))
            continue
        yield from before
        before = []
        yield fragment, wall
    yield from before


def joined(files: SegmentFiles, segments: Sequence[Segment], start: float, end: float) -> Iterator[bytes]:
    """One file; its time 0 is its first picture. Blocking. A segment that has gone meanwhile leaves a gap.

    Raises GatewayError as `SegmentFiles.each` does: what comes before is no whole file then.
    """
    zero: float | None = None
    for segment, path in files.each(segments):
        try:
            head = read_head(path)
            for fragment, wall in wanted_fragments(path, head.length, segment.start, start, end):
                if zero is None:
                    zero = wall
                    yield head.init
                yield fragment.moved(round((segment.start - zero) * TIMESCALE))
        except (OSError, SegmentError):
            continue
