"""One session of a simulated device, live or from a recording, from the INVITE to the last packet.

States: answering (100 sent) -> accepted (200 sent, repeated until the ACK) -> confirmed -> ended. Media is independent
of them, as it is in devices: it starts with the 200 (INV-16: with the ACK), and for TCP as soon as there is a
connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

from gb28181gw.sim import bodies
from gb28181gw.sim.content import Content
from gb28181gw.sim.faults import FaultRates
from gb28181gw.sim.media_links import TcpLink, UdpLink
from gb28181gw.sim.media_sender import Pump, RtpStream
from gb28181gw.sim.options import DeviceOptions
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import EARLY_S, Recorded
from gb28181gw.sim.registration import USER_AGENT
from gb28181gw.sim.replay import ReplayStream, Steering, read_steering
from gb28181gw.sim.sdp import Answer, Offer, OfferError, read_offer, write_answer
from gb28181gw.sim.signalling import T1_S, T2_S, TRANSACTION_S, NoAnswerError, Signalling
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Request

ALLOW = "INVITE, ACK, INFO, CANCEL, BYE, OPTIONS, MESSAGE, SUBSCRIBE"
LATE_ANSWER_S = 12.0
"""F-05-LATE: longer than a platform waits."""
LATE_DIAL_S = 4.0
"""INV-20."""
OWN_BYE_S = 10.0
"""SES-04."""
BEYOND_S = 3600
"""PB-07: how far past the end a playback runs."""
MAX_SPEED = 32.0
DEAF_S = 60.0
"""SES-01: how long media goes on after the BYE was answered."""


class InviteError(Exception):
    """The INVITE is refused with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Note(Protocol):
    def __call__(self, what: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallServices:
    """What a call needs of its device."""

    signalling: Signalling
    pump: Pump
    content: Callable[[], Awaitable[Content]]
    recorded: Callable[[int, int], Awaitable[Recorded | None]]
    """What was recorded from and to a time (seconds since 1970); None: nothing."""
    tell: Callable[[bodies.Element], Awaitable[object]]
    """Send a MESSAGE outside dialogs."""
    note: Note
    ended: Callable[[Call], None]
    spawn: Callable[[Coroutine[None, None, None]], None]
    """Run something in a task that the device owns."""
    rng: random.Random


class Call:
    """One INVITE of the platform. Owned by the device; `end` may be called any number of times."""

    def __init__(
        self,
        *,
        request: Request,
        channel_id: str,
        device_id: str,
        tag: str,
        options: DeviceOptions,
        quirks: frozenset[Quirk],
        services: CallServices,
    ) -> None:
        self.request = request
        self.call_id = request.call_id
        self.channel_id = channel_id
        self.device_id = device_id
        self.tag = tag
        self.subject = request.headers.get("Subject") or ""
        self.final_sent = False
        self.confirmed = False
        self.ended_by_peer = False
        self.stream: RtpStream | None = None
        self.offer: Offer | None = None
        self.ssrc = 0
        self._options = options
        self._quirks = quirks
        self._services = services
        self._dialog: Dialog | None = None
        self._content: Content | None = None
        self._link: UdpLink | TcpLink | None = None
        self._payload_type = 96
        self._repeat_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._ok = b""
        self._connected = asyncio.Event()
        self._over = False
        self._role = "active"

    @property
    def sending(self) -> bool:
        return self.stream is not None and self.stream.running

    def _ended(self) -> bool:
        """Asked again after every await: `end` may have come in between."""
        return self._over

    # --- answering ------------------------------------------------------------------------------------------------

    async def answer(self) -> None:
        """Read the offer, open the media side, send the 200. Raises InviteError, ContentError, OSError."""
        quirks = self._quirks
        offer = self._read_offer()
        self.offer = offer
        content = self._content = await self._choose_content(offer)
        if Quirk.F_05_LATE in quirks:
            await asyncio.sleep(LATE_ANSWER_S)
        if self._ended():
            return
        self._choose_ssrc(offer)
        host = self._services.signalling.socket_address[0]
        port = await self._open_link(offer, host)
        if Quirk.INV_15 in quirks:
            self._media_may_start()
            return
        if Quirk.INV_19 in quirks and isinstance(self._link, TcpLink) and self._role == "active":
            self._dial(0.0)
            async with asyncio.timeout(5.0):
                await self._connected.wait()
        if self._ended():
            return
        self._accept(offer, content, host, port)

    async def _choose_content(self, offer: Offer) -> Content:
        if not offer.is_history:
            return await self._services.content()
        early, late = (EARLY_S, BEYOND_S) if Quirk.PB_07 in self._quirks else (0, 0)
        recorded = await self._services.recorded(offer.start - early, offer.stop + late)
        if recorded is None:
            raise InviteError(404, "nothing is recorded of this time")
        return recorded

    def _read_offer(self) -> Offer:
        try:
            offer = read_offer(self.request.body)
        except OfferError as error:
            raise InviteError(488, str(error)) from error
        if Quirk.INV_13 in self._quirks and not offer.only_ps:
            raise InviteError(488, "more than PS is offered")
        if offer.is_history and not 0 < offer.start < offer.stop:
            raise InviteError(488, "t= is no span of time")
        payload = offer.ps_payload
        if payload is None:
            raise InviteError(488, "PS is not offered, and nothing else is sent")
        self._payload_type = payload
        return offer

    def _choose_ssrc(self, offer: Offer) -> None:
        own = int(f"{int(offer.is_history)}{self.device_id[3:8]}{self._services.rng.randrange(10_000):04d}")
        if offer.ssrc is None or Quirk.INV_02 in self._quirks:
            self.ssrc = own
        else:
            self.ssrc = offer.ssrc & 0xFFFFFFFF

    async def _open_link(self, offer: Offer, host: str) -> int:
        """Make the media side; returns the port of the answer."""
        if not offer.tcp:
            rates = FaultRates(
                loss=self._options.rtp_loss,
                duplicate=self._options.rtp_duplicate,
                reorder=self._options.rtp_reorder,
            )
            udp = UdpLink(host, rates, self._services.rng)
            self._link = udp
            return udp.port
        tcp = TcpLink(self._quirks, self._tcp_connected, self._media_lost)
        self._link = tcp
        self._role = "passive" if offer.setup == "active" else "active"
        if self._role == "passive":
            return await tcp.listen(host)
        return 9

    def _accept(self, offer: Offer, content: Content, host: str, port: int) -> None:
        quirks = self._quirks
        signalling = self._services.signalling
        body = b""
        headers = [
            ("Contact", f"<sip:{self.channel_id}@{_bracketed(signalling.local[0])}:{signalling.local[1]}>")
        ]
        if Quirk.F_05_NO_SDP not in quirks:
            headers.append(("Content-Type", "application/sdp"))
            body = write_answer(
                Answer(
                    device_id=self.channel_id,
                    host=host,
                    port=port,
                    tcp=offer.tcp,
                    setup=self._role,
                    payload_type=self._payload_type,
                    ssrc=self.ssrc,
                    video=content.video,
                    audio=content.audio,
                    width=content.width,
                    height=content.height,
                    fps=round(content.fps),
                    bitrate_kbps=self._options.bitrate_kbps,
                    session=offer.session,
                    start=offer.start,
                    stop=offer.stop,
                    file_size=content.size_bytes()
                    if isinstance(content, Recorded) and offer.session.lower() == "download"
                    else 0,
                    quirks=quirks,
                )
            )
        headers += [("User-Agent", USER_AGENT), ("Allow", ALLOW)]
        self._dialog = Dialog.as_uas(self.request, self.tag, signalling.path())
        self._ok = signalling.reply(self.request, 200, to_tag=self.tag, headers=headers, body=body)
        self.final_sent = True
        self._services.note("answered", channel_id=self.channel_id, call_id=self.call_id, ssrc=self.ssrc)
        self._repeat_ok(T1_S, T1_S)
        if Quirk.F_05_NO_SDP not in quirks:
            self._media_may_start()

    def _repeat_ok(self, pause_s: float, elapsed_s: float) -> None:
        """The 200 again until its ACK, doubling up to T2; after 64 x T1 a BYE (RFC 3261 13.3.1.4)."""

        def again() -> None:
            if self.confirmed or self._over or self.ended_by_peer:
                return
            if elapsed_s >= TRANSACTION_S:
                self._services.note("ack_missing", channel_id=self.channel_id, call_id=self.call_id)
                self._hang_up_and_end("ack_missing")
                return
            self._services.signalling.resend(self._ok)
            following = min(2 * pause_s, T2_S)
            self._repeat_ok(following, elapsed_s + following)

        self._repeat_timer = asyncio.get_running_loop().call_later(pause_s, again)

    # --- media ----------------------------------------------------------------------------------------------------

    def _media_may_start(self) -> None:
        """The 200 is out (or never comes, INV-15)."""
        quirks = self._quirks
        link, offer = self._link, self.offer
        if offer is None or link is None:
            return
        if isinstance(link, UdpLink):
            if Quirk.INV_16 not in quirks or self.confirmed:
                self._start_udp(link, offer)
        elif self._role == "active" and not quirks & {Quirk.INV_19, Quirk.INV_20, Quirk.INV_21}:
            self._dial(0.0)

    def _start_udp(self, link: UdpLink, offer: Offer) -> None:
        if self.stream is None:
            link.connect(offer.host, offer.port)
            self._start_stream()

    def _dial(self, delay_s: float) -> None:
        link, offer = self._link, self.offer
        if isinstance(link, TcpLink) and offer is not None:
            link.dial(offer.host, offer.port, self._services.signalling.socket_address[0], delay_s)

    def _tcp_connected(self) -> None:
        self._connected.set()
        if Quirk.INV_16 not in self._quirks or self.confirmed:
            self._start_stream()

    def _start_stream(self) -> None:
        content, link = self._content, self._link
        if self.stream is not None or self._over or content is None or link is None:
            return
        if Quirk.F_05_NO_RTP in self._quirks:
            return
        source = self._services.pump.source_of(content, self._quirks, link.max_payload)
        if isinstance(content, Recorded):
            stream: RtpStream = ReplayStream(
                source,
                link,
                content,
                ssrc=self.ssrc,
                payload_type=self._payload_type,
                rng=self._services.rng,
                quirks=self._quirks,
                scale=self._download_speed(),
                on_end=self._recording_ended,
                on_file_end=self._file_ended,
            )
        else:
            stream = RtpStream(
                source,
                link,
                ssrc=self.ssrc,
                payload_type=self._payload_type,
                rng=self._services.rng,
                quirks=self._quirks,
            )
        self.stream = stream
        self._services.pump.start(stream, in_gop=Quirk.MED_34 in self._quirks)
        kind = "udp" if isinstance(link, UdpLink) else f"tcp-{self._role}"
        target = "" if self.offer is None else f"{self.offer.host}:{self.offer.port}"
        self._services.note(
            "stream_started", channel_id=self.channel_id, call_id=self.call_id, transport=kind, target=target
        )
        if Quirk.SES_04 in self._quirks:
            self._end_later(OWN_BYE_S, lambda: self._hang_up_and_end("own_bye"))

    def _media_lost(self, reason: str) -> None:
        """The media connection ended or never came: what a device does then is BYE."""
        self._services.note("media_lost", channel_id=self.channel_id, call_id=self.call_id, reason=reason)
        self._hang_up_and_end(reason)

    def force_key(self) -> None:
        if self.stream is not None:
            self.stream.force_key()

    # --- recordings -----------------------------------------------------------------------------------------------

    def _download_speed(self) -> float:
        offer = self.offer
        if offer is None or offer.session.lower() != "download":
            return 1.0
        return min(max(offer.speed, 0.25), MAX_SPEED)

    def steer(self, request: Request) -> tuple[int, bytes]:
        """INFO with MANSRTSP: status and body of the answer."""
        steering = read_steering(request.body)
        stream = self.stream
        if steering is None or not isinstance(stream, ReplayStream):
            return (200, b"") if not request.body.strip() else (400, b"")
        quirks = self._quirks
        if Quirk.PB_09 in quirks and not steering.version.startswith("MANS"):
            return 400, b""
        self._services.note(
            "steered",
            channel_id=self.channel_id,
            call_id=self.call_id,
            method=steering.method,
            scale=steering.scale,
            npt=steering.npt,
            cseq=steering.cseq,
        )
        if Quirk.PB_08_REFUSED in quirks and steering.scale is not None:
            return 200, f"{steering.version} 400 Bad Request\r\nCSeq: {steering.cseq}\r\n\r\n".encode()
        if Quirk.PB_08_ALL not in quirks:
            self._obey(stream, steering)
        answer = [f"{steering.version} 200 OK", f"CSeq: {steering.cseq}"]
        if steering.npt is not None:
            answer.append(f"Range: npt={steering.npt:g}-")
        answer.append(f"RTP-Info: {stream.rtp_info()}")
        return 200, "".join(f"{line}\r\n" for line in [*answer, ""]).encode()

    def _obey(self, stream: ReplayStream, steering: Steering) -> None:
        if steering.method == "PAUSE":
            stream.paused = True
        elif steering.method == "PLAY":
            stream.paused = False
            if steering.scale and Quirk.PB_08 not in self._quirks:
                stream.change_scale(steering.scale)
            if steering.npt is not None and self.offer is not None:
                stream.seek(self.offer.start + steering.npt)

    def _recording_ended(self) -> None:
        self._services.note("recording_ended", channel_id=self.channel_id, call_id=self.call_id)
        if Quirk.PB_11 in self._quirks:
            return
        if Quirk.PB_11_BYE in self._quirks:
            self._hang_up_and_end("recording_ended")
            return
        self._services.spawn(self._tell_status())

    def _file_ended(self) -> None:
        if Quirk.PB_14_SPEED in self._quirks and isinstance(self.stream, ReplayStream):
            self.stream.change_scale(1.0)
        if self._quirks & {Quirk.PB_14, Quirk.PB_14_SPEED}:
            self._services.spawn(self._tell_status())

    async def _tell_status(self) -> None:
        """MediaStatus 121 in the dialog of the INVITE, against its direction (9.8.3)."""
        body = bodies.media_status(self.channel_id, self._services.rng.randrange(1, 100_000), 121)
        try:
            if Quirk.PB_12 in self._quirks:
                await self._services.tell(body)
            elif self._dialog is not None and not self.ended_by_peer:
                method = "INFO" if Quirk.PB_12_INFO in self._quirks else "MESSAGE"
                request = self._dialog.request(
                    method, bodies.render(body, self._options.charset, self._quirks)
                )
                request.headers.set("Content-Type", "Application/MANSCDP+xml")
                await self._services.signalling.ask(request)
        except NoAnswerError:
            self._services.note("status_unanswered", channel_id=self.channel_id, call_id=self.call_id)

    # --- dialog ---------------------------------------------------------------------------------------------------

    def acknowledged(self) -> None:
        """The ACK came."""
        if self.confirmed or not self.final_sent:
            return
        self.confirmed = True
        self._services.note("confirmed", channel_id=self.channel_id, call_id=self.call_id)
        quirks = self._quirks
        if Quirk.INV_20 in quirks and self._role == "active":
            self._dial(LATE_DIAL_S)
        if Quirk.INV_16 in quirks and self.offer is not None:
            if isinstance(self._link, UdpLink):
                self._start_udp(self._link, self.offer)
            elif self._connected.is_set():
                self._start_stream()

    def bye_received(self) -> None:
        """The platform ended the call and got its 200."""
        self.ended_by_peer = True
        if Quirk.SES_01 in self._quirks:
            self._end_later(DEAF_S, lambda: self.end("bye"))
            return
        self.end("bye")

    async def hang_up(self, timeout_s: float = TRANSACTION_S) -> None:
        """Send BYE, if there is a dialog. Raises NoAnswerError."""
        if self._dialog is None or self.ended_by_peer:
            return
        self.ended_by_peer = True
        await self._services.signalling.ask(self._dialog.request("BYE"), timeout_s)

    def _hang_up_and_end(self, reason: str) -> None:
        async def hang_up() -> None:
            try:
                await self.hang_up()
            except NoAnswerError:
                self._services.note("bye_unanswered", channel_id=self.channel_id, call_id=self.call_id)

        self._services.spawn(hang_up())
        self.end(reason)

    def end(self, reason: str) -> None:
        """Stop media and forget the call. Idempotent."""
        if self._over:
            return
        self._over = True
        for timer in (self._repeat_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        if self.stream is not None:
            self.stream.stop()
            self._services.note(
                "stream_stopped",
                channel_id=self.channel_id,
                call_id=self.call_id,
                reason=reason,
                packets=self.stream.packets,
                bytes=self.stream.bytes,
            )
        elif self._link is not None:
            self._link.close()
        self._services.ended(self)

    def _end_later(self, delay_s: float, work: Callable[[], None]) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = asyncio.get_running_loop().call_later(delay_s, work)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
