import pytest

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.ps_mux import PsMuxer, crc32_mpeg
from gb28181gw.sim.ps_edit import PackEditor, map_entries, units, write_map
from gb28181gw.sim.quirks import Quirk

TRACK = Track(kind=TrackKind.VIDEO, codec=Codec.H264)
KEY = PsMuxer(video=Codec.H264, audio=Codec.AAC).mux(
    Frame(track=TRACK, pts_90k=3600, dts_90k=3600, key=True, payload=b"\0\0\0\1\x67" + b"x" * 70_000)
)
PLAIN = PsMuxer(video=Codec.H264, audio=Codec.AAC).mux(
    Frame(track=TRACK, pts_90k=7200, dts_90k=7200, key=False, payload=b"\0\0\0\1\x41" + b"x" * 50)
)


def kinds(data: bytes) -> list[int]:
    return [kind for kind, _ in units(data)]


def the_map(data: bytes) -> bytes:
    return next(unit for kind, unit in units(data) if kind == 0xBC)


def spoilt(quirk: Quirk, data: bytes = KEY) -> bytes:
    return PackEditor(frozenset({quirk})).edit(data)


def test_units_of_a_key_frame() -> None:
    assert kinds(KEY) == [0xBA, 0xBB, 0xBC, 0xE0, 0xE0]
    assert kinds(PLAIN) == [0xBA, 0xE0]
    assert b"".join(unit for _, unit in units(KEY)) == KEY


def test_units_want_start_codes() -> None:
    with pytest.raises(ValueError, match="byte 0"):
        list(units(b"no start code"))


def test_without_rows_packs_pass_unchanged() -> None:
    editor = PackEditor(frozenset({Quirk.REG_01}))
    assert editor.idle
    assert editor.edit(KEY) == KEY


def test_map_round_trip() -> None:
    entries = [(0x1B, 0xE0), (0x0F, 0xC0)]
    written = write_map(entries)
    assert map_entries(written) == entries
    assert crc32_mpeg(written) == 0
    assert map_entries(the_map(KEY)) == entries


def test_med01_map_names_the_other_codec() -> None:
    assert map_entries(the_map(spoilt(Quirk.MED_01))) == [(0x24, 0xE0), (0x0F, 0xC0)]


def test_med02_no_map_and_no_system_header() -> None:
    assert kinds(spoilt(Quirk.MED_02)) == [0xBA, 0xE0, 0xE0]


def test_med02_first_map_only_once() -> None:
    editor = PackEditor(frozenset({Quirk.MED_02_FIRST}))
    assert 0xBC in kinds(editor.edit(KEY))
    assert 0xBC not in kinds(editor.edit(KEY))


def test_med03_two_maps_with_audio_alone() -> None:
    editor = PackEditor(frozenset({Quirk.MED_03}))
    listed = [map_entries(the_map(editor.edit(KEY))) for _ in range(3)]
    assert listed == [[(0x0F, 0xC0)], [(0x0F, 0xC0)], [(0x1B, 0xE0), (0x0F, 0xC0)]]


def test_med04_lengths_of_the_map_do_not_add_up() -> None:
    written = the_map(spoilt(Quirk.MED_04))
    assert int.from_bytes(written[10:12], "big") > len(written) - 16
    assert written[-4:] == b"\0\0\0\0"
    assert len(written) == 6 + int.from_bytes(written[4:6], "big")


def test_med05_pes_without_length() -> None:
    data = spoilt(Quirk.MED_05, PLAIN)
    assert data[14:20] == b"\0\0\1\xe0\0\0"
    assert len(data) == len(PLAIN)


def test_med08_private_stream_full_of_start_codes() -> None:
    data = spoilt(Quirk.MED_08)
    assert kinds(data) == [0xBA, 0xBB, 0xBC, 0xBD, 0xE0, 0xE0]
    private = next(unit for kind, unit in units(data) if kind == 0xBD)
    assert private[6:].count(b"\0\0\1") == 4


def test_med10_pack_header_is_only_its_start_code() -> None:
    data = spoilt(Quirk.MED_10, PLAIN)
    assert data.startswith(b"\0\0\1\xba\0\0\1\xe0")


def test_med13_g711_declared_for_aac() -> None:
    assert map_entries(the_map(spoilt(Quirk.MED_13))) == [(0x1B, 0xE0), (0x90, 0xC0)]
