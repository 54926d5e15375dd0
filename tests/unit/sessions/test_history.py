"""Playback and download on fakes: what is asked, how it is steered, what ends it, what is left."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Pause, Resume, Scale, Seek
from gb28181gw.media.engine import EventKind, StreamCounters
from gb28181gw.outputs.source import Viewer
from gb28181gw.sessions.history import HistoryLimits, next_recorded
from gb28181gw.sessions.models import CallRecord, Effect, StreamView
from gb28181gw.sessions.stream import StreamLimits
from tests.support.devices import until
from tests.support.sessions import CHANNEL, DEVICE, PLATFORM, Bench, FakeIncoming, Reply, answer_sdp

VIEWER = Viewer(client="127.0.0.1:1", kind="http_flv", grant_id="g")
START = datetime(2024, 5, 1, tzinfo=UTC)
END = START + timedelta(minutes=10)
FAST = HistoryLimits(
    silence_s=0.1, download_silence_s=0.1, look_s=0.01, effect_s=0.2, tail_s=0.02, end_silence_s=0.05
)
STATUS = (
    b"<?xml version='1.0'?><Notify><CmdType>MediaStatus</CmdType><SN>1</SN><DeviceID>"
    + CHANNEL.encode()
    + b"</DeviceID><NotifyType>121</NotifyType></Notify>"
)


async def playing(bench: Bench) -> StreamView:
    return await bench.sessions.start_playback(DEVICE, CHANNEL, START, END)


def show(bench: Bench, stream_id: str, seconds: float, device_s: float | None = None) -> None:
    """The stream's newest picture: on its own clock, and on the device's."""
    bench.engine.shown[stream_id] = StreamCounters(
        pictures=1 + round(seconds * 25),
        picture_90k=round(seconds * 90_000),
        device_90k=round((seconds if device_s is None else device_s) * 90_000),
    )
    bench.engine.receivers[bench.engine.newest].counters.packets += 10


async def ended(bench: Bench, stream_id: str) -> str:
    """The reason, once the stream is gone."""
    async with asyncio.timeout(5):
        while any(view.id == stream_id for view in bench.sessions.list()):
            await asyncio.sleep(0.005)
    return bench.reasons[-1]


class Told(Bench):
    """A bench that remembers why streams ended."""

    def __init__(self, history: HistoryLimits = FAST, **limits: float) -> None:
        super().__init__(
            limits=StreamLimits(bye_wait_s=0.2, retry_pauses_s=(0.0, 0.0), **limits), history=history
        )
        self.reasons: list[str] = []
        self.sessions.on_ended(lambda view, reason: self.reasons.append(reason))


async def test_the_offer_of_a_playback() -> None:
    bench = Told()
    view = await playing(bench)
    target, sdp, subject = bench.agent.invites[0]
    lines = sdp.decode().split("\r\n")
    assert target.user == CHANNEL
    assert {"s=Playback", f"u={CHANNEL}:0", "t=1714521600 1714522200"} <= set(lines)
    ssrc = next(line[2:] for line in lines if line.startswith("y="))
    assert ssrc.startswith("120000")  # history, digits 4 to 8 of our id
    assert subject == f"{CHANNEL}:{ssrc},{PLATFORM}:0"
    assert (view.kind, view.history and view.history.end - view.history.start) == ("playback", 600.0)
    assert not any(line.startswith("a=downloadspeed") for line in lines)
    await bench.sessions.stop(view.id)
    await bench.assert_clean()


async def test_the_offer_of_a_download_and_the_size_in_its_answer() -> None:
    bench = Told()
    sized = answer_sdp("1200000001").replace(b"a=sendonly", b"a=sendonly\r\na=filesize:4711")
    bench.agent.replies = [Reply(sdp=sized)]
    prepared: list[str] = []

    async def prepare(stream_id: str) -> None:
        assert bench.agent.invites == []
        prepared.append(stream_id)

    view = await bench.sessions.start_download(DEVICE, CHANNEL, START, END, speed=4, prepare=prepare)
    assert {"s=Download", "a=downloadspeed:4"} <= set(bench.agent.invites[0][1].decode().split("\r\n"))
    assert prepared == [view.id]
    await asyncio.sleep(0.03)
    history = bench.sessions.get(view.id).history
    assert history is not None
    assert history.file_size == 4711
    await bench.sessions.stop(view.id)
    await bench.assert_clean()


async def test_the_centre_is_asked_by_the_id_of_the_device() -> None:
    bench = Told()
    view = await bench.sessions.start_playback(DEVICE, CHANNEL, START, END, centre=True)
    assert bench.agent.invites[0][0].user == DEVICE
    assert f"u={CHANNEL}:0".encode() in bench.agent.invites[0][1]
    await bench.sessions.stop(view.id)


async def test_several_at_once_have_their_own_ports_and_ssrcs() -> None:
    bench = Told()
    views = [await playing(bench) for _ in range(3)]
    live = await bench.sessions.start_live(DEVICE, CHANNEL)
    assert len({view.id for view in (*views, live)}) == 4
    assert (bench.ports.in_use, bench.ssrcs.in_use, len(bench.agent.invites)) == (4, 4, 4)
    for view in (*views, live):
        await bench.sessions.stop(view.id)
    await bench.assert_clean()


@pytest.mark.parametrize(
    ("start", "end"), [(END, START), (START, START), (START, START + timedelta(days=40))]
)
async def test_a_span_that_is_none_takes_nothing(start: datetime, end: datetime) -> None:
    bench = Told()
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_playback(DEVICE, CHANNEL, start, end)
    assert caught.value.code == "gb.route.invalid"
    await bench.assert_clean()


# --- steering -----------------------------------------------------------------------------------------------------


async def test_each_control_is_one_info_with_its_own_cseq() -> None:
    bench = Told()
    view = await playing(bench)
    for action in (Pause(), Resume(), Seek(60), Scale(2)):
        await bench.sessions.control(view.id, action)
    bodies = [body.decode().split("\r\n")[:2] for _, body in bench.agent.infos]
    assert bodies == [
        ["PAUSE RTSP/1.0", "CSeq: 1"],
        ["PLAY RTSP/1.0", "CSeq: 2"],
        ["PLAY RTSP/1.0", "CSeq: 3"],
        ["PLAY RTSP/1.0", "CSeq: 4"],
    ]
    await bench.sessions.stop(view.id)
    await bench.assert_clean()


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        ((488, b""), "gb.sip.rejected", 488),
        ((200, b"RTSP/1.0 451 No\r\nCSeq: 1\r\n\r\n"), "gb.sip.command_failed", None),
        (None, "gb.sip.no_answer", None),
    ],
)
async def test_a_refused_control_changes_nothing(
    answer: tuple[int, bytes] | None, code: str, status: int | None
) -> None:
    bench = Told()
    view = await playing(bench)
    bench.agent.info_answers = [answer]
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.control(view.id, Pause())
    assert (caught.value.code, caught.value.sip_status) == (code, status)
    history = bench.sessions.get(view.id).history
    assert history is not None
    assert not history.paused
    assert (len(bench.agent.infos), bench.sessions.get(view.id).state) == (1, "running")
    await bench.sessions.stop(view.id)


async def test_pb08_an_ok_that_the_stream_does_not_show_is_told() -> None:
    bench = Told()
    view = await playing(bench)
    bench.agent.info_answers = [(200, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nRTP-Info: seq=1;rtptime=2\r\n\r\n")]
    told = await bench.sessions.control(view.id, Seek(300))
    assert (told.effect, told.rtsp_status, told.answer) == (
        Effect.WAITING,
        200,
        "RTSP/1.0 200 OK | CSeq: 1 | RTP-Info: seq=1;rtptime=2",
    )
    shown = 1.0
    async with asyncio.timeout(10):
        while not bench.bus.counts["playback.no_effect"]:
            shown += 0.01
            show(bench, view.id, shown)
            await asyncio.sleep(0.005)
    history = bench.sessions.get(view.id).history
    assert history is not None and history.control is not None
    assert history.control.effect is Effect.NONE
    assert history.position_s < 30
    assert bench.bus.counts["playback.no_effect"] == 1
    await bench.sessions.stop(view.id)


async def test_a_seek_that_the_stream_shows_is_seen() -> None:
    bench = Told()
    view = await playing(bench)
    show(bench, view.id, 1)
    await asyncio.sleep(0.03)
    await bench.sessions.control(view.id, Seek(300))
    show(bench, view.id, 1.04, 300)
    await asyncio.sleep(0.03)
    history = bench.sessions.get(view.id).history
    assert history is not None and history.control is not None
    assert (history.control.effect, history.position_s) == (Effect.SEEN, 300)
    await bench.sessions.stop(view.id)


# --- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["MESSAGE", "INFO"])
async def test_media_status_in_the_dialog_ends_it(method: str) -> None:
    bench = Told()
    view = await playing(bench)
    show(bench, view.id, 100)
    incoming = FakeIncoming(method, body=STATUS)
    bench.agent.watchers["call-1"](incoming)
    assert incoming.answers == [200]
    assert await ended(bench, view.id) == "end_of_file"
    assert bench.agent.byes == ["call-1"]
    await bench.assert_clean()


@pytest.mark.parametrize(
    ("channel", "call_id", "found"),
    [(CHANNEL, "call-1", True), (CHANNEL, "other", True), (DEVICE, "other", True), ("x", "other", False)],
)
async def test_pb12_media_status_outside_the_dialog_finds_its_stream(
    channel: str, call_id: str, found: bool
) -> None:
    bench = Told()
    view = await playing(bench)
    live = await bench.sessions.start_live(DEVICE, CHANNEL)
    assert bench.sessions.media_status(DEVICE, channel, 121, call_id) is found
    if found:
        assert await ended(bench, view.id) == "end_of_file"
    assert [stream.id for stream in bench.sessions.list() if stream.kind == "live"] == [live.id]


async def test_pb17_of_two_playbacks_of_a_channel_the_call_id_decides() -> None:
    bench = Told()
    first, second = await playing(bench), await playing(bench)
    assert not bench.sessions.media_status(DEVICE, CHANNEL, 121, "other")
    assert bench.sessions.media_status(DEVICE, CHANNEL, 121, "call-2")
    assert await ended(bench, second.id) == "end_of_file"
    assert bench.sessions.get(first.id).state == "running"
    await bench.sessions.stop(first.id)


async def test_pb14_a_121_while_packets_come_ends_nothing() -> None:
    bench = Told()
    view = await playing(bench)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    for tenth in range(20):
        show(bench, view.id, 1 + tenth / 10)
        await asyncio.sleep(0.005)
    assert bench.sessions.get(view.id).state == "running"
    assert await ended(bench, view.id) == "end_of_file"


async def test_pb14_behind_the_121_of_a_file_the_next_is_asked_for_while_somebody_watches() -> None:
    bench = Told()
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    show(bench, view.id, 199.96)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    await until(lambda: len(bench.agent.invites) == 2 and bench.sessions.get(view.id).state == "running")
    assert b"t=1714521800 1714522200" in bench.agent.invites[1][1]
    assert bench.agent.byes == ["call-1"]
    show(bench, view.id, 599.96)
    bench.agent.watchers["call-2"](FakeIncoming("MESSAGE", body=STATUS))
    assert await ended(bench, view.id) == "end_of_file"
    assert len(bench.agent.invites) == 2
    lease.release()
    await bench.assert_clean()


async def test_pb14_a_pause_in_the_next_file_is_no_end() -> None:
    bench = Told(HistoryLimits(look_s=0.01, tail_s=0.05, file_s=0.1, end_silence_s=0.1, effect_s=5.0))
    view = await playing(bench)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    for tenth in range(30):
        show(bench, view.id, 20 + tenth / 10)
        await asyncio.sleep(0.01)
    await bench.sessions.control(view.id, Pause())
    await asyncio.sleep(0.3)
    assert bench.sessions.get(view.id).state == "running"
    await bench.sessions.control(view.id, Resume())
    assert await ended(bench, view.id) == "end_of_file"  # nothing came after all
    await bench.assert_clean()


async def test_pb14_the_next_file_is_asked_for_where_the_list_says_that_it_begins() -> None:
    bench = Told()
    begin = START.timestamp()

    async def recorded(*_: object, **__: object) -> list[tuple[float, float]]:
        return [(begin - 60, begin + 200), (begin + 260, begin + 600)]

    bench.sessions.recorded = recorded
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    await bench.sessions.control(view.id, Scale(4.0))
    show(bench, view.id, 199.96)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    await until(lambda: len(bench.agent.infos) == 2)
    assert b"t=1714521860 1714522200" in bench.agent.invites[1][1]
    assert [b"Scale: 4" in body for _, body in bench.agent.infos] == [True, True]
    history = bench.sessions.get(view.id).history
    assert history is not None
    assert (history.gaps, history.scale, history.position_s) == (((200.0, 60.0),), 4.0, 260.0)
    lease.release()
    await bench.sessions.stop(view.id)


@pytest.mark.parametrize(
    ("after", "found"), [(0.0, 10.0), (15.0, 15.0), (19.5, 30.0), (25.0, 30.0), (50.0, None)]
)
def test_pb14_what_is_recorded_next(after: float, found: float | None) -> None:
    assert next_recorded([(10.0, 20.0), (30.0, 40.0)], after) == found


async def test_pb14_a_device_that_has_nothing_further_has_come_to_its_end() -> None:
    bench = Told()
    bench.agent.replies = [Reply(), *[Reply(status=404)] * 4]
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    show(bench, view.id, 199.96)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    assert await ended(bench, view.id) == "end_of_file"
    assert bench.bus.counts["stream.failed"] == 0
    lease.release()
    await bench.assert_clean()


async def test_pb14_a_device_that_repeats_its_end_is_not_asked_for_ever() -> None:
    bench = Told()
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    show(bench, view.id, 199.96)
    for number in range(1, 4):
        await until(lambda number=number: f"call-{number}" in bench.agent.watchers)  # type: ignore[misc]
        await until(lambda: bench.sessions.get(view.id).state == "running")
        bench.agent.watchers[f"call-{number}"](FakeIncoming("MESSAGE", body=STATUS))
    assert await ended(bench, view.id) == "end_of_file"
    assert len(bench.agent.invites) == 3
    lease.release()
    await bench.assert_clean()


async def test_pb11_silence_at_the_end_of_the_span_is_its_end() -> None:
    bench = Told(HistoryLimits(look_s=0.01, end_silence_s=0.05))
    view = await playing(bench)
    show(bench, view.id, 599)
    assert await ended(bench, view.id) == "end_silent"
    await bench.assert_clean()


async def test_pb07_far_past_the_end_our_clock_ends_it() -> None:
    bench = Told(HistoryLimits(look_s=0.01))
    view = await playing(bench)
    show(bench, view.id, 615)
    assert await ended(bench, view.id) == "end_time"


async def test_silence_means_nothing_while_paused() -> None:
    bench = Told(HistoryLimits(look_s=0.01, silence_s=0.05, effect_s=5.0))
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    await bench.sessions.control(view.id, Pause())
    await asyncio.sleep(0.2)
    assert bench.sessions.get(view.id).state == "running"
    assert len(bench.agent.invites) == 1
    lease.release()
    await bench.sessions.stop(view.id)


async def test_silence_in_the_middle_asks_again_from_there_while_somebody_watches() -> None:
    bench = Told(HistoryLimits(look_s=0.01, silence_s=0.1, tail_s=0.02))
    view = await playing(bench)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    show(bench, view.id, 200)
    async with asyncio.timeout(5):
        while len(bench.agent.invites) < 2:
            await asyncio.sleep(0.01)
    assert b"t=1714521800 1714522200" in bench.agent.invites[1][1]
    assert bench.agent.byes == ["call-1"]
    lease.release()
    await bench.sessions.stop(view.id)
    await bench.assert_clean()


async def test_without_a_viewer_silence_is_the_end() -> None:
    bench = Told(HistoryLimits(look_s=0.01, silence_s=0.1))
    view = await playing(bench)
    assert await ended(bench, view.id) == "silent"
    assert bench.agent.byes == ["call-1"]
    await bench.assert_clean()


async def test_a_broken_download_is_left_to_who_wants_the_file() -> None:
    bench = Told()
    view = await bench.sessions.start_download(DEVICE, CHANNEL, START, END, speed=8)
    lease = await bench.sessions.lease_stream(view.id, VIEWER)
    show(bench, view.id, 100)
    bench.engine.tell(bench.engine.newest, EventKind.DISCONNECTED)
    assert await ended(bench, view.id) == "silent"
    assert len(bench.agent.invites) == 1
    lease.release()
    await bench.assert_clean()


async def test_an_end_before_the_first_picture_is_its_own_error() -> None:
    bench = Told()
    bench.agent.replies = [Reply(media=False)]
    starting = asyncio.create_task(playing(bench))
    async with asyncio.timeout(5):
        while "call-1" not in bench.agent.watchers:
            await asyncio.sleep(0)
    bench.agent.watchers["call-1"](FakeIncoming("MESSAGE", body=STATUS))
    bench.agent.replies = [Reply(status=404), Reply(status=404), Reply(status=404)]
    with pytest.raises(GatewayError) as caught:
        await starting
    assert "MediaStatus 121" in caught.value.detail
    await bench.assert_clean()


@pytest.mark.parametrize(
    ("reply", "code", "status"),
    [
        (Reply(status=404), "gb.sip.rejected", 404),
        (Reply(status=486), "gb.sip.rejected", 486),
        (Reply(status=488), "gb.sip.rejected", 488),
        (Reply(sdp=b"nothing"), "gb.sdp.bad_sdp", None),
    ],
)
async def test_a_refusal_leaves_nothing_open(reply: Reply, code: str, status: int | None) -> None:
    bench = Told()
    bench.directory.setting = "udp"
    bench.directory.only_channel = False
    bench.agent.replies = [reply] * 8
    with pytest.raises(GatewayError) as caught:
        await playing(bench)
    assert (caught.value.code, caught.value.sip_status) == (code, status)
    await bench.assert_clean()
    assert bench.reasons == []


async def test_who_asked_and_left_leaves_nothing() -> None:
    bench = Told()
    bench.agent.replies = [Reply(silent=True)]
    starting = asyncio.create_task(playing(bench))
    async with asyncio.timeout(5):
        while not bench.agent.invites:
            await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await bench.assert_clean()
    assert bench.agent.cancelled == 1


async def test_after_a_restart_a_recording_is_ended_and_not_adopted() -> None:
    bench = Told()
    view = await playing(bench)
    [record] = bench.store.records.values()
    assert isinstance(record, CallRecord)
    assert not record.live
    after = Told()
    after.store.records[record.id] = record
    await after.sessions.recover()
    async with asyncio.timeout(5):
        while after.store.records:
            await asyncio.sleep(0.005)
    assert after.agent.byes == ["call-1"]
    assert after.sessions.counters.adopted == 0
    await bench.sessions.stop(view.id)
