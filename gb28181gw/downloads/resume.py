"""Reads what a process that was ended left of a download: where it stood, part by part. Runs in a worker thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from gb28181gw.downloads.journal import Fact, read_journal
from gb28181gw.downloads.models import DownloadFile, FileError, Gap, Part
from gb28181gw.media.tracks import Frame

INTERRUPTED: Final = "restart"
"""`ended` of the part that ran when the process ended."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What the journal says."""

    parts: list[Part] = field(default_factory=list)
    """All, the interrupted one last."""
    gaps: list[Gap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    originals: list[DownloadFile] = field(default_factory=list)
    """Of the parts that had ended."""
    bytes: int = 0
    file_size: int | None = None
    interrupted: bool = False
    """A part had begun and not ended."""


def part_begins(from_s: int) -> Fact:
    return Fact(name="part", values={"from_s": from_s})


def part_joined(joined: str, repeated: int) -> Fact:
    return Fact(name="joined", values={"joined": joined, "repeated": repeated})


def gap_seen(gap: Gap) -> Fact:
    return Fact(name="gap", values=asdict(gap))


def part_ended(
    part: Part,
    original: DownloadFile | None,
    *,
    gaps: list[Gap],
    notes: list[str],
    received: int,
    file_size: int | None,
) -> Fact:
    """Everything that is known at the end of a part; it stands in place of what was told before."""
    return Fact(
        name="part_end",
        values={
            "part": asdict(part),
            "original": asdict(original) if original is not None else None,
            "gaps": [asdict(gap) for gap in gaps],
            "notes": notes,
            "bytes": received,
            "file_size": file_size,
        },
    )


def take_up(path: Path, on_frame: Callable[[Frame], None]) -> Found:
    """Read a journal; `on_frame` gets each frame with its times in the file. Raises OSError, FileError."""
    found = Found()
    running: dict[str, Any] | None = None
    for entry in read_journal(path):
        if isinstance(entry, Frame):
            on_frame(entry)
            continue
        values = entry.values
        try:
            match entry.name:
                case "part":
                    running = {"from_s": int(values["from_s"]), "joined": "start", "repeated": 0}
                    if found.parts:
                        running["joined"] = "picture"
                case "joined" if running is not None:
                    running.update(joined=str(values["joined"]), repeated=int(values["repeated"]))
                case "gap":
                    found.gaps.append(Gap(**values))
                case "part_end":
                    running = None
                    found.parts.append(Part(**values["part"]))
                    if values["original"] is not None:
                        found.originals.append(DownloadFile(**values["original"]))
                    found.gaps = [Gap(**gap) for gap in values["gaps"]]
                    found.notes = [str(note) for note in values["notes"]]
                    found.bytes = int(values["bytes"])
                    found.file_size = values["file_size"]
                case _:
                    continue
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path.name} cannot be read: {error!r}.") from error
    if running is not None:
        found.interrupted = True
        found.parts.append(Part(**running, ended=INTERRUPTED))
    return found
