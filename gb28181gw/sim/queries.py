"""What a device does about a MANSCDP query or control, once its MESSAGE was answered with 200. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from gb28181gw.gb.manscdp.document import Document
from gb28181gw.sim import bodies, controls
from gb28181gw.sim.bodies import Element, Identity
from gb28181gw.sim.controls import Asked
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import RecordFile
from gb28181gw.sim.snapshots import SnapshotOrder
from gb28181gw.sim.state import DeviceState

_BEIJING = timezone(timedelta(hours=8))
Recordings = Callable[[float, float], Sequence[RecordFile]]
"""The files of a channel that touch a time, seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What is to be sent and done."""

    answers: tuple[Element, ...] = ()
    key_frame_of: str = ""
    """Channel or device whose streams must show a key frame now; empty: none."""
    keepalive_s: float | None = None
    """New interval of keepalives."""
    later: tuple[controls.Later, ...] = ()
    """Notifications that follow by themselves."""
    snapshots: SnapshotOrder | None = None
    """Pictures to be taken and uploaded."""
    reboot: bool = False
    """The device leaves and comes back."""
    listen_as: str = ""
    """Id of the loudspeaker that now calls the platform (9.12.1); empty: none."""


def react(
    document: Document,
    me: Identity,
    state: DeviceState,
    *,
    expires_s: int,
    keepalive_s: float,
    now: datetime,
    rng: random.Random,
    recordings: Recordings,
) -> Reaction:
    """For a message of the platform; an empty reaction to what needs none or is not known."""
    asked = Asked(
        document=document,
        me=me,
        state=state,
        sn="" if document.sn is None else str(document.sn),
        target=document.device_id or me.device_id,
        now=now.timestamp(),
    )
    if not controls.knows(asked):
        return Reaction()
    if document.root == "Query":
        return Reaction(answers=_answers(asked, expires_s, keepalive_s, now, rng, recordings))
    if document.root == "Control":
        return _control(asked)
    if document.root == "Notify" and document.cmd_type == "Broadcast":
        return _broadcast(asked)
    return Reaction()


def _broadcast(asked: Asked) -> Reaction:
    """OK, and a call; or ERROR."""
    target, quirks = asked.document.text("TargetID"), asked.me.quirks
    known = {asked.me.device_id, *(channel.id for channel in asked.me.channels)}
    outcome = "OK" if target in known and Quirk.TK_01_TALK not in quirks else "ERROR"
    answer = bodies.result(asked.me, "Broadcast", asked.sn, target, outcome)
    deaf = Quirk.TK_02 in quirks and target[10:13] not in ("137", "118", "111")
    calls = outcome == "OK" and not deaf and Quirk.TK_02_ALL not in quirks
    return Reaction(answers=(answer,), listen_as=target if calls else "")


def _answers(
    asked: Asked,
    expires_s: int,
    keepalive_s: float,
    now: datetime,
    rng: random.Random,
    recordings: Recordings,
) -> tuple[Element, ...]:
    me, sn, target, command = asked.me, asked.sn, asked.target, asked.document.cmd_type
    poor = controls.poor(asked)
    if poor is not None:
        return poor
    if command == "Catalog":
        return tuple(bodies.catalog_messages(me, sn, target, rng))
    if command == "DeviceInfo":
        return (bodies.device_info(me, sn, target),)
    if command == "DeviceStatus":
        clock = now.astimezone(_BEIJING).strftime("%Y-%m-%dT%H:%M:%S")
        channel = asked.channel
        return (
            bodies.device_status(me, sn, target, clock, recording=channel.recording, guarded=channel.guarded),
        )
    if command == "RecordInfo":
        span = [_moment(asked.document.text(name)) for name in ("StartTime", "EndTime")]
        return tuple(bodies.record_messages(me, sn, target, recordings(*span), rng))
    if command == "ConfigDownload":
        basic = bodies.basic_param(me, asked.state.basic, expires_s, keepalive_s)
        return controls.read_configs(asked, basic)
    return controls.tell(asked)


def _moment(text: str) -> float:
    """A time of the platform: Beijing time without zone (9.7)."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=_BEIJING).timestamp()
    except ValueError:
        return 0.0


def _control(asked: Asked) -> Reaction:
    document = asked.document
    if document.cmd_type == "DeviceConfig":
        answers, later = controls.configure(asked)
        interval = asked.state.basic.get("HeartBeatInterval", "")
        told = asked.text("BasicParam", "HeartBeatInterval") == interval
        reboot = Quirk.CTL_08_REBOOT in asked.me.quirks
        return Reaction(
            reboot=reboot,
            answers=() if reboot else answers,
            keepalive_s=max(1.0, float(interval))
            if told and interval.isdecimal() and interval.isascii()
            else None,
            later=later,
            snapshots=controls.snapshot_order(asked),
        )
    if document.text("IFrameCmd") or document.text("IFameCmd"):
        return Reaction(key_frame_of=asked.target)
    answers, later = controls.obey(asked)
    return Reaction(answers=answers, later=later)
