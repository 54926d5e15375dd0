"""Recordings in an object store: rclone's S3 server is the peer, with outages, wrong keys and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import Event
from gb28181gw.recording import sources, upload
from gb28181gw.recording.models import ObjectStoreError, RecorderState, Segment
from gb28181gw.storage.objects import S3Objects
from tests.support.certificates import authority, signed
from tests.support.plane import until
from tests.support.recording_rig import CHANNEL, DEVICE, Rig, plan, put_files, rig
from tests.support.s3_server import S3Server, s3_server

pytestmark = pytest.mark.interop


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a test."""
    monkeypatch.setattr(upload, "PAUSES_S", (0.05,))
    monkeypatch.setattr(upload, "LOOK_S", 0.05)


def told(r: Rig) -> list[Event]:
    found = []
    while (event := r.events._take()) is not None:
        found.append(event)
    return found


async def record(r: Rig, seconds: int, files: int) -> list[Segment]:
    """So many finished files."""
    await r.recording.put(plan())
    await r.state(RecorderState.RECORDING)
    r.feed(seconds)
    return await r.written(files)


async def uploaded(r: Rig, number: int) -> list[Segment]:
    await until(lambda: r.recording.upload_counters.segments >= number, 10, f"{number} uploads")
    found: list[Segment] = []
    while len(found) < number:
        found = [one for one in await r.segments() if one.object]
    return found


async def fetch(r: Rig) -> bytes:
    start = datetime.fromtimestamp(r.clock.wall() - 3600, UTC)
    return b"".join(await r.recording.file(DEVICE, CHANNEL, start, start + timedelta(hours=2)))


async def test_finished_files_are_in_the_store_and_the_index_knows_it(
    tmp_path: Path, server: S3Server
) -> None:
    async with rig(tmp_path, server.plan()) as r:
        await record(r, 5, 2)
        first, second = (await uploaded(r, 2))[:2]
        begin = datetime.fromtimestamp(first.start, UTC)
        assert first.object == (f"gate/{DEVICE}/{CHANNEL}/{begin:%Y-%m-%d}/{begin:%H%M%S}-{first.id[:8]}.mp4")
        for segment in (first, second):
            assert server.objects[segment.object] == (r.directory / segment.file).read_bytes()
        assert first.local
        (span,) = await r.recording.spans(DEVICE, CHANNEL, begin, begin + timedelta(seconds=10))
        assert (span.segments, span.uploaded) == (3, 2)  # one is being written
        assert await r.store.uploads_waiting() == 0
    seen = {
        event.fields["object"]: event.fields["size"]
        for event in told(r)
        if event.name == "recording.uploaded"
    }
    assert seen == {one.object: one.size for one in (first, second)}


async def test_f17_an_outage_and_a_restart_lose_nothing(tmp_path: Path, server: S3Server) -> None:
    server.stop()
    async with rig(tmp_path, server.plan()) as r:
        await record(r, 5, 2)
        assert r.recording.uploads is not None
        await until(lambda: r.recording.upload_counters.failures >= 3, what="three attempts")
        failed = [event for event in told(r) if event.name == "recording.upload_failed"]
        assert [event.fields["reason"] for event in failed] == ["unreachable"]
        assert r.recording.uploads.failing == "unreachable"
    assert server.objects == {}
    async with rig(tmp_path, server.plan()) as again:
        await until(lambda: again.recording.upload_counters.failures, what="an attempt after the restart")
        assert await again.store.uploads_waiting() == 3  # what was in work was finished by the stop
        server.start()
        found = await uploaded(again, 3)
        assert {one.object: (again.directory / one.file).read_bytes() for one in found} == server.objects
    assert "recording.upload_resumed" in [event.name for event in told(again)]


