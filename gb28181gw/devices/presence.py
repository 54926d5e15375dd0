"""Online or not: one state machine, fed by everything a device proves (KA-04), and the only writer of it.

Theory of operation. A message on the bound path only stores "seen now"; no timer is touched. Each device lies in
one slot of a wheel of seconds. When its slot comes up, its real deadline is worked out from what was seen
meanwhile, and the device is put into the slot of that. So 100,000 keepalives a minute cost 100,000 assignments, and
the wheel looks at each device about once a window.

The window is misses x interval; the interval is the median of the last gaps between keepalives, clamped (KA-01,
KA-02). At its end the device is SUSPECT and probed once with a query that it may answer with anything; only a
probe without an answer makes it offline (F-03). When the process itself was stopped, nobody could be heard: such
a pause is added to every window that it fell into (F-20).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.models import Device, Presence
from gb28181gw.devices.registry import UNSAVED_SEEN, Registry, same_path
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path

INTERVAL_MIN_S: Final = 5.0
INTERVAL_MAX_S: Final = 3600.0
GAPS_KEPT: Final = 5
CONNECTION_GRACE_S: Final = 30.0
"""A TCP registration whose connection is gone may come back for so long (docs/reference/configuration.md)."""
UNREGISTER_GRACE_S: Final = 3.0
"""After Expires: 0; many devices register anew at once (REG-11)."""
REVIVE_AFTER_EXPIRY_S: Final = 86_400.0
"""A registration that expired longer ago is not revived by a keepalive; silence makes the device register."""
PAUSE_S: Final = 2.0
"""A tick that comes so much too late means that the process did not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceRules:
    """`[sip] keepalive_s` and `keepalive_misses`."""

    keepalive_s: float = 60.0
    misses: int = 3


def learn_gap(gaps: tuple[int, ...], gap_s: float) -> tuple[int, ...]:
    """The last few gaps with one more. Gaps under a second are repeats of one keepalive and tell nothing."""
    if gap_s < 1.0:
        return gaps
    return (*gaps[-(GAPS_KEPT - 1) :], round(gap_s))


