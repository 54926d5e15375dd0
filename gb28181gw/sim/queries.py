"""What a device does about a MANSCDP query or control, once its MESSAGE was answered with 200. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from gb28181gw.gb.manscdp.document import Document
from gb28181gw.sim import bodies
from gb28181gw.sim.bodies import Element, Identity

_BEIJING = timezone(timedelta(hours=8))
_WITH_RESULT = ("RecordCmd", "GuardCmd", "AlarmCmd", "HomePosition")
"""Controls that have an answer (A.2.3.1); a simulated device agrees to all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What is to be sent and done."""

    answers: tuple[Element, ...] = ()
    key_frame_of: str = ""
    """Channel or device whose streams must show a key frame now; empty: none."""
    keepalive_s: float | None = None
    """New interval of keepalives."""


def react(
    document: Document,
    me: Identity,
    *,
    expires_s: int,
    keepalive_s: float,
    now: datetime,
    rng: random.Random,
) -> Reaction:
    """For a message of the platform; an empty reaction to what needs none or is not known."""
    sn = "" if document.sn is None else str(document.sn)
    target = document.device_id or me.device_id
    if document.root == "Query":
        return Reaction(answers=_answers(document, me, sn, target, expires_s, keepalive_s, now, rng))
    if document.root == "Control":
        return _control(document, me, sn, target)
    if document.root == "Notify" and document.cmd_type == "Broadcast":
        return Reaction(answers=(bodies.result(me, "Broadcast", sn, target, "ERROR"),))
    return Reaction()


def _answers(
    document: Document,
    me: Identity,
    sn: str,
    target: str,
    expires_s: int,
    keepalive_s: float,
    now: datetime,
    rng: random.Random,
) -> tuple[Element, ...]:
    command = document.cmd_type
    if command == "Catalog":
        return tuple(bodies.catalog_messages(me, sn, target, rng))
    if command == "DeviceInfo":
        return (bodies.device_info(me, sn, target),)
    if command == "DeviceStatus":
        clock = now.astimezone(_BEIJING).strftime("%Y-%m-%dT%H:%M:%S")
        return (bodies.device_status(me, sn, target, clock),)
    if command == "RecordInfo":
        return (bodies.record_info(me, sn, target),)
    if command == "ConfigDownload":
        if "BasicParam" in document.text("ConfigType").split("/"):
            return (bodies.basic_param(me, sn, target, expires_s, keepalive_s),)
        return (bodies.result(me, command, sn, target, "ERROR"),)
    return ()


def _control(document: Document, me: Identity, sn: str, target: str) -> Reaction:
    if document.cmd_type == "DeviceConfig":
        param = document.fields.get("BasicParam")
        if param is None:
            return Reaction(answers=(bodies.result(me, "DeviceConfig", sn, target, "ERROR"),))
        interval = (param.findtext("HeartBeatInterval") or "").strip()
        return Reaction(
            answers=(bodies.result(me, "DeviceConfig", sn, target, "OK"),),
            keepalive_s=max(1.0, float(interval)) if interval.isdecimal() and interval.isascii() else None,
        )
    if document.text("IFrameCmd") or document.text("IFameCmd"):
        return Reaction(key_frame_of=target)
    if any(name in document.fields for name in _WITH_RESULT):
        return Reaction(answers=(bodies.result(me, "DeviceControl", sn, target, "OK"),))
    return Reaction()
