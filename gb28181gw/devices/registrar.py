"""REGISTER: who may come in, under which path, for how long (GB/T 28181-2022 9.1, RFC 3261 10.3).

Every REGISTER is challenged, refreshes and unregistering too (S-01). To somebody who does not know a password,
known and unknown ids, closed and open doors look alike: a challenge, then 403. What differs is our own log, which
says why in words that a person can act on.

The order of a good one: the nonce is used up in memory, the binding goes to the store, and only when it is
committed it counts and the 200 is sent (I9). While the database does not answer, a device whose path is unchanged
is served from memory, because what a kill would lose is then only the new expiry (F-15).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.authentication import Authenticator, Judged, Judgement, remember_nonce
from gb28181gw.devices.bans import BanTable, RegisterRates
from gb28181gw.devices.binding import remember_network
from gb28181gw.devices.config import DateMode, DevicesConfig, Enrolment
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.duplicates import DuplicateWatch
from gb28181gw.devices.incoming import IncomingRequest
from gb28181gw.devices.models import Binding, Device
from gb28181gw.devices.presence import PresenceKeeper
from gb28181gw.devices.registry import UNSAVED_BINDING, UNSAVED_FACTS, Registry, same_path
from gb28181gw.devices.store import DeviceStore
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import DEFAULT, DateForm, parse_gb_version
from gb28181gw.gb.ids import clean_id, is_gb_id
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import format_date_header
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.digest import Challenge, Credentials, parse_credentials
from gb28181gw.sip.exceptions import SipError
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path

EXPIRES_KEPT_S: Final = 30 * 86_400
"""What a device asked for counts towards its own expiry up to this (REG-12)."""
DELAYED_LIMIT: Final = 1_000
"""Answers that may be delayed at one time."""
SAY_AGAIN_S: Final = 300.0
"""A refusal of one device for one reason is told once in so long."""
PROVEN_S: Final = 86_400.0

HINTS: Final = {
    "wrong_password": "The password differs: enter it again in the device's GB28181 page (saving other settings "
    "clears it on some models), or change it here with PATCH /api/v1/devices/{id}. Checked against: {secret}.",
    "wrong_username": "The user name of the digest is neither the device's id nor the one configured for it.",
    "wrong_realm": "The device answers for another domain: set its SIP server domain to {realm}.",
    "id_invalid": "An unknown device must have an id of 20 digits; provision it with POST /api/v1/devices to "
    "accept it as it is.",
    "not_allowed": "The id is not in sip.allow.",
    "closed": "sip.enrolment is closed: provision the device with POST /api/v1/devices.",
    "pending_full": "Too many devices wait for approval: approve or remove some.",
    "duplicate_id": "Another device that is alive uses the same id: give one of them another id.",
    "banned": "Five wrong answers: it is ignored for a time. Correct the password in the device, then change it "
    "here, or wait.",
    "no_reaction": "The device repeats REGISTER without credentials, so our 401 does not reach it: check firewall "
    "and NAT on the way back (UDP ports 6081 and 6784 are swallowed by some clouds), or use SIP over TCP.",
}


@dataclass(slots=True)
class RegistrarCounters:
    """Plain counters for the exporter."""

    registered: int = 0
    refreshed: int = 0
    unregistered: int = 0
    challenged: int = 0
    stale: int = 0
    refused: int = 0
    banned: int = 0
    dropped: int = 0
    delayed: int = 0
    overloaded: int = 0


@dataclass(slots=True)
class _Enrolling:
    """A device whose first registration is being committed."""

    device: Device
    ip: str
    commits: int = 0


@dataclass(slots=True)
class _Applicant:
    """Who asks, and what the rules say of the id before any password is checked."""

    device_id: str
    device: Device | None
    password: str | None
    closed_reason: str
    """Why even the right password would not do; empty: it would."""
    username: str


class Registrar:
    """Handler of REGISTER. Synchronous: an answer leaves in the datagram's turn, or after the commit."""

    def __init__(
        self,
        *,
        config: DevicesConfig,
        registry: Registry,
        store: DeviceStore,
        presence: PresenceKeeper,
        bus: EventBus,
        clock: Clock,
        authenticator: Authenticator,
        bans: BanTable,
        clock_trusted: Callable[[], bool],
        on_refused: Callable[[Path], None],
        on_bound: Callable[[Path, Path | None], None],
    ) -> None:
        """`clock_trusted`: may `Date` be sent in mode auto. `on_refused(path)` counts a refusal against its source
        (S-20). `on_bound(new, old)` hears each path that a registration proved, and the one it replaced."""
        self.counters = RegistrarCounters()
        self._config = config
        self._registry = registry
        self._store = store
        self._presence = presence
        self._bus = bus
        self._clock = clock
        self._authenticator = authenticator
        self._bans = bans
        self._clock_trusted = clock_trusted
        self._on_refused = on_refused
        self._on_bound = on_bound
        self._rates = RegisterRates()
        self._duplicates = DuplicateWatch()
        self._uncommitted = 0
        self._delayed: set[asyncio.TimerHandle] = set()
        self._enrolling: dict[str, _Enrolling] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        registry.on_forgiven(self._forgive)
        registry.on_removed(lambda device: self._duplicates.forget(device.id))

    @property
    def uncommitted(self) -> int:
        """Registrations whose commit is under way: a gauge."""
        return self._uncommitted

    async def close(self) -> None:
        """Drop the answers that are still delayed, finish what is being forgotten."""
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()
        await asyncio.gather(*self._forgetting, return_exceptions=True)

    def _forgive(self, device_id: str) -> None:
        self._bans.forgive(device_id)
        self._duplicates.forget(device_id)
        for key in [key for key in self._said if key[0] == device_id]:
            del self._said[key]

    # -- the way of one REGISTER ---------------------------------------------------------------------------

    def handle(self, incoming: IncomingRequest) -> None:
        """Answer, delay or drop one REGISTER."""
        request, path = incoming.request, incoming.path
        try:
            user = request.from_.uri.user
            device_id = clean_id(user)
            agree = clean_id(request.to.uri.user) == device_id
            credentials = _credentials(request)
        except SipError:
            self._refuse_malformed(incoming)
            return
        if not device_id or not agree:
            # From and To of a REGISTER are the device itself (S-01); whoever sends this is not a GB device.
            self._refuse_malformed(incoming)
            return
        ip = path.remote_host
        if self._bans and self._bans.banned(
            ip, device_id, self._clock.wall(), proven=self._is_proven(device_id, ip)
        ):
            self._drop(incoming)
            return
        pace = self._rates.count(ip, device_id, self._clock.monotonic(), credentials=credentials is not None)
        if pace.unheard:
            self._say("no_reaction", device_id, path, call_id=request.call_id)
        if pace.drop:
            self._drop(incoming)
            return
        if pace.delay_s:
            self._later(pace.delay_s, incoming, device_id, credentials)
            return
        self._answer(incoming, device_id, credentials)

    def _later(
        self, delay_s: float, incoming: IncomingRequest, device_id: str, credentials: Credentials | None
    ) -> None:
        """A device that loops waits (F-01); its repetitions are absorbed by the transaction meanwhile."""
        if len(self._delayed) >= DELAYED_LIMIT:
            self._drop(incoming)
            return
        self.counters.delayed += 1

        def run() -> None:
            self._delayed.discard(timer)
            self._answer(incoming, device_id, credentials)

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._delayed.add(timer)

    def _answer(self, incoming: IncomingRequest, device_id: str, credentials: Credentials | None) -> None:
        applicant = self._applicant(device_id)
        if self._overloaded(applicant.device):
            self.counters.overloaded += 1
            incoming.respond(503, headers=(("Retry-After", str(60 + secrets.randbelow(121))),))
            return
        if credentials is None:
            self._challenge(incoming, applicant)
            return
        path = incoming.path
        device = applicant.device
        expires = _expires_of(incoming.request)
        unregister = expires == 0
        judged = self._authenticator.judge(
            credentials,
            device_id=device_id,
            username=applicant.username,
            password=applicant.password,
            device=device,
            ip=path.remote_host,
            changes_state=unregister or device is None or not _bound_here(device, path),
        )
        if judged.judgement is Judgement.CHALLENGE:
            if judged.reason == "wrong_realm":
                self._say(judged.reason, device_id, path, call_id=incoming.request.call_id)
            self._challenge(incoming, applicant)
        elif judged.judgement is Judgement.WRONG:
            self._wrong(incoming, applicant, judged.reason)
        elif applicant.closed_reason:
            self._wrong(incoming, applicant, applicant.closed_reason)
        elif judged.judgement is Judgement.STALE:
            self.counters.stale += 1
            if judged.reason in ("nonce_count", "older_nonce", "used_nonce"):
                self._bus.emit("auth.replay", device_id=device_id, peer=path.peer, reason=judged.reason)
            self._challenge(incoming, applicant, stale=True)
        else:
            self._bans.good(path.remote_host, device_id)
            if unregister:
                self._unregister(incoming, applicant, credentials, judged)
            else:
                self._accept(incoming, applicant, credentials, judged, expires)

    def _applicant(self, device_id: str) -> _Applicant:
        config = self._config
        device = self._registry.get(device_id)
        shared = config.shared_password
        if device is not None and device.provisioned:
            own = device.password
            return _Applicant(device_id, device, own if own is not None else shared, "", device.username)
        reason = ""
        if not is_gb_id(device_id):
            reason = "id_invalid"
        elif config.enrolment is Enrolment.CLOSED:
            reason = "closed"
        elif config.allow and not any(fnmatchcase(device_id, glob) for glob in config.allow):
            reason = "not_allowed"
        if device is None and device_id in self._enrolling:
            device = self._enrolling[device_id].device
        username = device.username if device is not None else ""
        password = device.password if device is not None and device.password is not None else shared
        return _Applicant(device_id, device, password, reason, username)

    def _is_proven(self, device_id: str, ip: str) -> bool:
        """Whether the pair succeeded within a day: a ban of the whole address does not touch it."""
        device = self._registry.get(device_id)
        if device is None or device.binding is None or device.binding.path.remote_host != ip:
            return False
        return self._clock.wall() - device.binding.registered_at < PROVEN_S

    def _overloaded(self, device: Device | None) -> bool:
        limit = self._config.uncommitted_limit
        # Devices that are known come first when everybody comes at once (F-01).
        return self._uncommitted >= (limit if device is not None else limit // 2)

    # -- refusals ------------------------------------------------------------------------------------------

    def _challenge(self, incoming: IncomingRequest, applicant: _Applicant, *, stale: bool = False) -> None:
        """401. One to an id that cannot get in whatever it knows counts as a refusal (S-20)."""
        ip = incoming.path.remote_host
        if applicant.closed_reason:
            self._on_refused(incoming.path)
        dialect = dialect_of(applicant.device) if applicant.device is not None else DEFAULT
        challenge = Challenge(
            realm=self._config.domain,
            nonce=self._authenticator.nonce(ip, applicant.device_id),
            qop="auth" if dialect.qop else "",
            stale=stale,
        )
        self.counters.challenged += 1
        incoming.respond(401, headers=(("WWW-Authenticate", challenge.header()),))

    def _wrong(self, incoming: IncomingRequest, applicant: _Applicant, reason: str) -> None:
        """403 without detail, counted towards a ban; the reason is for our log only."""
        path = incoming.path
        device_id = applicant.device_id
        self.counters.refused += 1
        self._say(
            reason,
            device_id,
            path,
            call_id=incoming.request.call_id,
            secret=_secret_name(applicant),
        )
        ban = self._bans.bad(
            path.remote_host,
            device_id,
            self._clock.wall(),
            proven=self._is_proven(device_id, path.remote_host),
        )
        if ban is not None:
            self.counters.banned += 1
            self._bus.emit(
                "auth.banned",
                device_id=ban.device_id or None,
                peer=path.peer,
                reason=reason,
                duration_s=round(ban.until - self._clock.wall()),
            )
            self._say("banned", device_id, path, call_id=incoming.request.call_id)
        self._refuse(incoming, 403)

    def _refuse(self, incoming: IncomingRequest, status: int) -> None:
        self._on_refused(incoming.path)
        incoming.respond(status)

    def _refuse_malformed(self, incoming: IncomingRequest) -> None:
        self.counters.refused += 1
        self._refuse(incoming, 400)

    def _drop(self, incoming: IncomingRequest) -> None:
        self.counters.dropped += 1
        incoming.ignore()

    def _say(self, reason: str, device_id: str, path: Path, *, call_id: str = "", secret: str = "") -> None:
        """One clear event per device, address and reason in five minutes."""
        key = (device_id, path.remote_host, reason)
        now = self._clock.monotonic()
        if now - self._said.get(key, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return
        self._said[key] = now
        self._said.move_to_end(key)
        if len(self._said) > 10_000:
            self._said.popitem(last=False)
        hint = HINTS[reason].replace("{realm}", self._config.domain).replace("{secret}", secret)
        self._bus.emit(
            "device.register_refused",
            device_id=device_id,
            peer=path.peer,
            transport=path.transport,
            reason=reason,
            detail=hint,
            call_id=call_id or None,
        )

    # -- acceptance ----------------------------------------------------------------------------------------

    def _accept(
        self,
        incoming: IncomingRequest,
        applicant: _Applicant,
        credentials: Credentials,
        judged: Judged,
        expires: int | None,
    ) -> None:
        path, request = incoming.path, incoming.request
        device_id = applicant.device_id
        device = applicant.device
        if device is not None and self._is_rival(device, path):
            self._turn_away(incoming, "duplicate_id", device_id)
            return
        if device is None:
            device = self._new_device(device_id, path)
            if device is None:
                self._turn_away(incoming, "pending_full", device_id)
                return
            remember_nonce(device, credentials.nonce, judged.minted_at, judged.count)
            self._enrolling[device_id] = _Enrolling(device, path.remote_host)
        approved_now = not device.approved and self._config.enrolment is Enrolment.OPEN
        if approved_now:
            device.approved = True
        granted = self._granted(expires)
        kept_s = max(granted, min(expires or 0, EXPIRES_KEPT_S))
        registration = _Registration(
            incoming=incoming,
            device=device,
            binding=self._binding(device, incoming, kept_s),
            granted_s=granted,
            known=self._registry.get(device_id) is device,
            started=self._clock.monotonic(),
            without_qop=not credentials.qop,
            foreign_uri=_is_foreign(credentials, request, self._config.platform_id),
        )
        self._uncommitted += 1
        enrolling = self._enrolling.get(device_id)
        save = self._store.save_binding
        if enrolling is not None:
            enrolling.commits += 1
            save = self._store.enrol
        elif approved_now:
            save = self._store.enrol
        try:
            save(device, registration.binding, lambda error: self._committed(registration, error))
        except GatewayError as error:
            self._committed(registration, error)

    def _turn_away(self, incoming: IncomingRequest, reason: str, device_id: str) -> None:
        """Right credentials, and yet no: 403, without a step towards a ban."""
        self.counters.refused += 1
        self._say(reason, device_id, incoming.path, call_id=incoming.request.call_id)
        incoming.respond(403)

    def _is_rival(self, device: Device, path: Path) -> bool:
        silent_s = self._clock.monotonic() - device.seen
        alive = device.online and silent_s < 1.5 * self._presence.interval(device)
        return self._duplicates.is_rival(device.id, path, first_alive=alive)

    def _granted(self, expires: int | None) -> int:
        config = self._config
        if expires is None:
            return config.expires_default_s
        return min(max(expires, config.expires_min_s), config.expires_max_s)

    def _binding(self, device: Device, incoming: IncomingRequest, kept_s: int) -> Binding:
        request, path = incoming.request, incoming.path
        wall = self._clock.wall()
        before = device.binding
        contact = request.headers.get("Contact")
        version = request.headers.get("X-GB-Ver")
        edition = parse_gb_version(version) if version else None
        return Binding(
            path=path,
            registered_at=wall,
            expires_at=wall + kept_s,
            domain=request.to.uri.host or self._config.domain,
            call_id=request.call_id,
            cseq=request.cseq.number,
            contact=contact[:256] if contact else "",
            user_agent=(request.headers.get("User-Agent") or "")[:128],
            edition=edition.value if edition is not None else "",
            nonce=device.nonce,
            nonce_minted_at=device.nonce_minted_at,
            nonce_count=device.nonce_count,
            networks=remember_network(before.networks if before is not None else {}, path.remote_host, wall),
        )

    def _new_device(self, device_id: str, path: Path) -> Device | None:
        """A device that nobody entered; None when too many wait for approval already (S-01)."""
        approved = self._config.enrolment is Enrolment.OPEN
        if not approved and not self._make_room(path.remote_host):
            self._bus.emit(
                "limit.reached",
                limit="pending_devices",
                value=self._config.pending_limit,
                peer=path.peer,
                device_id=device_id,
            )
            return None
        return Device(id=device_id, approved=approved, created_at=self._clock.wall())

    def _make_room(self, ip: str) -> bool:
        """Whether one more device from `ip` may wait; one that is gone makes room for one that is here."""
        pending = self._registry.pending()
        enrolling = [one.ip for one in self._enrolling.values() if not one.device.approved]
        same_ip = [
            device
            for device in pending
            if device.binding is not None and device.binding.path.remote_host == ip
        ]
        too_many = len(pending) + len(enrolling) >= self._config.pending_limit
        too_many_here = len(same_ip) + enrolling.count(ip) >= self._config.pending_per_ip
        if not too_many and not too_many_here:
            return True
        gone = [device for device in (same_ip if too_many_here else pending) if not device.online]
        if not gone:
            return False
        oldest = min(gone, key=lambda device: device.seen_wall)
        self._bus.emit("device.rejected", device_id=oldest.id, peer=oldest.remote_address, reason="gone")
        self._registry.drop(oldest)
        self._erase(oldest.id)
        return True

    def _erase(self, device_id: str) -> None:
        """Take the row of a device away that is no longer in the registry."""
        task = asyncio.get_running_loop().create_task(self._store.remove_device(device_id))
        self._forgetting.add(task)
        task.add_done_callback(self._erased)

    def _erased(self, task: asyncio.Task[None]) -> None:
        self._forgetting.discard(task)
        if not task.cancelled():
            # A row that a dead database kept comes back as a waiting device at the next start: harmless.
            task.exception()

    # -- after the commit ----------------------------------------------------------------------------------

    def _committed(self, registration: _Registration, error: BaseException | None) -> None:
        """The store answered: now the registration counts, or the device is asked to come again."""
        self._uncommitted -= 1
        incoming, device = registration.incoming, registration.device
        enrolling = self._enrolling.get(device.id)
        if enrolling is not None and enrolling.device is device:
            enrolling.commits -= 1
            if enrolling.commits == 0:
                del self._enrolling[device.id]
        current = self._registry.get(device.id)
        if error is not None:
            if current is not device or not _bound_here(device, incoming.path):
                incoming.respond(503, headers=(("Retry-After", str(60 + secrets.randbelow(61))),))
                return
            # F-15: an unchanged path is served from memory; the row is written when the database is back.
            self._registry.unsaved(device, UNSAVED_BINDING)
        if current is None and registration.known:
            # Removed by a person while the commit was under way.
            self._erase(device.id)
            incoming.respond(403)
            return
        if current is None:
            self._registry.enrol(device)
        elif current is not device:
            # Provisioned by a person while the first registration was under way: theirs counts.
            remember_nonce(current, device.nonce, device.nonce_minted_at, device.nonce_count)
            device = registration.device = current
            self._registry.unsaved(current, UNSAVED_FACTS)
        self._bind(registration)
        self._confirm(registration)

    def _bind(self, registration: _Registration) -> None:
        """Binding and path change together, in one turn of the loop (REG-17)."""
        device, binding, path = registration.device, registration.binding, registration.incoming.path
        old = device.binding
        registration.refreshed = device.online and _bound_here(device, path)
        self._registry.set_binding(device, binding)
        self._registry.note_approval(device)
        device.trial_until = 0.0
        old_path = device.path
        if old_path is None or not same_path(old_path, path):
            self._registry.bind(device, path)
            self._on_bound(path, old_path)
        if old is not None and old.active and not same_path(old.path, path):
            self._watch_move(device, old, binding)
        anew = old is None or old.call_id != binding.call_id or not same_path(old.path, path)
        self._presence.registered(device, binding.expires_at - self._clock.wall(), anew=anew)

    def _watch_move(self, device: Device, old: Binding, new: Binding) -> None:
        duplicate = self._duplicates.moved(
            device.id,
            old.path,
            old.call_id,
            new.path,
            new.call_id,
            self._clock.monotonic(),
            self._presence.interval(device),
        )
        if duplicate:
            self._bus.emit(
                "device.duplicate_id",
                device_id=device.id,
                peer=new.path.peer,
                other_peer=old.path.peer,
                detail=HINTS["duplicate_id"],
            )

    def heard_beside(self, device: Device, bound: Path, other: Path) -> None:
        """The bound path answers, and a message came over `other`: REG-15 if the device was registered there."""
        if self._duplicates.lives_on(device.id, other):
            self._bus.emit(
                "device.duplicate_id",
                device_id=device.id,
                peer=bound.peer,
                other_peer=other.peer,
                detail=HINTS["duplicate_id"],
            )

    def _confirm(self, registration: _Registration) -> None:
        """200, marks and events."""
        incoming, device, binding = registration.incoming, registration.device, registration.binding
        request = incoming.request
        headers = [("Expires", str(registration.granted_s))]
        contact = _contact_of(request)
        if contact:
            headers.insert(0, ("Contact", f"<{contact}>;expires={registration.granted_s}"))
        date = self._date(device)
        if date:
            headers.append(("Date", date))
        incoming.respond(200, headers=headers)
        for quirk in request.quirks:
            self._registry.add_quirk(device, quirk)
        if registration.without_qop and dialect_of(device).qop:
            self._registry.add_quirk(device, "digest.without_qop", row="REG-02")
        if registration.foreign_uri:
            self._registry.add_quirk(device, "digest.foreign_uri", row="REG-01")
        if not is_gb_id(device.id):
            self._registry.add_quirk(device, Quirk.ID_FORM, row=Quirk.ID_FORM.row)
        if registration.refreshed:
            # Nothing began: a line for each refresh of each device would bury the others.
            self.counters.refreshed += 1
            return
        self.counters.registered += 1
        self._bus.emit(
            "device.registered",
            device_id=device.id,
            peer=incoming.path.peer,
            transport=incoming.path.transport,
            expires_s=registration.granted_s,
            edition=binding.edition or None,
            call_id=binding.call_id,
            user_agent=binding.user_agent or None,
            duration_ms=round((self._clock.monotonic() - registration.started) * 1000, 1),
        )
        if not registration.known and not device.approved:
            self._bus.emit(
                "device.pending",
                device_id=device.id,
                peer=incoming.path.peer,
                transport=incoming.path.transport,
            )

    def _date(self, device: Device) -> str:
        """Value of `Date`; empty: none (TM-01, TM-02)."""
        mode = self._config.date
        if mode is DateMode.OFF or (mode is DateMode.AUTO and not self._clock_trusted()):
            return ""
        form = dialect_of(device).date
        if form is DateForm.OFF:
            return ""
        if form is DateForm.GMT:
            return formatdate(self._clock.wall(), usegmt=True)
        return format_date_header(self._clock.wall(), zone_of(device.timezone or self._config.timezone))

    # -- unregistering -------------------------------------------------------------------------------------

    def _unregister(
        self, incoming: IncomingRequest, applicant: _Applicant, credentials: Credentials, judged: Judged
    ) -> None:
        """Expires: 0 with right credentials. The row stays, inactive: its nonces must stay used."""
        device = applicant.device
        request = incoming.request
        before = device.binding if device is not None else None
        if device is None or before is None or self._registry.get(device.id) is not device:
            incoming.respond(200, headers=(("Expires", "0"),))
            return
        if self._is_rival(device, incoming.path):
            self._turn_away(incoming, "duplicate_id", device.id)
            return
        late = before.call_id == request.call_id and request.cseq.number < before.cseq
        binding = replace(
            before,
            active=before.active and late,
            nonce=credentials.nonce,
            nonce_minted_at=judged.minted_at,
            nonce_count=judged.count,
        )
        self._uncommitted += 1

        def done(error: BaseException | None) -> None:
            self._uncommitted -= 1
            if error is not None:
                incoming.respond(503, headers=(("Retry-After", str(60 + secrets.randbelow(61))),))
                return
            incoming.respond(200, headers=(("Expires", "0"),))
            if late or device.binding is not before:
                # REG-11: overtaken by a newer registration.
                return
            self.counters.unregistered += 1
            self._registry.set_binding(device, binding)
            self._bus.emit(
                "device.unregistered",
                device_id=device.id,
                peer=incoming.path.peer,
                reason="expires_0",
                call_id=request.call_id,
            )
            self._presence.unregistered(device)

        try:
            self._store.save_binding(device, binding, done)
        except GatewayError as error:
            done(error)


@dataclass(slots=True)
class _Registration:
    """One good REGISTER between its check and its answer."""

    incoming: IncomingRequest
    device: Device
    binding: Binding
    granted_s: int
    known: bool
    """The device was in the registry when the commit began."""
    started: float
    without_qop: bool
    foreign_uri: bool
    refreshed: bool = False


def _credentials(request: Request) -> Credentials | None:
    """None: there are none, or not enough of them (REG-04)."""
    value = request.headers.get("Authorization")
    return parse_credentials(value) if value else None


def _expires_of(request: Request) -> int | None:
    """REG-10: of the Contact, else of the header, else None. A Contact that cannot be read says nothing."""
    try:
        return request.expires
    except SipError:
        return parse_delta_seconds(request.headers.get("Expires") or "")


def _bound_here(device: Device, path: Path) -> bool:
    """Whether `path` is the device's verified path already."""
    binding = device.binding
    return (
        binding is not None
        and binding.active
        and device.path is not None
        and not device.trial_until
        and same_path(device.path, path)
    )


def _is_foreign(credentials: Credentials, request: Request, platform_id: str) -> bool:
    """REG-01: the digest `uri` is neither the Request-URI nor does it name this platform."""
    return credentials.uri != request.uri and platform_id not in credentials.uri


def _contact_of(request: Request) -> str:
    """URI of the Contact, to be given back (RFC 3261 10.3, 8); empty: none that can be written."""
    try:
        contact = request.contact
    except SipError:
        return ""
    if contact is None or contact.is_star:
        return ""
    text = str(contact.uri)
    return text if text.isascii() and not any(char in text for char in '<>"\r\n\0 ') else ""


def _secret_name(applicant: _Applicant) -> str:
    """Which password was checked, never the password (REG-09)."""
    if applicant.device is not None and applicant.device.password is not None:
        return "the device's own password"
    return "the shared password sip.password" if applicant.password is not None else "no password at all"