async def test_s08_a_wrong_key_is_refused_and_told_and_the_right_one_goes_on(
    tmp_path: Path, server: S3Server
) -> None:
    async with rig(tmp_path, server.plan(secret_key="not-the-secret")) as r:
        await record(r, 3, 1)
        await until(lambda: r.recording.upload_counters.failures, what="an attempt")
        (failed,) = [event for event in told(r) if event.name == "recording.upload_failed"]
        assert failed.fields["reason"] == "refused"
        assert "SignatureDoesNotMatch" in str(failed.fields["detail"])
        assert "not-the-secret" not in str(failed.fields)
    async with rig(tmp_path, server.plan(access_key="AKIDSOMEBODY")) as r:
        await until(lambda: r.recording.upload_counters.failures, what="an attempt")
        assert await r.store.uploads_waiting() == 2
    assert server.objects == {}
    async with rig(tmp_path, server.plan()) as r:
        await uploaded(r, 2)
    assert len(server.objects) == 2


async def test_what_is_only_in_the_store_is_fetched_and_played(tmp_path: Path, server: S3Server) -> None:
    async with rig(tmp_path) as r:
        await record(r, 7, 3)
        await r.recording.remove(DEVICE, CHANNEL)
        whole = await fetch(r)
        made = await r.segments()
        for segment in made:  # they were made before there was an object store
            await r.store.put_off_upload(segment.id, 0.0)
    async with rig(tmp_path, server.plan(keep_local=False)) as r:
        await uploaded(r, len(made))
        early = datetime.fromtimestamp(made[0].start, UTC) - timedelta(seconds=60)
        await r.recording.lock(
            DEVICE, CHANNEL, early, datetime.fromtimestamp(made[0].start + 0.05, UTC), locked=True
        )
        await r.recording.look()
        found = await r.segments()
        assert [one.local for one in found] == [one.locked for one in found]  # evidence stays in both places
        here = [one for one in found if one.local]
        assert 0 < len(here) < len(made)
        assert {path.relative_to(r.directory) for path in r.mp4s} == {Path(one.file) for one in here}
        assert r.recording.total_bytes == sum(one.size for one in here)
        assert await fetch(r) == whole
        await until(lambda: r.recording.upload_counters.fetched == len(made) - len(here), what="fetches")
        first = datetime.fromtimestamp(made[-1].start, UTC)
        playback = await r.recording.play(DEVICE, CHANNEL, first, first + timedelta(seconds=9))
        assert {track.codec for track in playback.tracks} == {"h264"}
        await until(lambda: not list((r.directory / sources.FOLDER).iterdir()), what="temporary files to go")


async def test_what_the_store_does_not_give_has_a_code(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path, server.plan(keep_local=False)) as r:
        (segment, *_) = await record(r, 3, 1)
        await r.recording.remove(DEVICE, CHANNEL)
        found = await uploaded(r, 2)
        await r.recording.look()
        begin = datetime.fromtimestamp(segment.start, UTC)
        end = begin + timedelta(seconds=9)
        with monkeypatch.context() as patch:
            patch.setattr(sources, "READERS", 0)
            with pytest.raises(GatewayError, match="object store") as caught:
                await r.recording.file(DEVICE, CHANNEL, begin, end)
            assert caught.value.code == "gb.route.busy"
        server.stop()
        for ask in (r.recording.play, r.recording.file):
            with pytest.raises(GatewayError) as caught:
                await ask(DEVICE, CHANNEL, begin, end)
            assert caught.value.code == "gb.media.store_unavailable"
        # Somebody deletes one: it is a gap. And one is not what it was: it is not taken for it.
        (server.root / "cameras" / found[0].object).unlink()
        server.start()
        assert await fetch(r)
        server.stop()
        (server.root / "cameras" / found[1].object).write_bytes(b"short")
        server.start()
        with pytest.raises(GatewayError) as caught:
            await fetch(r)
        assert caught.value.code == "gb.media.store_unavailable"
        server.stop()
        (server.root / "cameras" / found[1].object).unlink()
        server.start()
        with pytest.raises(GatewayError) as caught:
            await fetch(r)
        assert caught.value.code == "gb.media.no_recording"
    reasons = [event.fields["reason"] for event in told(r) if event.name == "recording.fetch_failed"]
    assert {"missing", "mismatch", "unreachable"} == set(reasons)


