"""`gb28181gw simulate platform`: from options to an exit status."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import NodeKind, node_kind
from gb28181gw.gb.manscdp.catalogue import CatalogItem
from gb28181gw.gb.ptz import Move, encode
from gb28181gw.gb.sdp import Transport
from gb28181gw.sim.display import line_of
from gb28181gw.sim.ear import RATE
from gb28181gw.sim.platform import Lower, Platform, PlatformOptions

__all__ = ["PlatformOptions", "PlatformTask", "run_platform"]

_MOVES: Final[Mapping[str, Move]] = {
    "left": Move(pan=-128),
    "right": Move(pan=128),
    "up": Move(tilt=128),
    "down": Move(tilt=-128),
    "in": Move(zoom=8),
    "out": Move(zoom=-8),
}
_MOVE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTask:
    """What to do with the first lower platform that registers."""

    play: str = ""
    """Channel id, or ``first``."""
    output: Path | None = None
    seconds: float = 10.0
    media: str = "udp"
    """``udp``, ``tcp-passive`` or ``tcp-active``, as seen from our offer."""
    ptz: str = ""
    """Direction; moves the played channel, or the first one, for a second."""
    talk: str = ""
    """Channel id, or ``first``: speak a tone to it."""
    hear: Path | None = None
    """WAV file of what it says."""
    subscribe: tuple[str, ...] = ()
    """CmdTypes to subscribe to."""
    duration_s: float = 0.0
    """End after so long; 0: when the task is done, or on a signal where there is none."""
    json: bool = False


def run_platform(options: PlatformOptions, task: PlatformTask) -> int:
    """0: done; 1: what was asked for did not happen, told in a sentence."""
    if task.ptz and task.ptz not in _MOVES:
        print(f"--ptz {task.ptz}: one of {', '.join(_MOVES)}.", file=sys.stderr)
        return 1
    try:
        return uvloop.run(_run(options, task))
    except GatewayError as error:
        print(error.detail, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


async def _run(options: PlatformOptions, task: PlatformTask) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    platform = Platform(options)
    show = _Show(as_json=task.json)
    platform.on_event = show.note
    await platform.start()
    show.note(
        "listening",
        {"address": f"{platform.host}:{platform.port}", "id": options.id, "domain": options.domain},
    )
    work = asyncio.ensure_future(_serve(platform, task, show))
    ended = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait(
            (work, ended), return_when=asyncio.FIRST_COMPLETED, timeout=task.duration_s or None
        )
        if work.done():
            return work.result()
        return 0 if stop.is_set() or not (task.play or task.ptz or task.talk) else 1
    finally:
        for future in (work, ended):
            future.cancel()
        await asyncio.gather(work, ended, return_exceptions=True)
        await platform.close()


async def _serve(platform: Platform, task: PlatformTask, show: _Show) -> int:
    """Show each lower platform's tree once; do the task with the first one."""
    shown: set[str] = set()
    while True:
        waiting = [lower for lower in platform.lowers.values() if lower.id not in shown]
        if not waiting:
            await platform.registered_one_of(shown)
            continue
        lower = waiting[0]
        shown.add(lower.id)
        items = await platform.catalogue(lower)
        show.tree(lower, items)
        for cmd_type in task.subscribe:
            await platform.subscribe(lower, cmd_type)
        if task.play or task.ptz or task.talk:
            return await _do(platform, task, lower, items, show)


async def _do(
    platform: Platform, task: PlatformTask, lower: Lower, items: Mapping[str, CatalogItem], show: _Show
) -> int:
    wanted = task.play or task.talk
    channel_id = wanted if wanted not in ("", "first") else _first_camera(items)
    if not channel_id:
        print(f"{lower.id} has no camera.", file=sys.stderr)
        return 1
    if task.ptz:
        code = encode(_MOVES[task.ptz])
        await platform.tell(lower, "PTZCmd", {"PTZCmd": code}, target=channel_id)
        await asyncio.sleep(_MOVE_S)
        await platform.tell(lower, "PTZCmd", {"PTZCmd": encode(Move())}, target=channel_id)
        show.note("moved", {"channel_id": channel_id, "direction": task.ptz})
    if task.talk and not await _talk(platform, task, lower, channel_id, show):
        return 1
    if not task.play:
        return 0
    playing = await platform.play(lower, channel_id, task.output, transport=Transport(task.media))
    try:
        async with asyncio.timeout(task.seconds):
            await playing.ended.wait()
    except TimeoutError:
        pass
    await platform.stop(playing)
    recording = playing.recording
    show.note(
        "played",
        {
            "channel_id": channel_id,
            "file": str(task.output) if task.output is not None else None,
            "packets": recording.packets,
            "bytes": recording.bytes,
            "lost": recording.lost,
        },
    )
    if not recording.packets:
        print(f"No media of {channel_id} arrived.", file=sys.stderr)
        return 1
    return 0


async def _talk(platform: Platform, task: PlatformTask, lower: Lower, channel_id: str, show: _Show) -> bool:
    """Whether anything was heard."""
    conversation = await platform.talk(lower, channel_id, transport=Transport(task.media))
    try:
        async with asyncio.timeout(task.seconds):
            await conversation.ended.wait()
    except TimeoutError:
        pass
    await platform.hang_up(conversation)
    ear = conversation.ear
    if task.hear is not None:
        ear.save(task.hear)
    show.note(
        "talked",
        {
            "channel_id": channel_id,
            "file": str(task.hear) if task.hear is not None else None,
            "packets": ear.packets,
            "seconds": round(len(ear.pcm) / 2 / RATE, 3),
        },
    )
    if not ear.packets:
        print(f"Nothing was heard of {channel_id}.", file=sys.stderr)
    return bool(ear.packets)


def _first_camera(items: Mapping[str, CatalogItem]) -> str:
    return next((item_id for item_id in sorted(items) if node_kind(item_id) is NodeKind.CAMERA), "")


class _Show:
    """Lines for people, or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json

    def note(self, what: str, facts: dict[str, object]) -> None:
        """One event."""
        if self._json:
            line = json.dumps({"event": what, **facts, "time": round(time.time(), 3)}, ensure_ascii=False)
            print(line, flush=True)
        else:
            who = str(facts.get("id", "-"))
            rest = {name: value for name, value in facts.items() if name != "id"}
            print(line_of(who, what, rest), flush=True)

    def tree(self, lower: Lower, items: Mapping[str, CatalogItem]) -> None:
        """A catalogue by its ParentID, as far as that leads somewhere."""
        if self._json:
            self.note(
                "catalogue",
                {
                    "id": lower.id,
                    "expected": lower.expected,
                    "items": [
                        {
                            "id": item.device_id,
                            "name": item.name,
                            "parent_id": item.parent_id,
                            "status": item.status.value,
                        }
                        for item in items.values()
                    ],
                },
            )
            return
        root = Tree(f"{lower.id} ({len(items)} items)")
        nodes = {lower.id: root}
        for item in items.values():
            parent = next(
                (nodes[one] for one in (*reversed(item.parent_ids), item.business_group_id) if one in nodes),
                root,
            )
            text = f"{item.device_id}  {item.name}  {item.status.value}"
            nodes[item.device_id] = parent.add(escape("".join(c for c in text if c.isprintable())))
        Console(width=None if sys.stdout.isatty() else 140).print(root)