def interval_of(gaps: tuple[int, ...]) -> float:
    """The learnt interval, clamped; 0 until three gaps were seen."""
    if len(gaps) < 3:
        return 0.0
    return min(max(float(sorted(gaps)[len(gaps) // 2]), INTERVAL_MIN_S), INTERVAL_MAX_S)


class Wheel:
    """Slots of one second. An entry is valid only while the device's `slot` names it, so moving is cheap."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Device]] = {}
        self._done = 0

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def put(self, device: Device, at: float) -> None:
        """Look at `device` at monotonic time `at`, or up to a second later."""
        slot = max(int(at) + 1, self._done + 1)
        if device.slot == slot:
            return
        device.slot = slot
        self._slots.setdefault(slot, []).append(device)

    def due(self, now: float) -> list[Device]:
        """The devices whose time has come; they are taken out."""
        current = int(now)
        if current <= self._done:
            return []
        slots = (
            sorted(slot for slot in self._slots if slot <= current)
            if current - self._done > len(self._slots)
            else range(self._done + 1, current + 1)
        )
        self._done = current
        found: list[Device] = []
        for slot in slots:
            for device in self._slots.pop(slot, ()):
                if device.slot == slot:
                    device.slot = 0
                    found.append(device)
        return found


class PresenceKeeper:
    """Owner of the state machine. `probe(device)` must call `answered` or `unanswered` later, exactly once."""

    def __init__(
        self,
        *,
        registry: Registry,
        bus: EventBus,
        clock: Clock,
        rules: PresenceRules,
        probe: Callable[[Device], None],
    ) -> None:
        self.flaps = 0
        """Times a device went offline."""
        self._registry = registry
        self._bus = bus
        self._clock = clock
        self._rules = rules
        self._probe = probe
        self._wheel = Wheel()
        self._ticked = clock.monotonic()
        self._pauses: deque[tuple[float, float]] = deque(maxlen=32)
        self._hear_online: list[Callable[[Device, str], None]] = []
        self._hear_offline: list[Callable[[Device, str], None]] = []
        self._hear_forgotten: list[Callable[[Device], None]] = []
        self._hear_returned: list[Callable[[Device], None]] = []
        registry.on_removed(self._removed)

    # -- who listens ---------------------------------------------------------------------------------------

    def on_online(self, hear: Callable[[Device, str], None]) -> None:
        """`hear(device, reason)` at each change to online."""
        self._hear_online.append(hear)

    def on_offline(self, hear: Callable[[Device, str], None]) -> None:
        """`hear(device, reason)` at each change to offline."""
        self._hear_offline.append(hear)

    def on_forgotten(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` as soon as the device unregistered: it has forgotten its media (REG-11)."""
        self._hear_forgotten.append(hear)

    def on_returned(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` when an online device registered anew: it may have restarted and know nothing any more."""
        self._hear_returned.append(hear)

    # -- what is known -------------------------------------------------------------------------------------

    def interval(self, device: Device) -> float:
        """Keepalive interval counted with, seconds."""
        return device.keepalive_s or self._rules.keepalive_s

    def window(self, device: Device) -> float:
        """Silence that makes a device suspect, seconds."""
        return self._rules.misses * self.interval(device)

    def may_revive(self, device: Device) -> bool:
        """Whether a message on the bound path brings an offline device back (REG-23)."""
        return device.path is not None and self._clock.monotonic() < device.expires + REVIVE_AFTER_EXPIRY_S

    def counts(self) -> dict[str, int]:
        """Devices by state, for the exporter."""
        found = dict.fromkeys((state.value for state in Presence), 0)
        for device in self._registry:
            found[device.presence.value] += 1
        return found

    # -- what devices do -----------------------------------------------------------------------------------

    def restore(self) -> int:
        """After the registry was loaded: what was online when the last process ended counts as seen now.

        A device that had been silent for its whole window before the last sign of life of any device was already
        offline then, and stays so; its first message revives it. Returns how many are online.
        """
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._ticked = now
        latest = max((device.seen_wall for device in self._registry), default=0.0)
        online = 0
        for device in self._registry:
            binding = device.binding
            if binding is None or not binding.active:
                continue
            device.expires = now + (binding.expires_at - wall)
            if latest - device.seen_wall > self.window(device) + INTERVAL_MIN_S:
                continue
            device.seen = now
            if binding.path.transport != "udp":
                # Its connection died with the process; it has the usual time to come back.
                device.lost_at = now
            self._online(device, "restored")
            online += 1
        return online

    def registered(self, device: Device, expires_in_s: float, *, anew: bool = False) -> None:
        """A verified REGISTER is committed and bound. `anew`: with another Call-ID or from elsewhere."""
        was_online = device.online and not device.unregistered_at
        device.lost_at = 0.0
        device.unregistered_at = 0.0
        device.expires = self._clock.monotonic() + expires_in_s
        self.seen(device, "registered")
        if anew and was_online:
            for hear in self._hear_returned:
                hear(device)

    def seen(self, device: Device, reason: str) -> None:
        """An authenticated message or answer came: request, response, media."""
        now = self._clock.monotonic()
        device.seen = now
        device.seen_wall = self._clock.wall()
        if not device.unsaved & UNSAVED_SEEN:
            self._registry.unsaved(device, UNSAVED_SEEN)
        if device.presence is not Presence.ONLINE and not device.unregistered_at:
            self._online(device, reason)

    def keepalive(self, device: Device) -> None:
        """A keepalive on the bound path: the hot path of the gateway."""
        now = self._clock.monotonic()
        device.keepalives += 1
        if device.keepalive_at:
            self._learn(device, now)
        device.keepalive_at = now
        device.seen = now
        device.seen_wall = self._clock.wall()
        if not device.unsaved & UNSAVED_SEEN:
            self._registry.unsaved(device, UNSAVED_SEEN)
        if device.presence is not Presence.ONLINE and not device.unregistered_at:
            self._online(device, "keepalive")

    def _learn(self, device: Device, now: float) -> None:
        gaps = learn_gap(device.keepalive_gaps, now - device.keepalive_at)
        if gaps == device.keepalive_gaps:
            return
        device.keepalive_gaps = gaps
        interval = interval_of(gaps)
        if interval and interval != device.keepalive_s:
            device.keepalive_s = interval
            deadline = now + self.window(device)
            if device.slot > deadline + 2:
                # A shorter window: the slot chosen by the longer one would come too late.
                self._wheel.put(device, deadline)

    def unregistered(self, device: Device) -> None:
        """A verified Expires: 0 is committed. Offline after a short grace, unless it registers again."""
        now = self._clock.monotonic()
        for hear in self._hear_forgotten:
            hear(device)
        if device.presence is Presence.OFFLINE:
            self._registry.unbind(device)
            return
        device.presence = Presence.ONLINE
        device.unregistered_at = now
        self._wheel.put(device, now + UNREGISTER_GRACE_S)

    def connection_lost(self, path: Path) -> None:
        """A TCP or TLS connection closed."""
        now = self._clock.monotonic()
        for device in self._registry.bound_to(path):
            if device.path is not None and same_path(device.path, path):
                device.lost_at = now
                self._registry.unbind(device)
                if device.online:
                    self._wheel.put(device, now + CONNECTION_GRACE_S)

    def connected(self, device: Device) -> None:
        """The device has a path again."""
        device.lost_at = 0.0

    # -- the clock -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called once a second."""
        now = self._clock.monotonic()
        pause = now - self._ticked - 1.0
        if pause > PAUSE_S:
            self._pauses.append((now, pause))
        self._ticked = now
        for device in self._wheel.due(now):
            if device.presence is Presence.ONLINE:
                self._judge(device, now)

    def _judge(self, device: Device, now: float) -> None:
        """The device's slot came up: is it alive, suspect or gone?"""
        if device.unregistered_at:
            self._judge_grace(device, now, device.unregistered_at, UNREGISTER_GRACE_S, "unregistered")
            return
        if device.lost_at:
            self._judge_grace(device, now, device.lost_at, CONNECTION_GRACE_S, "connection_lost")
            return
        deadline = device.seen + self.window(device) + self._paused_since(device.seen)
        if now < deadline:
            self._wheel.put(device, deadline)
        elif now >= device.expires:
            self.offline(device, "expired")
        else:
            device.presence = Presence.SUSPECT
            self._bus.emit(
                "device.suspect",
                device_id=device.id,
                peer=device.remote_address,
                silent_s=round(now - device.seen, 1),
            )
            self._probe(device)

    def _judge_grace(self, device: Device, now: float, since: float, grace_s: float, reason: str) -> None:
        until = since + grace_s + self._paused_since(since)
        if now >= until:
            self.offline(device, reason)
        else:
            self._wheel.put(device, until)

    def _paused_since(self, moment: float) -> float:
        return sum(length for ended, length in self._pauses if ended > moment)

    def unanswered(self, device: Device) -> None:
        """The probe of a suspect device got no answer."""
        if device.presence is Presence.SUSPECT:
            self.offline(device, "keepalive")

    # -- the two changes -----------------------------------------------------------------------------------

    def _online(self, device: Device, reason: str) -> None:
        was = device.presence
        device.presence = Presence.ONLINE
        lost = device.lost_at + CONNECTION_GRACE_S if device.lost_at else None
        self._wheel.put(device, lost or device.seen + self.window(device))
        if was is Presence.OFFLINE:
            self._bus.emit(
                "device.online",
                device_id=device.id,
                peer=device.remote_address,
                transport=device.transport,
                reason=reason,
            )
            for hear in self._hear_online:
                hear(device, reason)

    def offline(self, device: Device, reason: str) -> None:
        """The device is gone; its next message on the bound path, or REGISTER, brings it back."""
        if device.presence is Presence.OFFLINE:
            return
        device.presence = Presence.OFFLINE
        device.keepalive_at = 0.0
        self.flaps += 1
        if device.unregistered_at:
            self._registry.unbind(device)
            device.unregistered_at = 0.0
        silent_s = round(self._clock.monotonic() - device.seen, 1)
        self._bus.emit(
            "device.offline",
            device_id=device.id,
            peer=device.remote_address,
            reason=reason,
            silent_s=silent_s,
        )
        for hear in self._hear_offline:
            hear(device, reason)

    def _removed(self, device: Device) -> None:
        self.offline(device, "removed")
