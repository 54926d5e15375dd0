"""What is on the disk of a download that was cut at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from gb28181gw.downloads.journal import Fact, Journal, read_journal
from gb28181gw.downloads.models import DownloadFile, FileError, Gap, Part
from gb28181gw.downloads.resume import gap_seen, part_begins, part_ended, part_joined, take_up
from gb28181gw.downloads.seam import Seam
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind

VIDEO = Track(
    kind=TrackKind.VIDEO, codec=Codec.H264, width=320, height=240, fps=25.0, parameter_sets=(b"s", b"p")
)
SOUND = Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1)


def picture(number: int, begin: int = 0) -> Frame:
    at = begin + number * 3600
    return Frame(
        track=VIDEO, pts_90k=at, dts_90k=at, key=number % 25 == 0, payload=f"picture {number}".encode()
    )


def journal_of(path: Path, *entries: Frame | Fact) -> None:
    journal = Journal(path)
    for entry in entries:
        if isinstance(entry, Fact):
            journal.tell(entry)
        else:
            journal.add([(entry, 0)])
    journal.close()


def test_frames_come_back_as_they_went_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sound = Frame(track=SOUND, pts_90k=10, dts_90k=10, key=True, payload=b"\xd5" * 160)
    journal = Journal(path)
    journal.add([(picture(0, 90_000), -90_000), (sound, -10)])
    journal.tell(Fact(name="gap", values={"at_s": 1.5}))
    journal.close()
    journal_of(path, picture(1))  # by another process, which numbers its tracks anew
    found = list(read_journal(path))
    assert found[0] == picture(0)
    assert isinstance(found[1], Frame) and (found[1].dts_90k, found[1].track) == (0, SOUND)
    assert found[2:] == [Fact(name="gap", values={"at_s": 1.5}), picture(1)]


def test_f17_a_journal_that_was_cut_anywhere_is_read_to_its_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal_of(path, *(picture(number) for number in range(4)))
    whole = path.read_bytes()
    seen = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        before = list(read_journal(path))
        seen.add(len(before))
        assert before == [picture(number) for number in range(len(before))]
        journal_of(path, picture(9))
        assert list(read_journal(path)) == [*before, picture(9)]
    assert seen == {0, 1, 2, 3}


def test_a_byte_that_changed_ends_it_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal_of(path, picture(0), picture(1))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert list(read_journal(path)) == [picture(0)]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"something else altogether")
    with pytest.raises(FileError):
        list(read_journal(path))


def test_where_a_download_stood_is_found_again(tmp_path: Path) -> None:
    path, original = tmp_path / "journal", DownloadFile(name="a.1.ps", size=3, sha256="x")
    first = Part(from_s=0, joined="start", repeated=0, ended="silent", original="a.1.ps")
    lost, unknown = (Gap(at_s=1.0, seconds=5.0, reason=reason) for reason in ("lost", "not_recorded"))
    journal_of(
        path,
        part_begins(0),
        picture(0),
        gap_seen(unknown),
        part_ended(first, original, gaps=[lost], notes=["n"], received=77, file_size=99),
        part_begins(4),
        part_joined("picture", 12),
        picture(1),
        gap_seen(unknown),
    )
    seam = Seam()
    found = take_up(path, seam.recall)
    assert found.parts == [first, Part(from_s=4, joined="picture", repeated=12, ended="restart")]
    assert (found.gaps, found.notes, found.originals) == ([lost, unknown], ["n"], [original])
    assert (found.bytes, found.file_size, found.interrupted) == (77, 99, True)
    assert (seam.end_90k, seam.length_90k) == (3600, 7200)


def test_a_seam_that_was_recalled_joins_as_the_one_that_wrote(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal_of(path, *(picture(number) for number in range(60)))
    seam = Seam()
    take_up(path, seam.recall)
    seam.begin_part(2.0)
    kept = seam.take([picture(number, -12_345) for number in range(25, 80)])
    assert [frame.dts_90k + offset for frame, offset in kept] == [3600 * number for number in range(60, 80)]
    assert (seam.joined, seam.repeated) == ("picture", 35)
