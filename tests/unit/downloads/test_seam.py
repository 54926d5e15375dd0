"""Parts of a broken transfer, joined."""

from __future__ import annotations

import pytest

from gb28181gw.downloads.seam import Seam
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind

VIDEO = Track(kind=TrackKind.VIDEO, codec=Codec.H264, fps=25.0)
AUDIO = Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1)


def pictures(first: int, last: int, begin_90k: int = 0, salt: str = "") -> list[Frame]:
    """Pictures [first, last) of a recording whose key frames are 50 apart; the part's clock starts at `begin_90k`."""
    return [
        Frame(
            track=VIDEO,
            pts_90k=begin_90k + (number - first) * 3600,
            dts_90k=begin_90k + (number - first) * 3600,
            key=number % 50 == 0,
            payload=f"picture {number}{salt}".encode(),
        )
        for number in range(first, last)
    ]


def written(seam: Seam, frames: list[Frame]) -> list[tuple[int, str]]:
    return [
        ((frame.dts_90k + offset) // 3600, frame.payload.decode().split()[1])
        for frame, offset in seam.take(frames)
    ]


def test_the_first_part_begins_at_its_first_key_frame_at_0() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    assert written(seam, pictures(48, 53, 90_000)) == [(0, "50"), (1, "51"), (2, "52")]
    assert (seam.joined, seam.repeated, seam.end_90k) == ("start", 0, 7200)


def test_a_further_part_goes_on_behind_the_last_picture() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 173))
    seam.begin_part(6.0)
    found = written(seam, pictures(50, 200, 12_345))
    assert found == [(number, str(number)) for number in range(173, 200)]
    assert (seam.joined, seam.repeated) == ("picture", 123)


def test_byte_by_byte_makes_no_difference() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 173))
    seam.begin_part(6.0)
    found = [pair for frame in pictures(50, 200, 99) for pair in written(seam, [frame])]
    assert found == [(number, str(number)) for number in range(173, 200)]


def test_what_was_missing_in_the_overlap_is_not_put_behind_the_end() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, [*pictures(0, 100), *pictures(150, 160, 150 * 3600)])
    seam.begin_part(6.0)
    assert written(seam, pictures(0, 165)) == [(number, str(number)) for number in range(160, 165)]


def test_a_device_that_writes_into_each_picture_is_joined_by_time() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 175))
    seam.begin_part(5.0)
    frames = pictures(50, 700, 0, salt=" again")
    found = written(seam, frames)
    assert seam.joined == "time"
    assert found[0][0] == 175
    assert [time for time, _ in found] == list(range(175, 175 + len(found)))


def test_a_short_part_is_placed_when_it_ends() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 100))
    seam.begin_part(1.0)
    assert seam.take(pictures(60, 140, 0, salt=" again")) == []
    kept = seam.finish_part()
    assert (seam.joined, len(kept)) == ("time", 54)
    assert seam.finish_part() == []


def test_sound_follows_the_pictures() -> None:
    def sound(time_90k: int) -> Frame:
        return Frame(track=AUDIO, pts_90k=time_90k, dts_90k=time_90k, key=True, payload=b"s")

    seam = Seam()
    seam.begin_part(0.0)
    assert seam.take([sound(0)]) == []  # before the first picture there is no place for it
    [picture] = pictures(0, 1, 900)
    assert [offset for _, offset in seam.take([picture, sound(4500), sound(4500)])] == [-900, -900]


@pytest.mark.parametrize("first", [0, 25, 49])
def test_parts_that_begin_anywhere_before_are_joined_at_a_known_key_frame(first: int) -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 130))
    seam.begin_part(5.0)
    found = written(seam, pictures(first, 160))
    assert found == [(number, str(number)) for number in range(130, 160)]


def test_pictures_that_never_came_are_told_with_their_place() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    frames = pictures(0, 200)
    del frames[150:152], frames[20], frames[10]
    written(seam, frames)
    assert seam.missing == [
        (pytest.approx(9 * 0.04), pytest.approx(0.08)),
        (pytest.approx(5.96), pytest.approx(0.08)),
    ]


def test_pb14_the_next_file_follows_right_behind_the_last_picture() -> None:
    seam = Seam()
    seam.begin_part(0.0)
    written(seam, pictures(0, 100))
    seam.begin_part(None)
    assert written(seam, pictures(100, 200, 27_000)) == []
    found = [
        ((frame.dts_90k + offset) // 3600, frame.payload.decode().split()[1])
        for frame, offset in seam.finish_part()
    ]
    assert found == [(number, str(number)) for number in range(100, 200)]
    assert (seam.joined, seam.repeated, seam.missing) == ("time", 0, [])
