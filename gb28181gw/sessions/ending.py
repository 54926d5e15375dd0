"""Ends calls for good: a session is not over until the far end was told (SES-01, F-06).

`CallEnder` owns every dialog that nobody uses any more. It sends BYE until the device answers, at most ten
times with growing pauses, resolving the device's path anew each time, and removes the stored record only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.models import CallRecord
from gb28181gw.sessions.store import CallStore
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.path import Path
from gb28181gw.ua.agent import UserAgent

PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0)
"""Behind each BYE that nobody answered; as many are sent."""


@dataclass(slots=True)
class EndingCounters:
    byes: int = 0
    """BYE requests sent, repetitions of ours included (not those of the transaction layer)."""
    unanswered: int = 0
    """Dialogs given up after the last try."""


class CallEnder:
    """Owner of the dialogs that are being ended."""

    def __init__(
        self,
        *,
        ua: UserAgent,
        store: CallStore,
        bus: EventBus,
        path_of: Callable[[str], Path | None],
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        self._ua = ua
        self._store = store
        self._bus = bus
        self._path_of = path_of
        self._pauses_s = pauses_s
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self.counters = EndingCounters()

    def end(self, record: CallRecord, dialog: Dialog) -> asyncio.Task[None]:
        """Begin to end the dialog; the task is done when the device answered or was given up."""
        running = self._tasks.get(record.id)
        if running is not None:
            return running[1]
        task = asyncio.create_task(self._bye_until_answered(record, dialog), name=f"bye {record.id}")
        self._tasks[record.id] = (record.device_id, task)
        task.add_done_callback(lambda _: self._tasks.pop(record.id, None))
        return task

    async def forget(self, record: CallRecord) -> None:
        """The device ended the dialog itself: only the record goes."""
        await self._remove(record)

    async def settled(self, device_id: str, limit_s: float) -> None:
        """Wait until no dialog of the device is being ended, at most `limit_s` (INVITE after BYE, SES-08)."""
        tasks = [task for owner, task in self._tasks.values() if owner == device_id]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    async def close(self, limit_s: float) -> None:
        """Give the answers `limit_s`; what is left is stored and ended after the next start."""
        tasks = [task for _, task in self._tasks.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=limit_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _bye_until_answered(self, record: CallRecord, dialog: Dialog) -> None:
        for pause_s in self._pauses_s:
            self.counters.byes += 1
            try:
                await self._ua.send_in_dialog(dialog, "BYE", path=self._path_of(record.device_id))
            except GatewayError:
                await asyncio.sleep(pause_s)
                continue
            # Any final answer ends it: 200, or 481 when the device had forgotten the dialog already.
            await self._remove(record)
            return
        self.counters.unanswered += 1
        self._bus.emit(
            "stream.bye_unanswered",
            device_id=record.device_id,
            channel_id=record.channel_id,
            call_id=dialog.call_id,
            attempts=len(self._pauses_s),
            reason="no_answer",
        )
        await self._remove(record)

    async def _remove(self, record: CallRecord) -> None:
        try:
            await self._store.remove_call(record.id)
        except GatewayError:
            # The record stays; the next start sends one BYE more, which the device answers with 481.
            return
