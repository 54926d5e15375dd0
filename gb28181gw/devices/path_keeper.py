"""Carries out the path rule: moves bindings, asks paths, ends trials. The decisions are in `binding`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.binding import (
    TRIAL_S,
    Action,
    Outcome,
    PathProbe,
    classify,
    is_known_network,
)
from gb28181gw.devices.config import BindingMode
from gb28181gw.devices.models import Device
from gb28181gw.devices.presence import PresenceKeeper
from gb28181gw.devices.registry import UNSAVED_BINDING, Registry, same_path
from gb28181gw.devices.store import DeviceStore
from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path

CLOSE_OLD_S: Final = 5.0
"""A connection that was replaced is closed after so long."""
PROBES_LIMIT: Final = 100
"""Devices whose paths are asked at one time."""
HOLD_OFF_S: Final = 10.0
HOLD_OFF_MAX_S: Final = 600.0
"""After a probe the next one of the same device waits, longer each time: forged messages must not make us ask a
stranger's address again and again (I7)."""
HELD_LIMIT: Final = 10_000

Ask = Callable[[Device, Path], Awaitable[bool]]
"""Send a harmless query over a path; True as soon as anything final comes back over it. Never raises."""


@dataclass(slots=True)
class _HoldOff:
    until: float
    length_s: float


