"""Each way in which a device refuses or fails gives its own error and leaves nothing open, whatever it was asked for.

Kinds: a playback, a download, a talk by broadcast (the device calls us) and one by INVITE (we call it). Everything is
asked of one gateway with a device for each deviation, which is then looked at for what is left: ports, SSRCs, streams
and sockets of the plane, exchanges and calls of the user agent, stored dialogs, the lists of the API, the calls of the
devices, files, and the descriptors of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.devices import until
from tests.support.refusing import Party, RefusalBench, refusal_bench, span

AT_ONCE: Final = 8
RECORDED: Final = ("playback", "download")
CALLS: Final = (*RECORDED, "talk")


@dataclass(frozen=True)
class Told:
    """What the caller of the API was told."""

    code: str
    sip_status: int | None = None


@dataclass
class Outcome:
    """What came of everything that was asked."""

    told: dict[tuple[str, str], Any] = field(default_factory=dict)
    """By deviation and kind."""
    left: dict[str, object] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    """Devices with a call that is not over."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """What each failed or removed download left on the disk."""
    refused_with: dict[str, set[object]] = field(default_factory=dict)
    """The status with which we refused the calls of a device."""


async def refused(party: Party, kind: str) -> Told:
    """Ask for it; the error that comes of it."""
    if kind == "download":
        status, job = await party.post("download", **span(60), speed=8)
        assert status == 202, job
        done = await party.bench.over(job["id"])
        assert done["state"] == "failed", done
        assert party.ended("download.failed")[-1]["code"] == done["error"]["code"]
        return Told(done["error"]["code"], done["error"].get("sip_status"))
    if kind == "playback":
        status, told = await party.post("playback", **span(60))
    else:
        status, told = await party.post("talk", way=kind)
    assert status >= 400, told
    return Told(told["code"], told.get("sip_status"))


async def faster(party: Party, stream: dict[str, Any]) -> None:
    answer = await party.bench.client.post(
        f"/api/v1/streams/{stream['id']}/control", json={"action": "scale", "scale": 8}
    )
    assert answer.status_code == 204, answer.text


async def played_out(party: Party, kind: str) -> str:
    """Begin a playback that nobody ends; why it ended."""
    status, stream = await party.post(kind, **span(1 if "PB-07" in party.sim.options.quirks else 60))
    assert status == 200, stream
    await faster(party, stream)
    await until(lambda: party.ended("stream.stopped"), 10.0)
    return str(party.ended("stream.stopped")[-1]["reason"])


async def downloaded(party: Party, kind: str) -> dict[str, Any]:
    """Begin a download that the device does not end; what became of it."""
    status, job = await party.post(kind, **span(2), speed=8, original=False)
    assert status == 202, job
    return await party.bench.over(job["id"])


async def taken_back(party: Party, kind: str) -> str:
    """Begin, and end it at once."""
    bodies: dict[str, dict[str, Any]] = {
        "playback": span(60),
        "download": {**span(600), "speed": 1},
        "broadcast": {"way": "broadcast"},
        "talk": {"way": "talk"},
    }
    what = kind if kind in RECORDED else "talk"
    status, made = await party.post(what, **bodies[kind])
    assert status in (200, 202), made
    if kind == "download":
        await until(lambda: party.bench.downloads.get(made["id"]).frames > 5)
    listed = {"playback": "streams", "download": "downloads"}.get(kind, "talks")
    answer = await party.bench.client.delete(f"/api/v1/{listed}/{made['id']}")
    assert answer.status_code == 204, answer.text
    return str(made["state"])


Ask = Callable[[Party, str], Awaitable[Any]]
SOUND: Final = {"talk_transport": "tcp-active"}
ASKED: Final[dict[str, dict[str, Ask]]] = {
    "INV-09": dict.fromkeys(CALLS, refused),
    "INV-11": dict.fromkeys(CALLS, refused),
    "INV-13-ALL": dict.fromkeys(CALLS, refused),
    "INV-30": dict.fromkeys(CALLS, refused),
    "F-05-NO-SDP": dict.fromkeys(CALLS, refused),
    "F-05-NO-RTP": {**dict.fromkeys(RECORDED, refused), "talk": taken_back},
    "INV-03-EACH": dict.fromkeys(RECORDED, refused),
    "TK-01-TALK": {"broadcast": refused},
    "TK-02-ALL": {"broadcast": refused},
    "TK-04-UNREAD": {"broadcast": refused},
    "TK-05-G729": {"broadcast": refused},
    "INV-21": {"broadcast": refused, "talk": refused},
    "PB-07": {"playback": played_out, "download": downloaded},
    "PB-11-MIDDLE": {"playback": played_out, "download": refused},
    "F-06": dict.fromkeys((*RECORDED, "broadcast", "talk"), taken_back),
}


async def ask_all(path: Path) -> Outcome:
    devices = {row: {"quirks": (row,), **(SOUND if row == "INV-21" else {})} for row in ASKED}
    outcome, turn = Outcome(), asyncio.Semaphore(AT_ONCE)
    async with refusal_bench(path, devices) as bench:
        bench.running.devices.registry.require(bench.of("INV-21").id).media_transport = "tcp-passive"
        before = await bench.open()

        async def ask(row: str) -> None:
            for kind, how in ASKED[row].items():
                async with turn:
                    try:
                        outcome.told[row, kind] = await how(bench.of(row), kind)
                    except (AssertionError, TimeoutError) as error:
                        outcome.told[row, kind] = error

        await asyncio.gather(*map(ask, ASKED))
        outcome.calls = bench.calls()
        bench.hang_up("F-06")
        outcome.left = await bench.left(before)
        outcome.files = files_of(bench)
        outcome.refused_with = {
            row: {note.facts["status"] for note in sim.noted("listen_refused")}
            for row, sim in bench.sims.items()
        }
    return outcome


def files_of(bench: RefusalBench) -> dict[str, list[str]]:
    """By device: what its downloads that are listed left, but for manifests and what they name."""
    found = {}
    for view in bench.downloads.list():
        named = {"manifest.json", *(file.name for file in view.originals)}
        if view.file is not None:
            named.add(view.file.name)
        entries = [entry.name for entry in (bench.directory / view.id).iterdir()]
        found[view.id] = sorted(set(entries) - named)
    unlisted = {entry.name for entry in bench.directory.iterdir()} - set(found)
    return {**found, **{name: ["not listed"] for name in unlisted}}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return asyncio.run(ask_all(tmp_path_factory.mktemp("refusals")))


# --- an error of its own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CALLS)
def test_inv09_404(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-09", kind] == Told("gb.sip.rejected", 404)


@pytest.mark.parametrize("kind", CALLS)
def test_inv11_486(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-11", kind] == Told("gb.sip.rejected", 486)


@pytest.mark.parametrize("kind", CALLS)
def test_inv13_all_488(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-13-ALL", kind] == Told("gb.sip.rejected", 488)


@pytest.mark.parametrize("kind", CALLS)
def test_inv30_no_answer(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-30", kind] == Told("gb.sip.no_answer")


@pytest.mark.parametrize("kind", CALLS)
def test_f05_no_sdp_an_answer_without_sdp(outcome: Outcome, kind: str) -> None:
    assert outcome.told["F-05-NO-SDP", kind] == Told("gb.sdp.bad_sdp")


@pytest.mark.parametrize("kind", RECORDED)
def test_f05_no_rtp(outcome: Outcome, kind: str) -> None:
    assert outcome.told["F-05-NO-RTP", kind] == Told("gb.media.no_rtp")


@pytest.mark.parametrize("kind", RECORDED)
def test_inv03_each_wrong_ssrc(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-03-EACH", kind] == Told("gb.media.ssrc_mismatch")


def test_tk01_talk_the_broadcast_is_refused(outcome: Outcome) -> None:
    assert outcome.told["TK-01-TALK", "broadcast"] == Told("gb.sip.command_failed")


def test_tk02_all_the_device_does_not_call(outcome: Outcome) -> None:
    assert outcome.told["TK-02-ALL", "broadcast"] == Told("gb.sip.no_call")


def test_tk04_unread_the_call_of_the_device_cannot_be_read(outcome: Outcome) -> None:
    assert outcome.told["TK-04-UNREAD", "broadcast"] == Told("gb.sdp.bad_sdp")
    assert outcome.refused_with["TK-04-UNREAD"] == {400}


def test_tk05_g729_the_device_calls_for_what_cannot_be_sent(outcome: Outcome) -> None:
    assert outcome.told["TK-05-G729", "broadcast"] == Told("gb.codec.codec_unsupported")
    assert outcome.refused_with["TK-05-G729"] == {488}


@pytest.mark.parametrize("kind", ["broadcast", "talk"])
def test_inv21_no_connection_for_sound(outcome: Outcome, kind: str) -> None:
    assert outcome.told["INV-21", kind] == Told("gb.media.tcp_not_connected")


def test_f05_no_rtp_a_device_that_only_listens_can_be_talked_to(outcome: Outcome) -> None:
    assert outcome.told["F-05-NO-RTP", "talk"] == "talking"


# --- the device never ends --------------------------------------------------------------------------------------------


def test_pb07_a_playback_that_never_ends_is_ended_by_our_clock(outcome: Outcome) -> None:
    assert outcome.told["PB-07", "playback"] == "end_time"


def test_pb07_a_download_that_never_ends_is_ended_and_says_so(outcome: Outcome) -> None:
    done = outcome.told["PB-07", "download"]
    assert (done["state"], [part["ended"] for part in done["parts"]]) == ("complete", ["end_time"])
    assert any("went on past the end" in note for note in done["notes"])


def test_pb11_middle_a_playback_that_stands_still(outcome: Outcome) -> None:
    assert outcome.told["PB-11-MIDDLE", "playback"] == "silent"


def test_pb11_middle_a_download_that_stands_still(outcome: Outcome) -> None:
    assert outcome.told["PB-11-MIDDLE", "download"] == Told("gb.media.silent")


@pytest.mark.parametrize("kind", [*RECORDED, "broadcast", "talk"])
def test_f06_a_device_that_is_deaf_to_bye(outcome: Outcome, kind: str) -> None:
    assert isinstance(outcome.told["F-06", kind], str), outcome.told["F-06", kind]


# --- nothing is left --------------------------------------------------------------------------------------------------


def test_nothing_is_left_open(outcome: Outcome) -> None:
    assert outcome.left == {}


def test_no_device_is_left_in_a_call(outcome: Outcome) -> None:
    assert outcome.calls == {"F-06"}, "it is deaf to BYE and goes on"


def test_no_file_is_left_but_what_a_download_names(outcome: Outcome) -> None:
    assert outcome.files
    assert not [files for files in outcome.files.values() if files]
