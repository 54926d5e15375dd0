"""The life of a live stream, on fakes: starting, sharing, retrying, ending."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.media.engine import EventKind, MediaTransport
from gb28181gw.outputs.source import Viewer
from gb28181gw.sessions.call import CallLimits
from gb28181gw.sessions.models import CallRecord, StreamState
from gb28181gw.sessions.stream import StreamLimits
from tests.support.sessions import CHANNEL, DEVICE, Bench, FakeIncoming, Reply, answer_sdp

VIEWER = Viewer(client="127.0.0.1:1", kind="http_flv", grant_id="g")
UDP = MediaTransport.UDP
PLATFORM_BELOW = "34020000002000000009"
SHORT = CallLimits(answer_s=0.05, first_packet_s=0.05, key_frame_s=0.05)


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not met():
            await asyncio.sleep(0)


async def fails(bench: Bench, transport: MediaTransport | None = UDP) -> GatewayError:
    """The error that the start of the channel gives."""
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_live(DEVICE, CHANNEL, transport=transport)
    await bench.assert_clean()
    return caught.value


async def test_a_channel_plays_and_delete_ends_it_with_bye() -> None:
    bench = Bench()
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert (view.state, view.kind, view.transport) == ("running", "live", "udp")
    assert bench.agent.acks == ["call-1"]
    assert bench.sessions.get(view.id).ssrc == view.ssrc
    assert len(view.ssrc) == 10 and view.ssrc.startswith("020000")
    await bench.sessions.stop(view.id)
    assert bench.agent.byes == ["call-1"]
    await bench.assert_clean()
    with pytest.raises(GatewayError, match="no stream"):
        bench.sessions.get(view.id)


async def test_inv29_subject_carries_channel_ssrc_and_our_id() -> None:
    bench = Bench()
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    target, sdp, subject = bench.agent.invites[0]
    assert target.user == CHANNEL
    assert subject == f"{CHANNEL}:{view.ssrc},34020000002000000001:0"
    assert f"y={view.ssrc}\r\n".encode() in sdp
    assert b"o=34020000002000000001 0 0 IN IP4 127.0.0.1\r\n" in sdp
    await bench.sessions.close()


async def test_inv28_one_invite_for_many_callers_at_once() -> None:
    bench = Bench()
    views = await asyncio.gather(*(bench.sessions.start_live(DEVICE, CHANNEL) for _ in range(20)))
    assert len({view.id for view in views}) == 1
    assert len(bench.agent.invites) == 1
    await bench.sessions.close()
    await bench.assert_clean()


async def test_live_while_it_runs_ignores_another_transport() -> None:
    bench = Bench()
    first = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    second = await bench.sessions.start_live(DEVICE, CHANNEL, transport=MediaTransport.TCP_ACTIVE)
    assert (second.id, second.transport) == (first.id, UDP)
    await bench.sessions.close()


async def test_ses02_the_dialog_is_stored_before_the_ack() -> None:
    bench = Bench()
    stored_at_ack: list[int] = []
    ack = bench.agent.ack
    bench.agent.ack = lambda dialog: (stored_at_ack.append(len(bench.store.records)), ack(dialog))  # type: ignore[method-assign,assignment,func-returns-value]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert stored_at_ack == [1]
    await bench.sessions.close()


@pytest.mark.parametrize("status", [403, 404, 480, 486, 488, 500, 603])
async def test_each_refusal_gives_rejected_with_its_status(status: int) -> None:
    bench = Bench()
    bench.agent.replies = [Reply(status=status)] * 9
    error = await fails(bench)
    assert (error.code, error.sip_status) == ("gb.sip.rejected", status)
    assert bench.names().count("stream.failed") == 1


async def test_f05_no_answer_is_cancelled() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(silent=True)]
    error = await fails(bench)
    assert error.code == "gb.sip.no_answer"
    assert bench.agent.cancelled == 1
    assert bench.agent.byes == []


async def test_f05_200_without_sdp_is_acked_and_ended() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=b"")]
    error = await fails(bench)
    assert error.code == "gb.sdp.bad_sdp"
    assert bench.agent.acks == bench.agent.byes == ["call-1"]


async def test_net09_no_packet_names_the_announced_address() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False)]
    error = await fails(bench)
    assert error.code == "gb.media.no_rtp"
    assert "we announced 127.0.0.1" in error.detail
    assert bench.agent.byes == ["call-1"]


async def test_media_tcp_not_connected_is_its_own_error() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False, sdp=answer_sdp(setup="active"))]
    error = await fails(bench, MediaTransport.TCP_PASSIVE)
    assert error.code == "gb.media.tcp_not_connected"


async def test_packets_without_key_frame_is_its_own_error() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False)]
    started = asyncio.create_task(bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP))
    await until(lambda: bench.agent.acks)
    counters = bench.engine.receivers[1].counters
    counters.packets, counters.frames = 40, 4
    bench.engine.tell(1, EventKind.FIRST_PACKET)
    with pytest.raises(GatewayError) as caught:
        await started
    assert caught.value.code == "gb.media.no_keyframe"
    await bench.assert_clean()


async def test_med34_a_key_frame_is_asked_for_when_none_comes_with_the_first_packets() -> None:
    bench = Bench(call_limits=CallLimits(ask_key_frame_s=0.01))
    bench.agent.replies = [Reply(media=False)]
    started = asyncio.create_task(bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP))
    await until(lambda: bench.agent.acks)
    bench.engine.tell(1, EventKind.FIRST_PACKET)
    await until(lambda: bench.key_frames_asked)
    bench.engine.media(1)
    assert (await started).state == "running"
    assert bench.key_frames_asked == [CHANNEL]
    await bench.sessions.close()


async def test_med18_a_transport_stream_is_told_by_name() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False)]
    started = asyncio.create_task(bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP))
    await until(lambda: bench.agent.acks)
    bench.engine.tell(1, EventKind.FIRST_PACKET)
    bench.engine.tell(1, EventKind.QUIRK, detail="rtp.mpeg_ts")
    with pytest.raises(GatewayError, match="transport stream"):
        await started
    await bench.assert_clean()


async def test_inv02_another_ssrc_in_the_answer_updates_the_open_receiver() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=answer_sdp("0200001234"))]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert [update.ssrc for update in bench.engine.receivers[1].updates] == [200001234]
    assert len(bench.engine.receivers) == 1
    await bench.sessions.close()


async def test_med35_parameter_sets_of_the_answer_are_handed_to_the_receiver() -> None:
    bench = Bench()
    told = (
        answer_sdp("0200001234")
        + b"a=fmtp:98 packetization-mode=1;sprop-parameter-sets=Z0LAHtoCgPaA,aM48gA==\r\n"
    )
    bench.agent.replies = [Reply(sdp=told)]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    (update,) = bench.engine.receivers[1].updates
    assert [unit[0] & 0x1F for unit in update.parameter_sets] == [7, 8]
    await bench.sessions.close()


async def test_inv01_no_y_in_the_answer_keeps_the_offered_ssrc() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=answer_sdp())]
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert bench.engine.receivers[1].updates[0].ssrc == int(view.ssrc)
    await bench.sessions.close()


async def test_inv17_a_private_address_in_the_answer_is_not_expected() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=answer_sdp(host="192.168.1.64"))]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert bench.engine.receivers[1].updates[0].expected_hosts == {"127.0.0.1"}
    await bench.sessions.close()


async def test_inv17_tcp_active_dials_the_transport_address() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=answer_sdp(host="192.168.1.64", setup="passive"))]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=MediaTransport.TCP_ACTIVE)
    assert bench.engine.receivers[1].updates[0].connect == ("127.0.0.1", 6000)
    await bench.sessions.close()


async def test_inv18_both_passive_dials_too() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(sdp=answer_sdp(setup="passive"))]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=MediaTransport.TCP_PASSIVE)
    assert bench.engine.receivers[1].updates[0].connect == ("127.0.0.1", 6000)
    await bench.sessions.close()


async def test_inv15_media_without_an_answer_plays_and_is_cancelled_at_the_end() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(silent=True, early_media=True)]
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert view.state == "running"
    assert "inv.media_without_answer" in bench.directory.quirks
    await bench.sessions.stop(view.id)
    assert bench.agent.cancelled == 1
    await bench.assert_clean()


async def test_inv21_auto_falls_through_the_transports_and_remembers() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False)]
    view = await bench.sessions.start_live(DEVICE, CHANNEL)
    assert view.transport == "udp"
    assert bench.directory.way == "udp"
    assert bench.agent.byes == ["call-1"]
    await bench.sessions.close()


async def test_inv21_all_ways_failed_tells_each_attempt() -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [Reply(media=False)] * 3
    error = await fails(bench, None)
    assert [way in error.detail for way in ("tcp-passive:", "udp:", "tcp-active:")] == [True] * 3


async def test_inv13_488_is_asked_again_with_ps_alone() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(status=488)]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert b"RTP/AVP 96 98" in bench.agent.invites[0][1]
    assert b"RTP/AVP 96\r\n" in bench.agent.invites[1][1]
    assert bench.directory.payloads is PayloadSet.PS_ONLY  # remembered: asked so first the next time
    await bench.sessions.close()


async def test_inv13_the_dialect_is_offered_first_and_every_other_list_once() -> None:
    bench = Bench()
    bench.directory.payloads = PayloadSet.EXTENDED
    bench.agent.replies = [Reply(status=488)] * 2
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    offers = [sdp.partition(b"RTP/AVP ")[2].partition(b"\r\n")[0] for _, sdp, _ in bench.agent.invites]
    assert offers == [b"96 126 125 99 34 98 97", b"96", b"96 98 97 99"]
    await bench.sessions.close()


async def test_inv09_404_asks_the_device_itself_when_it_has_one_channel() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(status=404)]
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert [target.user for target, _, _ in bench.agent.invites] == [CHANNEL, DEVICE]
    await bench.sessions.close()
    many = Bench()
    many.directory.only_channel = False
    many.agent.replies = [Reply(status=404)]
    assert (await fails(many)).sip_status == 404
    assert len(many.agent.invites) == 1


async def test_inv11_486_ends_forgotten_dialogs_and_tries_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    orphan = next(iter(bench.store.records.values()))
    bench.store.records["old"] = CallRecord(
        id="old",
        device_id=DEVICE,
        channel_id="34020000001320000002",
        dialog={**orphan.dialog, "call_id": "old-call"},
        ssrc=1,
        port=2,
        transport="udp",
        payloads={},
        created_at=0,
    )
    bench.agent.replies = [Reply(status=486)]
    other = await bench.sessions.start_live(DEVICE, "34020000001320000002", transport=UDP)
    assert bench.agent.byes == ["old-call"]
    assert {view.id, other.id} == {one.id for one in bench.sessions.list()}
    await bench.sessions.close()


async def test_a_port_of_another_program_is_passed_over() -> None:
    bench = Bench()
    bench.engine.refuse_binds = 3
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert bench.ports.taken == 3
    await bench.sessions.close()


async def test_f14_no_port_can_be_bound() -> None:
    bench = Bench()
    bench.engine.refuse_binds = 99
    assert (await fails(bench)).code == "gb.media.bind_failed"
    assert bench.agent.invites == []


async def test_offline_is_told_before_anything_is_taken() -> None:
    bench = Bench()
    bench.directory.offline = True
    assert (await fails(bench)).code == "gb.route.offline"
    assert bench.names() == []


async def test_a_stream_without_consumers_ends_after_idle_stop() -> None:
    bench = Bench(limits=StreamLimits(idle_stop_s=0.05, bye_wait_s=0.2))
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    await bench.assert_clean()
    assert bench.agent.byes == ["call-1"]


async def test_a_consumer_keeps_the_stream_and_the_last_one_ends_it() -> None:
    bench = Bench(limits=StreamLimits(idle_stop_s=0.05, bye_wait_s=0.2))
    leases = [await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER) for _ in range(3)]
    assert bench.sessions.list()[0].consumers == 3
    for lease in leases[:2]:
        lease.release()
        lease.release()
    await asyncio.sleep(0.1)  # the idle time passes with one consumer left: nothing must happen
    assert bench.sessions.list()[0].consumers == 1
    leases[2].release()
    await bench.assert_clean()
    assert len(bench.agent.invites) == 1


async def test_ses04_bye_of_the_device_is_answered_and_the_stream_comes_back() -> None:
    bench = Bench()
    await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER)
    bye = FakeIncoming("BYE")
    bench.agent.watchers["call-1"](bye)
    await until(lambda: len(bench.agent.acks) == 2)
    await until(lambda: bench.sessions.list()[0].state == "running")
    assert bye.answers == [200]
    assert bench.agent.byes == []
    assert len(bench.sessions.list()) == 1
    assert bench.names().count("stream.retrying") == 1
    await bench.sessions.close()
    await bench.assert_clean()


async def test_ses04_bye_of_the_device_with_nobody_watching_ends_the_stream() -> None:
    bench = Bench()
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    bench.agent.watchers["call-1"](FakeIncoming("BYE"))
    await bench.assert_clean()
    assert bench.agent.byes == []


async def test_f06_silence_ends_the_dialog_by_bye_and_invites_again() -> None:
    bench = Bench()
    await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER)
    stream = bench.sessions.list()[0].id
    bench.engine.tell(1, EventKind.SILENCE)
    await until(lambda: len(bench.agent.acks) == 2)
    await until(lambda: bench.sessions.get(stream).state == "running")
    assert bench.agent.byes == ["call-1"]
    assert bench.engine.closed_streams == []
    await bench.sessions.close()


async def test_retries_end_with_the_last_error() -> None:
    bench = Bench()
    lease = await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER)
    bench.agent.replies = [Reply(status=480)] * 4
    bench.engine.tell(1, EventKind.SILENCE)
    await bench.assert_clean()
    lease.release()
    assert len(bench.agent.invites) == 5
    assert bench.names().count("stream.retrying") == 4
    assert bench.names().count("stream.failed") == 1


@pytest.mark.parametrize(
    ("device_id", "deleted", "retries"),
    [(DEVICE, True, 1), (PLATFORM_BELOW, False, 1), (DEVICE, False, 4)],
    ids=["ours", "404-of-a-platform", "404-of-a-device"],
)
async def test_what_is_gone_is_not_invited_again_and_again(
    device_id: str, deleted: bool, retries: int
) -> None:
    """A device that has started anew may not know its cameras yet."""
    bench = Bench()
    lease = await bench.sessions.lease_live(device_id, CHANNEL, VIEWER)
    if deleted:
        bench.directory.gone = True
    else:
        bench.agent.replies = [Reply(status=404)] * 8
    bench.engine.tell(1, EventKind.SILENCE)
    await bench.assert_clean()
    lease.release()
    assert bench.names().count("stream.retrying") == retries
    assert bench.names().count("stream.failed") == 1


@pytest.mark.parametrize(
    ("bye", "reason", "detail"),
    [(True, "device_bye", "sent BYE"), (False, "silent", "closed its media connection")],
)
async def test_a_closed_media_connection_is_told_apart_from_silence_and_from_bye(
    bye: bool, reason: str, detail: str
) -> None:
    bench = Bench(call_limits=CallLimits(farewell_s=30.0 if bye else 0.01))
    retries = bench.bus.subscribe(["stream.retrying"])
    lease = await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER)
    bench.engine.tell(1, EventKind.DISCONNECTED)
    if bye:
        await asyncio.sleep(0)
        bench.agent.watchers["call-1"](FakeIncoming("BYE"))
    event = await retries.next(5.0)
    assert event is not None
    told = event.as_dict()
    assert told["reason"] == reason and detail in str(told["detail"])
    assert bench.agent.byes == ([] if bye else ["call-1"])
    lease.release()
    await bench.sessions.close()


async def test_stop_while_it_starts_cancels_the_invite() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(silent=True)]
    started = asyncio.create_task(bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP))
    await until(lambda: bench.agent.invites)
    await bench.sessions.stop(bench.sessions.list()[0].id)
    with pytest.raises(GatewayError) as caught:
        await started
    assert caught.value.code == "gb.sip.cancelled"
    assert bench.agent.cancelled == 1
    await bench.assert_clean()


async def test_ses08_a_call_while_it_ends_starts_a_new_stream_after_the_bye() -> None:
    bench = Bench()
    first = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    stopping = asyncio.create_task(bench.sessions.stop(first.id))
    await until(lambda: bench.sessions.list()[0].state is StreamState.ENDING)
    second = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    await stopping
    assert second.id != first.id
    assert bench.agent.byes == ["call-1"]
    assert second.state == "running"
    await bench.sessions.close()
    await bench.assert_clean()


async def test_close_ends_everything_and_refuses_new_calls() -> None:
    bench = Bench()
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    await bench.sessions.start_live(DEVICE, "34020000001320000002", transport=UDP)
    await bench.sessions.close()
    assert sorted(bench.agent.byes) == ["call-1", "call-2"]
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_live(DEVICE, CHANNEL)
    assert caught.value.code == "gb.route.shutting_down"
    await bench.assert_clean()


async def test_i2_a_hundred_rounds_leave_nothing() -> None:
    bench = Bench(limits=StreamLimits(bye_wait_s=0.2, idle_stop_s=0.0))
    for number in range(100):
        bench.agent.replies = [Reply(), Reply(status=403), Reply(sdp=b"")][number % 3 : number % 3 + 1]
        with contextlib.suppress(GatewayError):
            await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    await bench.assert_clean()


async def recovered(bench: Bench, *, transport: str = "udp") -> Bench:
    """A second gateway on the store that the first one left behind when it was killed."""
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=MediaTransport(transport))
    after = Bench(call_limits=SHORT)
    after.store = bench.store
    after.context = type(after.context)(
        **{name: getattr(after.context, name) for name in after.context.__slots__ if name != "store"},
        store=bench.store,
    )
    after.ender._store = bench.store
    after.sessions = type(after.sessions)(after.context, after.directory, after.limits)
    return after


async def test_f17_a_device_that_still_sends_is_adopted() -> None:
    after = await recovered(Bench())
    record = next(iter(after.store.records.values()))
    await after.sessions.recover()
    await until(lambda: after.engine.receivers)
    spec = after.engine.receivers[1].spec
    assert (spec.port, spec.ssrc) == (record.port, record.ssrc)
    after.engine.media(1)
    view = await after.sessions.start_live(DEVICE, CHANNEL)
    assert after.agent.invites == []
    assert view.state == "running"
    assert after.sessions.counters.adopted == 1
    await after.sessions.stop(view.id)
    assert after.agent.byes == ["call-1"]
    await after.assert_clean()


async def test_f17_a_dialog_of_tcp_media_is_ended_before_a_new_invite() -> None:
    after = await recovered(Bench(), transport="tcp-passive")
    order: list[str] = []
    send, invite = after.agent.send_in_dialog, after.agent.invite

    async def bye(*args: object, **kwargs: object) -> None:
        order.append("BYE")
        await send(*args, **kwargs)  # type: ignore[arg-type]

    async def call(*args: object, **kwargs: object) -> object:
        order.append("INVITE")
        return await invite(*args, **kwargs)  # type: ignore[arg-type]

    after.agent.send_in_dialog = bye  # type: ignore[assignment,method-assign]
    after.agent.invite = call  # type: ignore[assignment,method-assign]
    await after.sessions.recover()
    await after.sessions.start_live(DEVICE, CHANNEL)
    assert order == ["BYE", "INVITE"]
    await after.sessions.close()
    await after.assert_clean()


async def test_ses01_bye_is_repeated_until_it_is_answered() -> None:
    bench = Bench()
    bench.ender._pauses_s = (0.0,) * 10
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    bench.agent.bye_answers = False
    stopping = asyncio.create_task(bench.sessions.stop(view.id))
    await until(lambda: len(bench.agent.byes) >= 3)
    bench.agent.bye_answers = True
    await stopping
    await bench.assert_clean()
    assert bench.ender.counters.unanswered == 0


async def test_ses01_bye_is_given_up_after_ten() -> None:
    bench = Bench()
    bench.ender._pauses_s = (0.0,) * 10
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    bench.agent.bye_answers = False
    await bench.sessions.stop(view.id)
    await bench.assert_clean()
    assert len(bench.agent.byes) == 10
    assert "stream.bye_unanswered" in bench.names()
