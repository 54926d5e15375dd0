"""A program stream that is sent as it is."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import ContentError
from gb28181gw.sim.fleet import Fleet
from gb28181gw.sim.media_sender import PsFileSource, Pump
from gb28181gw.sim.options import DeviceOptions
from gb28181gw.sim.ps_file import Piece, PsFile, cut, is_program_stream, read_ps_file
from gb28181gw.sim.quirks import Quirk
from tests.support.media import (
    audio_clip,
    interleave,
    pack_header,
    pes,
    pes_times,
    ps_stream,
    stream_map,
    video_clip,
)

CLIP = video_clip(Codec.H264, frames=50, gop=25)
END = b"\x00\x00\x01\xb9"
MPEG1_PACK = bytes.fromhex("000001ba 2100010001 800001")


def mpeg1_pes(payload: bytes, times: bytes, stuffing: bytes = b"") -> bytes:
    """ISO 11172-1 2.4.3.3."""
    body = stuffing + times + payload
    return b"\x00\x00\x01\xe0" + len(body).to_bytes(2, "big") + body


class Silent:
    def note(self, device_id: str, what: str, **facts: object) -> None:
        """Nobody looks."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recording.ps"
    path.write_bytes(b"".join(ps_stream(interleave(CLIP, audio_clip(Codec.PCMA)))) + END)
    return path


def test_a_file_is_read_and_leaves_unchanged_turn_after_turn(file: Path) -> None:
    content = read_ps_file(file)
    assert (content.video, content.fps, content.width, content.height) == (Codec.H264, 25, 320, 240)
    source = PsFileSource(content)
    for turn in range(3):
        bursts = [burst for n in range(50) for burst in source.bursts(turn * 50 + n, 7)]
        assert b"".join(chunk for burst in bursts for chunk in burst.chunks) == file.read_bytes()
        assert [burst.timestamp_90k for burst in bursts] == [(turn * 50 + n) * 3600 + 7 for n in range(50)]
        assert all(len(chunk) <= 1400 for burst in bursts for chunk in burst.chunks)


def test_a_piece_begins_with_the_headers_of_its_picture() -> None:
    packs = ps_stream(CLIP)
    assert cut(b"".join(packs)) == tuple(Piece(n * 3600, pack) for n, pack in enumerate(packs))


def test_sound_and_continuations_go_with_the_picture_before() -> None:
    first = (
        pack_header() + stream_map({0xE0: 0x1B, 0xC0: 0x90}) + pes(b"a" * 50, pts=100) + pes(b"b", pts=100)
    )
    first += pes(b"c") + pes(b"sound", stream_id=0xC0, pts=9000) + pack_header() + pes(b"d")
    second = pack_header() + pes(b"e", pts=7300, dts=3700)
    assert cut(first + second + END) == (Piece(0, first), Piece(3600, second + END))


def test_only_the_first_video_stream_sets_the_time() -> None:
    data = pes(b"a", pts=0) + pes(b"x", stream_id=0xE1, pts=7200) + pes(b"b", pts=3600)
    assert [piece.dts_90k for piece in cut(data)] == [0, 3600]


def test_times_that_wrap_or_go_back() -> None:
    stamps = [(1 << 33) - 3600, 0, 3600, 1800, 7200]
    pieces = cut(b"".join(pes(b"a", pts=stamp) for stamp in stamps))
    assert [piece.dts_90k for piece in pieces] == [0, 3600, 7200, 10800]


def test_headers_of_iso_11172() -> None:
    first = MPEG1_PACK + mpeg1_pes(b"a", pes_times(0), stuffing=b"\xff\xff\x60\x20")
    second = MPEG1_PACK + mpeg1_pes(b"b", pes_times(9000, 1800))
    without = mpeg1_pes(b"c", b"\x0f")
    assert cut(first + second + without) == (Piece(0, first), Piece(1800, second + without))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (pack_header(), "no video packet with a time"),
        (pes(b"a", pts=0) + b"garbage", "no header at byte 15"),
        (pes(b"a", pts=0) + pes(b"b", pts=1, length=0), "packet at byte 15 .* no length"),
    ],
)
def test_a_stream_without_structure_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ContentError, match=sentence):
        cut(data)


def test_other_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "text.ps"
    path.write_text("no stream at all")
    assert not is_program_stream(path)
    with pytest.raises(ContentError, match=r"text\.ps cannot be read"):
        read_ps_file(path)


def test_a_stream_begins_at_the_start_of_the_file() -> None:
    pieces = (Piece(0, b"one"), Piece(7200, b"two"))
    content = PsFile(
        video=Codec.H264, audio=None, fps=Fraction(25), width=64, height=64, pieces=pieces, length=4
    )
    assert [content.key_at_or_before(number) for number in (0, 3, 4, 7, 8)] == [0, 0, 4, 4, 8]
    assert [content.access(number).key for number in range(5)] == [True, False, False, False, True]
    assert content.pieces(5) == ()
    assert content.pieces(6) == (Piece(6 * 3600, b"two"),)
    times = [content.access(number).dts_90k for number in range(9)]
    assert {later - earlier for earlier, later in pairwise(times)} == {3600}


async def test_devices_send_program_streams_as_they_are(file: Path) -> None:
    fleet = Fleet(DeviceOptions(media_file=file), Silent())
    content = await fleet.content_of("camera")
    assert isinstance(content, PsFile)
    source = Pump(asyncio.get_running_loop()).source_of(content, frozenset({Quirk.MED_02}), 1400)
    assert isinstance(source, PsFileSource)
    await fleet.stop()