class PathKeeper:
    """Owner of running probes, trials and hold-offs."""

    def __init__(
        self,
        *,
        registry: Registry,
        presence: PresenceKeeper,
        store: DeviceStore,
        bus: EventBus,
        clock: Clock,
        mode: BindingMode,
        ask: Ask,
        close_path: Callable[[Path], None],
        trust_path: Callable[[Path], None],
        on_conflict: Callable[[Device, Path, Path], None] = lambda _device, _old, _new: None,
    ) -> None:
        """`trust_path` hears each path that a device moved to; `on_conflict(device, bound, other)` that the bound
        path answers while messages come over another one."""
        self._on_conflict = on_conflict
        self.moved = 0
        self.conflicts = 0
        self.trials = 0
        self._registry = registry
        self._presence = presence
        self._store = store
        self._bus = bus
        self._clock = clock
        self._mode = mode
        self._ask = ask
        self._close_path = close_path
        self._trust_path = trust_path
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._held: OrderedDict[str, _HoldOff] = OrderedDict()
        self._on_trial: dict[str, Device] = {}
        self._closing: set[asyncio.TimerHandle] = set()
        registry.on_removed(self._removed)

    async def close(self) -> None:
        """End probes and timers."""
        for timer in self._closing:
            timer.cancel()
        tasks = list(self._probes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- messages ------------------------------------------------------------------------------------------

    def admit(self, device: Device, path: Path) -> Action:
        """What a message of `device` over `path` may do; moves and probes are started here.

        ACCEPT, PROCESS, MOVE and PROBE_NEAR: process it. PROBE_FAR and IGNORE: no effect, no answer.
        """
        binding = device.binding
        if binding is None or not binding.active:
            return Action.IGNORE
        if device.trial_until and same_path(binding.path, path):
            # The verified path speaks again: it beats the trial.
            self._end_trial(device)
            return Action.ACCEPT
        action = classify(device.path, binding.path, path, self._mode)
        if action is Action.MOVE:
            self._move(device, path, "connected" if path.reliable else "mode_any")
        elif action in (Action.PROBE_NEAR, Action.PROBE_FAR):
            self._probe(device, path, near=action is Action.PROBE_NEAR)
        return action

    def replaced(self, new: Path, old: Path | None) -> None:
        """A registration proved `new`; the connection it replaces is of no use any more."""
        if old is not None and old.connection_id and not same_path(old, new):
            self._close_later(old)

    def tick(self) -> None:
        """Called once a second: ends trials."""
        if not self._on_trial:
            return
        now = self._clock.monotonic()
        for device in list(self._on_trial.values()):
            if not device.trial_until:
                del self._on_trial[device.id]
            elif now >= device.trial_until:
                self._end_trial(device)

    # -- moving --------------------------------------------------------------------------------------------

    def _move(self, device: Device, path: Path, reason: str) -> None:
        """The device is at `path` from now on: in memory at once, on disk with the next commit."""
        binding = device.binding
        if binding is None:
            return
        old = device.path
        device.trial_until = 0.0
        self._registry.set_binding(device, replace(binding, path=path))
        self._registry.bind(device, path)
        self._presence.connected(device)
        self._trust_path(path)
        self.moved += 1
        self._bus.emit(
            "binding.port_moved",
            device_id=device.id,
            peer=path.peer,
            old_peer=(old or binding.path).peer,
            transport=path.transport,
            reason=reason,
        )
        if old is not None and old.connection_id:
            self._close_later(old)

        def stored(error: BaseException | None) -> None:
            if error is not None:
                self._registry.unsaved(device, UNSAVED_BINDING)

        try:
            if device.binding is not None:
                self._store.save_binding(device, device.binding, stored)
        except GatewayError as error:
            stored(error)

    def _close_later(self, path: Path) -> None:
        def run() -> None:
            self._closing.discard(timer)
            if not self._registry.is_bound(path):
                self._close_path(path)

        timer = asyncio.get_running_loop().call_later(CLOSE_OLD_S, run)
        self._closing.add(timer)

    def _try(self, device: Device, path: Path) -> None:
        """Rule 3b: reachable in a known network, but not proven. Not stored: a restart goes back."""
        old = device.path
        self._registry.bind(device, path)
        device.trial_until = self._clock.monotonic() + TRIAL_S
        self._on_trial[device.id] = device
        self.trials += 1
        self._presence.seen(device, "trial")
        self._bus.emit(
            "binding.port_moved",
            device_id=device.id,
            peer=path.peer,
            old_peer=old.peer if old is not None else device.remote_address,
            transport=path.transport,
            reason="trial",
        )

    def _end_trial(self, device: Device) -> None:
        device.trial_until = 0.0
        self._on_trial.pop(device.id, None)
        binding = device.binding
        if binding is not None and binding.active:
            self._registry.bind(device, binding.path)

    # -- probing -------------------------------------------------------------------------------------------

    def _probe(self, device: Device, path: Path, *, near: bool) -> None:
        now = self._clock.monotonic()
        if device.id in self._probes or len(self._probes) >= PROBES_LIMIT:
            return
        held = self._held.get(device.id)
        if held is not None and now < held.until:
            return
        length_s = HOLD_OFF_S
        if held is not None and now - held.until < HOLD_OFF_MAX_S:
            length_s = min(held.length_s * 2, HOLD_OFF_MAX_S)
        self._held[device.id] = _HoldOff(now + length_s, length_s)
        self._held.move_to_end(device.id)
        if len(self._held) > HELD_LIMIT:
            self._held.popitem(last=False)
        known = device.binding is not None and is_known_network(
            device.binding.networks, path.remote_host, self._clock.wall()
        )
        probe = PathProbe(near=near, known_network=known, started=now)
        task = asyncio.get_running_loop().create_task(self._run(device, device.path, path, probe))
        self._probes[device.id] = task
        task.add_done_callback(lambda _task: self._probes.pop(device.id, None))

    async def _run(self, device: Device, old: Path | None, new: Path, probe: PathProbe) -> None:
        ask_new = asyncio.ensure_future(self._ask(device, new))
        ask_old = asyncio.ensure_future(self._ask(device, old)) if old is not None else ask_new
        try:
            running = {ask_old, ask_new}
            while (outcome := probe.outcome(now := self._clock.monotonic())) is Outcome.WAIT:
                wait_s = max(probe.next_look(now), 0.001)
                if running:
                    done, running = await asyncio.wait(
                        running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                    )
                else:
                    done = set()
                    await asyncio.sleep(wait_s)
                for task in done:
                    if task is ask_new:
                        probe.new_answered |= task.result()
                    else:
                        probe.old_answered |= task.result()
        finally:
            ask_old.cancel()
            ask_new.cancel()
        if device.path is old and self._registry.get(device.id) is device:
            self._conclude(device, old, new, outcome)

    def _conclude(self, device: Device, old: Path | None, new: Path, outcome: Outcome) -> None:
        if outcome is Outcome.MOVE:
            self._held.pop(device.id, None)
            self._move(device, new, "nat")
            self._presence.seen(device, "moved")
        elif outcome is Outcome.TRIAL:
            self._try(device, new)
        else:
            self.conflicts += 1
            self._bus.emit(
                "binding.conflict",
                device_id=device.id,
                peer=new.peer,
                old_peer=old.peer if old is not None else device.remote_address,
                transport=new.transport,
                reason="old_answers" if outcome is Outcome.STAY else "not_proven",
                detail="The registered address answers: somebody else uses this id, or the message was forged."
                if outcome is Outcome.STAY
                else "The device must register from its new address before it counts.",
            )
            if outcome is Outcome.STAY and old is not None:
                self._on_conflict(device, old, new)

    def _removed(self, device: Device) -> None:
        self._on_trial.pop(device.id, None)
        self._held.pop(device.id, None)
        task = self._probes.get(device.id)
        if task is not None:
            task.cancel()