async def test_f16_retention_takes_copies_first_and_evidence_never(tmp_path: Path, server: S3Server) -> None:
    async with rig(tmp_path, server.plan(), max_gb=2.5e-6, keep_days=30) as r:
        made = await put_files(r, 4, 1000)
        first = datetime.fromtimestamp(made[0].start, UTC)
        await r.recording.lock(DEVICE, CHANNEL, first, first + timedelta(seconds=30), locked=True)
        for segment in made[:3]:
            await r.store.put_off_upload(segment.id, 0.0)
        await uploaded(r, 3)
        await r.recording.look()
        assert [one.local for one in await r.segments()] == [True, False, False, True]
        # Its time is over while the store is away: it goes there as well, later.
        server.stop()
        r.clock.ahead += 31 * 86_400
        await r.recording.sweep()
        assert [one.id for one in await r.store.segments(DEVICE, CHANNEL, first.timestamp() - 60, 2e9)] == [
            made[0].id
        ]
        assert len(server.objects) == 3
        server.start()
        await until(lambda: r.recording.upload_counters.removed == 2, 10, "two objects to be removed")
        assert len(server.objects) == 1
        assert (r.directory / made[0].file).exists()


async def test_a_file_that_is_gone_is_told_and_does_not_hold_up_the_others(
    tmp_path: Path, server: S3Server
) -> None:
    async with rig(tmp_path, server.plan()) as r:
        made = await put_files(r, 2, 1000)
        (r.directory / made[0].file).unlink()
        for segment in made:
            await r.store.put_off_upload(segment.id, 0.0)
        assert [one.id for one in await uploaded(r, 1)] == [made[1].id]
        await until(lambda: r.recording.upload_counters.lost == 1, what="the loss to be told")
        assert await r.store.uploads_waiting() == 0


async def test_what_was_recorded_before_there_was_a_store_is_brought_there_at_the_start(
    tmp_path: Path, server: S3Server
) -> None:
    async with rig(tmp_path) as r:
        made = await put_files(r, 3, 1000)
        assert await r.store.uploads_waiting() == 0
    async with rig(tmp_path, server.plan()) as r:
        assert {one.id for one in await uploaded(r, 3)} == {one.id for one in made}
        queued = [event.fields for event in told(r) if event.name == "recording.upload_queued"]
        assert queued == [{"place": f"{server.endpoint}/cameras", "segments": 3}]
    async with rig(tmp_path, server.plan()) as r:
        assert await r.store.uploads_waiting() == 0
        assert not [event for event in told(r) if event.name == "recording.upload_queued"]


async def test_f17_an_object_of_which_the_index_was_not_told_is_found_again(
    tmp_path: Path, server: S3Server
) -> None:
    """A kill between the upload and its row; then another prefix is configured, and the file's time is over."""
    async with rig(tmp_path) as r:
        for kept in await put_files(r, 2, 1000):
            name = f"earlier/{kept.id}.mp4"
            await r.store.name_upload(kept.id, name)
            (server.root / "cameras" / "earlier").mkdir(exist_ok=True)
            (server.root / "cameras" / name).write_bytes(b"half of it")
        await r.store.remove_segments([f"{0:032x}"])
    server.stop()
    server.start()
    async with rig(tmp_path, server.plan()) as r:
        (found,) = await uploaded(r, 1)
        assert found.object == f"earlier/{1:032x}.mp4"
        await until(lambda: r.recording.upload_counters.removed == 1, 10, "the other one to be removed")
        assert server.objects == {found.object: bytes(1000)}


async def test_s08_tls_is_verified_and_plain_http_has_to_be_asked_for(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    certificate = signed(tmp_path, ca, names="IP:127.0.0.1")
    file = tmp_path / "one.mp4"
    file.write_bytes(bytes(70 << 20))  # in parts
    with s3_server(tmp_path, certificate) as server:
        with pytest.raises(ObjectStoreError) as caught:
            await S3Objects(server.config()).put("one.mp4", file)
        assert caught.value.reason in ("unreachable", "failed")
        trusting = S3Objects(server.config(ca=ca.cert.read_text()))
        assert await trusting.put("one.mp4", file) == 70 << 20
        assert len(server.objects["one.mp4"]) == 70 << 20
