"""Media playlists of low-latency HLS (RFC 8216bis) as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from gb28181gw.outputs.hls_segments import LISTED, Segmenter

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
_RESOURCE = re.compile(
    r"(?:init-(\d{1,9})\.mp4|segment-(\d{1,9})\.m4s|part-(\d{1,9})-(\d{1,5})\.m4s)", re.ASCII
)
_WITH_PARTS = 3
"""Complete segments whose parts are listed."""


def init_name(number: int) -> str:
    return f"init-{number}.mp4"


def segment_name(number: int) -> str:
    return f"segment-{number}.m4s"


def part_name(number: int, part: int) -> str:
    return f"part-{number}-{part}.m4s"


def parse_name(name: str) -> tuple[str, int, int] | None:
    """(``init``, ``segment`` or ``part``; number; part) of a resource that a playlist names."""
    found = _RESOURCE.fullmatch(name)
    if found is None:
        return None
    if found[1] is not None:
        return "init", int(found[1]), 0
    if found[2] is not None:
        return "segment", int(found[2]), 0
    return "part", int(found[3]), int(found[4])


def render(segmenter: Segmenter, query: Callable[[str], str]) -> bytes:
    """The playlist of a stream that is `ready`.

    `query` gives what stands behind the ``?`` of a name. A name must not change while it is listed, or players read
    the same thing again; parts have the query of their segment.
    """
    listed = list(segmenter.segments)
    complete = [segment for segment in listed if segment.is_complete]
    first = complete[-LISTED].number if len(complete) > LISTED else listed[0].number
    gone = segmenter.discontinuities_gone
    gone += sum(segment.has_discontinuity for segment in listed if segment.number <= first)
    part_target = segmenter.part_target_s
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        f"#EXT-X-TARGETDURATION:{segmenter.target_s}",
        f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={3 * part_target:.3f}",
        f"#EXT-X-PART-INF:PART-TARGET={part_target:.3f}",
        f"#EXT-X-MEDIA-SEQUENCE:{first}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{gone}",
    ]
    with_parts_from = complete[-_WITH_PARTS].number if len(complete) >= _WITH_PARTS else first
    init = 0
    for segment in listed:
        if segment.number < first or not segment.parts:
            continue
        if segment.has_discontinuity and segment.number > first:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.init != init:
            init = segment.init
            name = init_name(init)
            lines.append(f'#EXT-X-MAP:URI="{name}?{query(name)}"')
        name = segment_name(segment.number)
        suffix = f"?{query(name)}"
        began = datetime.fromtimestamp(segment.began_at, UTC).isoformat(timespec="milliseconds")
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{began.replace('+00:00', 'Z')}")
        if segment.number >= with_parts_from:
            for index, part in enumerate(segment.parts):
                independent = ",INDEPENDENT=YES" if part.is_independent else ""
                lines.append(
                    f"#EXT-X-PART:DURATION={part.duration_s:.5f},"
                    f'URI="{part_name(segment.number, index)}{suffix}"{independent}'
                )
        if segment.is_complete:
            lines += (f"#EXTINF:{segment.duration_s:.5f},", name + suffix)
    if segmenter.has_ended:
        lines.append("#EXT-X-ENDLIST")
    else:
        number, index = segmenter.next_part
        suffix = f"?{query(segment_name(number))}"
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{part_name(number, index)}{suffix}"')
    return ("\n".join(lines) + "\n").encode()
