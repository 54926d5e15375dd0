"""A running gateway under attack, while one device stays online and plays.

Every test ends with the same look at the gateway (`served`): its process lives, the good device is online, each of
its pictures arrives in its place, nothing was logged that would be a bug of ours. Everything goes to loopback; each
attacker has an address of its own, since refusals are counted by address (S-20).

What strangers get is decided by three rows: the refusals of the table of RFC 4475 are told to them once and in few
bytes (S-11); a REGISTER is challenged, or refused with 400 when From and To differ (S-01); a MESSAGE gets 403 once
(S-03). Everything else that reads well gets silence, because an answer would tell a scanner that somebody is here
(S-11, S-20).
"""

from __future__ import annotations

import itertools
import random
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.gateway import (
    DEADLINE_SCALE,
    PASSWORD,
    GatewayProcess,
    running_gateway,
    simulated_devices,
    wait_until,
)
from tests.support.hostile import (
    BIG,
    BOMBS,
    GOOD,
    HARMLESS,
    HEIGHT,
    SEED,
    WEB,
    WIDTH,
    Camera,
    Viewer,
    answer_of,
    counted,
    forged_bodies,
    forged_rtp,
    half_http,
    loopback_tcp,
    loopback_udp,
    media_ports,
    metric,
    mutations,
    nothing_came,
    recv_or_reset,
    resident_kb,
    rtcp,
    sizes_of,
)
from tests.support.plane import framed_stream
from tests.support.raw_sip import (
    Offer,
    RawDevice,
    Received,
    TcpPeer,
    UdpPeer,
    answers_to,
    authorization,
    catalogue,
    fresh_host,
    fresh_id,
    keepalive,
    register,
    reply,
    request,
)
from tests.support.rfc4475 import ALL, INVALID, Case

pytestmark = pytest.mark.interop

# ---- the good device, and the look at it after every test


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("hostile"), media={"idle_stop_s": 2}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def stream(gateway: GatewayProcess) -> Iterator[dict[str, Any]]:
    """The good device's first channel, playing over UDP."""
    options = ("--id", GOOD, "--channels", "2", "--size", f"{WIDTH}x{HEIGHT}", "--bitrate", "800")
    with simulated_devices(gateway, *options, "--keepalive", "5"):
        gateway.wait_online(GOOD, channels=2, limit_s=60)
        yield gateway.live(GOOD, good_channel(gateway, 0), transport="udp")


@pytest.fixture(scope="module")
def viewer(stream: dict[str, Any]) -> Iterator[Viewer]:
    viewer = Viewer(stream["urls"]["http_flv"])
    wait_until(lambda: viewer.odd or len(viewer.times_ms) > 10, "the first pictures")
    yield viewer
    viewer.close()


@pytest.fixture(autouse=True)
def served(gateway: GatewayProcess, stream: dict[str, Any], viewer: Viewer) -> Iterator[None]:
    """The look at the gateway after each test."""
    yield
    assert gateway.process is not None and gateway.process.poll() is None
    assert gateway.get(f"/devices/{GOOD}")["online"]
    viewer.check()
    now = gateway.get(f"/streams/{stream['id']}")
    assert (now["state"], now["rtp"]["lost"]) == ("running", 0)
    bugs = [line for line in list(gateway.events) if line["level"] == "error" or "exception" in line]
    assert bugs == []
    assert gateway.other_lines == []


def good_channel(gateway: GatewayProcess, number: int) -> str:
    return str(gateway.get(f"/devices/{GOOD}/channels")["items"][number]["id"])


# ---- RFC 4475

LENGTH_ON_A_STREAM = {"clerr"}
"""A stream waits for what a too large Content-Length announces (XML-14); see the slow connections below."""
ENDS_THE_STREAM = {"ncl", "mcl01"}
"""Where the next message begins cannot be told any more."""
LOST_ON_A_STREAM = {"ltgtruri", "lwsruri", "lwsstart"}
"""GB wins (XML-14): behind a message whose body may have been longer than declared, on a stream, what does not
begin like a request is taken for the rest of that body and passed over."""


def first_word(case: Case) -> str:
    return case.head.split()[0]


def expected(case: Case, *, known: bool, stream: bool) -> list[int]:
    """Statuses that the sender of a row gets."""
    word = first_word(case)
    if isinstance(case.want, int):
        return [] if stream and known and case.name in LOST_ON_A_STREAM else [case.want]
    if case.want == "drop" or word.startswith("SIP/"):
        return []
    if word == "REGISTER":
        # From and To name the same user in one row only; the others are refused (S-01).
        first = 401 if case.name == "escnull" else 400
        # 3.1.1.8: on a stream what stands behind the first message is the next one.
        return [first, 403] if stream and known and case.name == "dblreq" else [first]
    if not known:
        return [403] if word == "MESSAGE" else []
    if word == "MESSAGE":
        return [200] if case.name == "invut-message" else [400]  # judged by its body
    if case.name == "wsinv":
        return [481]  # it has a To tag
    # A device may call only whom somebody talks to (9.12).
    return [{"OPTIONS": 200, "INVITE": 403}.get(word, 405)]


def refused_rows(rows: Sequence[Case]) -> int:
    return sum(isinstance(case.want, int) for case in rows)


REFUSALS = ("sip_agent_malformed_total", "sip_agent_verdicts_total")
REPEATED_S = 0.7
"""Timer G would have fired by then."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """One stranger for each row, over UDP, and what he got."""

    peers: dict[str, UdpPeer]
    answers: dict[str, list[Received]]
    sent_at: float


@pytest.fixture(scope="module")
def strangers(gateway: GatewayProcess) -> Iterator[Strangers]:
    with ExitStack() as ends:
        peers = {case.name: ends.enter_context(UdpPeer(gateway.sip_port)) for case in ALL}
        with counted(gateway, *REFUSALS, at_least=refused_rows(ALL)):
            answers = {case.name: answers_to(peers[case.name], case.octets) for case in ALL}
        yield Strangers(peers, answers, time.monotonic())


def test_rfc4475_s11_strangers_over_udp(strangers: Strangers) -> None:
    for case in ALL:
        size = sum(len(one.raw) for one in strangers.answers[case.name])
        assert size <= max(450, 1.2 * len(case.octets)), case.name
    got = {name: [one.status for one in came] for name, came in strangers.answers.items()}
    assert got == {case.name: expected(case, known=False, stream=False) for case in ALL}


def test_rfc4475_strangers_over_tcp(gateway: GatewayProcess) -> None:
    rows = [case for case in ALL if case.name not in LENGTH_ON_A_STREAM]
    got: dict[str, list[int]] = {}
    with counted(gateway, *REFUSALS, at_least=refused_rows(rows)):
        for case in rows:
            with TcpPeer(gateway.sip_port) as peer:
                got[case.name] = [one.status for one in answers_to(peer, case.octets)]
                assert peer.ended == (case.name in ENDS_THE_STREAM), case.name
    assert got == {case.name: expected(case, known=False, stream=True) for case in rows}


def unlike_others(case: Case) -> bytes:
    """The row with a branch and Call-ID of its own: from one device equal ones would be repetitions."""
    return case.octets.replace(b"torture1", f"torture-{case.name}".encode()).replace(
        b"torture.1@", f"torture-{case.name}@".encode()
    )


@pytest.mark.parametrize("peer_of", [UdpPeer, TcpPeer])
def test_rfc4475_a_registered_device(gateway: GatewayProcess, peer_of: type[UdpPeer] | type[TcpPeer]) -> None:
    is_stream = peer_of is TcpPeer
    rows = [case for case in ALL if not (is_stream and case.name in LENGTH_ON_A_STREAM)]
    got: dict[str, list[int]] = {}
    with (
        counted(gateway, *REFUSALS, at_least=refused_rows(rows) - len(LOST_ON_A_STREAM)),
        ExitStack() as ends,
    ):
        device: RawDevice | None = None
        for case in rows:
            if device is None or device.peer.ended:
                device = ends.enter_context(RawDevice(peer_of(gateway.sip_port), fresh_id()))
                assert device.register().status == 200
            if is_stream and case.name in ENDS_THE_STREAM:
                before = len(device.received)
                device.peer.send(unlike_others(case))
                wait_until(lambda device=device: device.peer.ended, "the end of the connection")  # type: ignore[misc]
                got[case.name] = [one.status for one in device.received[before:] if one.status]
            else:
                got[case.name] = [one.status for one in device.answers_to(unlike_others(case))]
    assert got == {case.name: expected(case, known=True, stream=is_stream) for case in rows}


# ---- XML


@pytest.mark.parametrize("peer_of", [UdpPeer, TcpPeer])
def test_s05_bombs_from_a_registered_device(
    gateway: GatewayProcess, peer_of: type[UdpPeer] | type[TcpPeer]
) -> None:
    bodies = BOMBS | HARMLESS
    before_kb = resident_kb(gateway)
    with (
        RawDevice(peer_of(gateway.sip_port), fresh_id()) as device,
        counted(gateway, "message_malformed_total", at_least=len(BOMBS)),
    ):
        assert device.register().status == 200
        got = {
            name: device.transact(device.request("MESSAGE", body=body)).status
            for name, body in bodies.items()
        }
        assert device.keepalive().status == 200
        assert got == dict.fromkeys(BOMBS, 400) | dict.fromkeys(HARMLESS, 200)
        reasons = [line["reason"] for line in gateway.seen("message.invalid", device_id=device.id)]
    assert set(reasons) <= {"dtd", "too_deep", "too_many_elements", "not_xml", "root", "empty", "too_large"}
    assert resident_kb(gateway) - before_kb < 30_000


def test_s05_megabytes_over_tcp_are_read_apart_and_refused(gateway: GatewayProcess) -> None:
    before_kb = resident_kb(gateway)
    with RawDevice(TcpPeer(gateway.sip_port), fresh_id()) as device:
        assert device.register().status == 200
        for name, body in BIG.items():
            with_before = metric(gateway, "message_malformed_total")
            assert device.transact(device.request("MESSAGE", body=body)).status == 200, name
            assert device.keepalive().status == 200, name
            wait_until(
                lambda seen=with_before: metric(gateway, "message_malformed_total") > seen,  # type: ignore[misc]
                f"the refusal of {name}",
            )
        device.peer.send(device.request("MESSAGE", body=b"<Notify>" + b" " * 8_400_000))
        wait_until(lambda: device.peer.ended, "the end of a connection with more than 8 MB")
        assert device.received[-1].status == 513
    assert resident_kb(gateway) - before_kb < 60_000


def test_s05_s03_bombs_of_strangers_reach_no_parser(gateway: GatewayProcess) -> None:
    """403 once in ten minutes to an address that names a device, then silence; never 200."""
    invalid = metric(gateway, "message_malformed_total", "message_documents_total")
    with UdpPeer(gateway.sip_port) as peer, TcpPeer(gateway.sip_port) as connection:
        for where in (peer, connection):
            sent = [
                request("MESSAGE", fresh_id(), via=where.via, transport=where.transport, body=body)
                for body in (BOMBS | HARMLESS).values()
            ]
            assert [one.status for one in answers_to(where, *sent)] == [403]
    assert metric(gateway, "message_malformed_total", "message_documents_total") == invalid


# ---- noise on the SIP ports


def test_f23_random_octets_over_udp(gateway: GatewayProcess) -> None:
    """The source is read until its refusals are used up, and then not any more (S-20); others are served."""
    rng = random.Random(SEED)
    with (
        counted(gateway, "sip_transport_malformed_total", at_least=60),
        counted(gateway, "sip_transport_gated_total"),
        UdpPeer(gateway.sip_port) as noisy,
        UdpPeer(gateway.sip_port) as other,
    ):
        for _ in range(500):
            noisy.send(rng.randbytes(rng.choice((1, 3, 12, 100, 1_400, 9_000))))
        assert answers_to(other) == []
        assert noisy.receive(0.01) is None
    gateway.wait_event("sip.dropped", reason="rate_limited", peer=noisy.host)


def test_f23_truncated_register_over_udp(gateway: GatewayProcess) -> None:
    """Every beginning of a REGISTER, 25 of each source. None of them is more than a challenge or a refusal."""
    whole = request("REGISTER", fresh_id(), extra=("Contact: <sip:a@127.0.0.1>", "Expires: 60"))
    for start in range(0, len(whole), 25):
        with UdpPeer(gateway.sip_port) as peer:
            came = answers_to(peer, *(whole[:size] for size in range(start, min(start + 25, len(whole)))))
            assert {one.status for one in came} <= {400, 401, 505}


def test_f23_mutated_messages_of_a_registered_device(gateway: GatewayProcess) -> None:
    """Past the refusal bucket, straight into parser, transactions and handlers."""
    rng = random.Random(SEED + 1)
    with (
        counted(gateway, *REFUSALS),
        RawDevice(UdpPeer(gateway.sip_port), fresh_id(), channels=(fresh_id("132"),)) as device,
    ):
        assert device.register().status == 200
        asked = device.wait_request("MESSAGE")
        sound = [
            device.request("MESSAGE", body=keepalive(device.id)),
            device.request("MESSAGE", body=catalogue(device.id, device.channels, 1)),
            device.request("INVITE", body=b"v=0\r\n", content_type="application/sdp"),
            device.request("NOTIFY", body=keepalive(device.id), extra=("Event: Catalog",)),
            device.request("REGISTER", extra=("Expires: 0",)),
            reply(asked, 200, to_tag="x"),
            reply(asked, 401, to_tag="x", extra=('WWW-Authenticate: Digest realm="r", nonce="n"',)),
        ]
        for number, data in enumerate(
            itertools.chain.from_iterable(mutations(rng, one, 60) for one in sound)
        ):
            device.peer.send(data)
            if number % 50 == 49:
                assert device.keepalive().status == 200
        assert device.keepalive().status == 200
        assert gateway.get(f"/devices/{device.id}")["online"]


def test_f23_random_octets_over_tcp(gateway: GatewayProcess) -> None:
    rng = random.Random(SEED + 2)
    with counted(gateway, "sip_transport_closed_framing_total"):
        for size in (1, 40, 300, 5_000, 70_000, 1_200_000):
            with TcpPeer(gateway.sip_port) as peer:
                peer.send(rng.randbytes(size) + b"\r\n\r\n")
                assert peer.wait_end(15), f"{size} random octets"


def test_f08_s20_line_ends_by_the_million(gateway: GatewayProcess) -> None:
    with (
        counted(gateway, "sip_transport_pings_total", at_least=1_000_000),
        UdpPeer(gateway.sip_port) as peer,
        TcpPeer(gateway.sip_port, receive_buffer=4_096) as connection,
        TcpPeer(gateway.sip_port) as other,
    ):
        for _ in range(300):
            peer.send(b"\r\n" * 400)
        assert answers_to(peer) == []
        connection.send(b"\r\n\r\n" * 1_000_000)  # and nothing is read
        assert answers_to(other) == []
        wait_until(lambda: metric(gateway, "sip_transport_pings_total") >= 1_000_000, "the end of the flood")


def test_f08_octet_by_octet_and_many_at_once(gateway: GatewayProcess) -> None:
    with TcpPeer(gateway.sip_port) as peer:
        for octet in request("REGISTER", fresh_id(), via=peer.via, transport="TCP"):
            peer.send(bytes((octet,)))
        answer = peer.receive()
        assert answer is not None and answer.status == 401
        three = b"".join(request("REGISTER", fresh_id(), via=peer.via, transport="TCP") for _ in range(3))
        peer.send(three[:-30])
        peer.send(three[-30:])
        assert [one.status for one in (peer.receive() for _ in range(3)) if one is not None] == [401] * 3


def test_s20_f08_eight_unverified_connections_of_one_address(gateway: GatewayProcess) -> None:
    host = fresh_host()
    with ExitStack() as ends, counted(gateway, "sip_transport_connections_refused_total"):
        held = [ends.enter_context(TcpPeer(gateway.sip_port, host)) for _ in range(8)]
        assert all(answers_to(one) == [] for one in held)
        ninth = ends.enter_context(TcpPeer(gateway.sip_port, host))
        assert ninth.wait_end(5)
        # Others are served, and a connection that proves itself makes room.
        assert answers_to(ends.enter_context(TcpPeer(gateway.sip_port))) == []
        assert register(held[0], fresh_id())[-1].status == 200
        assert answers_to(ends.enter_context(TcpPeer(gateway.sip_port, host))) == []


def test_f08_slow_and_idle_connections_are_ended(gateway: GatewayProcess) -> None:
    """SIP: 10 s without a message, 5 s within one. HTTP, both listeners: 10 s within a head. No trickle helps."""
    head = request("REGISTER", fresh_id(), transport="TCP", via="127.0.0.1:1")
    clerr = next(case.octets for case in INVALID if case.name == "clerr")
    begin: dict[str, bytes] = {
        "silent": b"",
        "line ends": b"\r\n\r\n",
        "slow head": head[:20],
        "half a head": head[:-8],
        "no body": head.replace(b"Content-Length: 0", b"Content-Length: 500"),
        "clerr": clerr,
    }
    trickle = {"line ends": b"\r\n\r\n", "slow head": b"a", "no body": b"<"}
    with (
        ExitStack() as ends,
        counted(gateway, "sip_transport_closed_idle_total", at_least=2),
        counted(gateway, "sip_transport_closed_slow_total", at_least=4),
    ):
        device = ends.enter_context(RawDevice(TcpPeer(gateway.sip_port), fresh_id()))
        assert device.register().status == 200
        slow = {name: ends.enter_context(TcpPeer(gateway.sip_port)) for name in begin}
        for name, peer in slow.items():
            peer.send(begin[name])
        web = {
            f"{port} {data!r}": ends.enter_context(half_http(port, data))
            for port in (gateway.media_port, gateway.api_port)
            for data in (b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ")
        }
        open_web = dict(web)
        deadline = time.monotonic() + 30 * DEADLINE_SCALE
        while time.monotonic() < deadline:
            left = [name for name, peer in slow.items() if not peer.wait_end(0.05)]
            for name in left:
                slow[name].send(trickle.get(name, b""))
            for name, connection in list(open_web.items()):
                with suppress(TimeoutError):
                    if not recv_or_reset(connection):
                        del open_web[name]
            if not left and not open_web:
                break
        assert [name for name, peer in slow.items() if not peer.ended] == []
        assert list(open_web) == []
        assert not device.peer.ended
        assert device.keepalive().status == 200


# ---- forged registrations and messages


def facts(gateway: GatewayProcess, device_id: str = GOOD) -> dict[str, Any]:
    """What nobody but the device may change."""
    device = dict(gateway.get(f"/devices/{device_id}"))
    del device["last_seen_at"]
    device["channels"] = gateway.get(f"/devices/{device_id}/channels")["items"]
    device["status"] = [channel["status"] for channel in device["channels"]]
    return device


def test_s01_forged_registrations_change_nothing(gateway: GatewayProcess) -> None:
    """300 of them for a live device: without credentials (also with the live Call-ID, also to unregister), with a
    wrong password, and with the right shared password under a foreign user name."""
    with RawDevice(UdpPeer(gateway.sip_port), fresh_id()) as victim:
        live = victim.register()
        assert live.status == 200
        before = facts(gateway, victim.id)
        statuses: list[int] = []
        for _ in range(30):
            with UdpPeer(gateway.sip_port) as peer:

                def forge(cseq: int, *extra: str, call_id: str = "", peer: UdpPeer = peer) -> bytes:
                    return request(
                        "REGISTER", victim.id, via=peer.via, cseq=cseq, call_id=call_id, extra=extra
                    )

                bare = [
                    forge(1),
                    forge(900, "Expires: 0"),
                    forge(901, "Expires: 3600", call_id=live.get("Call-ID")),
                    forge(902, "Expires: 0", call_id=live.get("Call-ID")),
                ]
                came = answers_to(peer, *bare)
                assert [one.status for one in came] == [401] * 4
                challenge = came[0].get("WWW-Authenticate")
                wrong = authorization(challenge, victim.id, "wrong-password")
                foreign = authorization(challenge, "34020000001189999999", PASSWORD)
                # The seventh REGISTER within a minute would be answered late (F-01).
                came = answers_to(peer, forge(2, wrong), forge(3, foreign, "Expires: 0"))
                assert [one.status for one in came] == [403] * 2
                statuses += [401] * 4 + [403] * 2
                # And in the name of another id that is online.
                came = answers_to(
                    peer,
                    *(
                        request("REGISTER", GOOD, via=peer.via, cseq=number, extra=("Expires: 0",))
                        for number in range(1, 5)
                    ),
                )
                statuses += [one.status for one in came]
        assert len(statuses) == 300 and 200 not in statuses
        assert facts(gateway, victim.id) == before
        assert victim.keepalive().status == 200


@pytest.mark.parametrize("wrong", [False, True])
def test_s01_known_and_unknown_ids_get_the_same_octets(gateway: GatewayProcess, wrong: bool) -> None:
    shown: list[bytes] = []
    for user in (GOOD, fresh_id(), "34020000001329999999"):
        with UdpPeer(gateway.sip_port) as peer:
            first = request("REGISTER", user, via=peer.via)
            (answer,) = answers_to(peer, first)
            if wrong:
                guess = authorization(answer.get("WWW-Authenticate"), user, "wrong-password")
                (answer,) = answers_to(peer, request("REGISTER", user, via=peer.via, cseq=2, extra=(guess,)))
            assert answer.status == (403 if wrong else 401)
            shown.append(answer.masked(user, peer.host, str(peer.port)))
    assert shown[0] == shown[1] == shown[2]


def guesses(peer: UdpPeer, user: str, count: int) -> list[int]:
    """Statuses of so many wrong passwords, all for one challenge."""
    (challenge,) = answers_to(peer, request("REGISTER", user, via=peer.via))
    wrong = authorization(challenge.get("WWW-Authenticate"), user, "guess")
    return [
        one.status
        for number in range(count)
        for one in answers_to(peer, request("REGISTER", user, via=peer.via, cseq=number + 2, extra=(wrong,)))
    ]


def test_s02_banned_on_the_sixth_guess_and_others_of_the_address_are_served(gateway: GatewayProcess) -> None:
    host, guessed = fresh_host(), fresh_id()
    with (
        counted(gateway, "bans", at_least=1),
        UdpPeer(gateway.sip_port, host) as attacker,
        RawDevice(UdpPeer(gateway.sip_port, host), fresh_id()) as neighbour,
    ):
        assert neighbour.register().status == 200
        assert guesses(attacker, guessed, 5) == [403] * 5
        # Banned: nothing is answered any more, from any port of the address. Other ids are.
        with (
            counted(gateway, "register_dropped_total", at_least=3),
            UdpPeer(gateway.sip_port, host) as elsewhere,
        ):
            again = [request("REGISTER", guessed, via=attacker.via, cseq=number) for number in (20, 21)]
            assert answers_to(attacker, *again) == []
            assert answers_to(elsewhere, request("REGISTER", guessed, via=elsewhere.via)) == []
            assert register(elsewhere, fresh_id())[-1].status == 200
        assert neighbour.keepalive().status == 200
        assert gateway.seen("auth.banned", device_id=guessed)


def test_s02_twenty_failing_ids_ban_an_address_but_not_who_succeeded_from_it(gateway: GatewayProcess) -> None:
    host = fresh_host()
    with (
        UdpPeer(gateway.sip_port, host) as attacker,
        RawDevice(UdpPeer(gateway.sip_port, host), fresh_id()) as proven,
    ):
        assert proven.register().status == 200
        for _ in range(20):
            assert guesses_without_fence(attacker, fresh_id()) == 403
        # answers_to() cannot be used here: its own REGISTER is not answered either.
        attacker.send(request("REGISTER", fresh_id(), via=attacker.via))
        with UdpPeer(gateway.sip_port) as other:
            assert answers_to(other) == []
        assert attacker.receive(0.01) is None
        assert proven.keepalive().status == 200
        assert proven.register().status == 200
        with UdpPeer(gateway.sip_port, host) as rebooted:
            assert register(rebooted, proven.id)[-1].status == 200


def guesses_without_fence(peer: UdpPeer, user: str) -> int:
    peer.send(request("REGISTER", user, via=peer.via))
    challenge = peer.receive()
    assert challenge is not None and challenge.status == 401
    wrong = authorization(challenge.get("WWW-Authenticate"), user, "guess")
    peer.send(request("REGISTER", user, via=peer.via, cseq=2, extra=(wrong,)))
    answer = peer.receive()
    assert answer is not None
    return answer.status


def test_s03_forged_messages_of_other_addresses_change_nothing(gateway: GatewayProcess) -> None:
    """300 in the name of a live device: no answer, no effect. Its address is asked, answers, and stays."""
    before = facts(gateway)
    channel = good_channel(gateway, 0)
    conflicts = metric(gateway, "binding_conflicts_total")
    with counted(gateway, "message_off_path_total", at_least=300):
        for _ in range(15):
            with UdpPeer(gateway.sip_port) as peer:
                bodies = forged_bodies(GOOD, channel)
                sent = [
                    request(method, user, via=peer.via, body=body)
                    for method in ("MESSAGE", "NOTIFY")
                    for body, user in zip(bodies, itertools.repeat(GOOD), strict=False)
                ]
                came = answers_to(peer, *sent)
                # What may come is a question of the gateway: the path rule asks both addresses.
                assert [one.first for one in came if one.status] == []
                assert {one.method for one in came} <= {"MESSAGE"}
    wait_until(
        lambda: metric(gateway, "binding_conflicts_total") > conflicts,
        "the device's answer at its old address",
    )
    assert facts(gateway) == before


def test_s03_unknown_senders_never_get_200(gateway: GatewayProcess) -> None:
    unknown = fresh_id()
    with UdpPeer(gateway.sip_port) as peer:
        sent = [
            request("MESSAGE", unknown, via=peer.via, body=body) for body in forged_bodies(unknown, unknown)
        ]
        assert [one.status for one in answers_to(peer, *sent)] == [403]
    assert gateway.api.get(f"/api/v1/devices/{unknown}").status_code == 404


# ---- the path rule: whose address counts


def address_of(gateway: GatewayProcess, device_id: str) -> str:
    return str(gateway.get(f"/devices/{device_id}")["remote_address"])


def test_f07_rule_4_1_2_silent_old_port_a_new_one_of_the_same_address_is_followed(
    gateway: GatewayProcess,
) -> None:
    device_id, host = fresh_id(), fresh_host()
    channels = (fresh_id("132"),)
    with (
        RawDevice(UdpPeer(gateway.sip_port, host), device_id, channels) as old,
        RawDevice(UdpPeer(gateway.sip_port, host), device_id, channels) as new,
    ):
        assert old.register().status == 200
        gateway.wait_online(device_id, channels=1)
        old.mute = True
        assert new.keepalive().status == 200  # read-only input is taken at once
        wait_until(
            lambda: address_of(gateway, device_id) == new.peer.via, "the binding to follow the port", 10
        )
        assert gateway.seen("binding.port_moved", device_id=device_id)
        new.refusal = 486
        refused = gateway.post(f"/devices/{device_id}/channels/{channels[0]}/live")
        assert refused.json()["sip_status"] == 486
        new.wait_request("INVITE")


def test_f07_s03_rule_4_1_2_answering_old_port_stays(gateway: GatewayProcess) -> None:
    device_id, host = fresh_id(), fresh_host()
    with (
        RawDevice(UdpPeer(gateway.sip_port, host), device_id) as old,
        RawDevice(UdpPeer(gateway.sip_port, host), device_id) as new,
    ):
        assert old.register().status == 200
        assert new.keepalive().status == 200
        gateway.wait_event("binding.conflict", device_id=device_id, reason="old_answers")
        assert address_of(gateway, device_id) == old.peer.via
        assert old.keepalive().status == 200


def test_s03_rule_4_1_3_another_address_never_moves_while_the_old_one_answers(
    gateway: GatewayProcess,
) -> None:
    """The attacker is in the network of the device and answers the gateway's question: worst case of 3b."""
    device_id = fresh_id()
    with (
        RawDevice(UdpPeer(gateway.sip_port), device_id) as device,
        RawDevice(UdpPeer(gateway.sip_port), device_id) as attacker,
    ):
        assert device.register().status == 200
        for number in range(100):
            attacker.peer.send(attacker.request("MESSAGE", body=keepalive(device_id, number)))
        attacker.wait_request("MESSAGE")
        gateway.wait_event("binding.conflict", device_id=device_id, reason="old_answers")
        assert [one.first for one in attacker.received if one.status] == []
        assert address_of(gateway, device_id) == device.peer.via
        assert device.keepalive().status == 200


# ---- calls


@contextmanager
def started(gateway: GatewayProcess, device: RawDevice, transport: str) -> Iterator[Future[dict[str, Any]]]:
    """A request for the device's channel, under way on a thread; the stream is ended at the end."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.live, device.id, device.channels[0], transport=transport)
        yield asked
        gateway.api.delete(f"/api/v1/streams/{asked.result()['id']}")


@contextmanager
def registered_camera(gateway: GatewayProcess) -> Iterator[RawDevice]:
    with RawDevice(UdpPeer(gateway.sip_port), fresh_id(), channels=(fresh_id("132"),)) as device:
        assert device.register().status == 200
        gateway.wait_online(device.id, channels=1)
        yield device


def in_dialog(method: str, invite: Received, device: RawDevice, via: str, **changed: Any) -> bytes:
    """A request of the callee within the dialog, as somebody writes it who has seen everything."""
    fields: dict[str, Any] = {
        "call_id": invite.get("Call-ID"),
        "from_tag": device.tag,
        "to_tag": invite.from_tag,
        "cseq": 1,
    }
    return request(method, device.channels[0], via=via, **(fields | changed))


def test_s04_forged_ends_of_a_call(gateway: GatewayProcess) -> None:
    with (
        registered_camera(gateway) as device,
        RawDevice(UdpPeer(gateway.sip_port), fresh_id()) as other_device,
        RawDevice(UdpPeer(gateway.sip_port, device.peer.host), fresh_id()) as neighbour,
        UdpPeer(gateway.sip_port) as stranger,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media,
    ):
        media.bind((device.peer.host, 0))
        assert (other_device.register().status, neighbour.register().status) == (200, 200)
        with started(gateway, device, "udp") as asked:
            invite = device.wait_request("INVITE")
            # A refusal with the right branch from elsewhere, before the device answers.
            stranger.send(reply(invite, 486, to_tag="forged"))
            assert answers_to(stranger) == []
            offer = device.accept(invite, port=media.getsockname()[1])
            device.wait_request("ACK")
            with Camera(lambda data: media.sendto(data, (offer.host, offer.port)), offer.ssrc):
                stream = asked.result()
                # All that an observer knows, from every wrong source.
                with counted(gateway, "sip_agent_foreign_in_dialog_total", at_least=300):
                    for _ in range(10):
                        with UdpPeer(gateway.sip_port) as peer:
                            forged = [
                                in_dialog(method, invite, device, peer.via, cseq=number)
                                for number in range(1, 11)
                                for method in ("BYE", "INFO", "INVITE")
                            ]
                            assert answers_to(peer, *forged) == []
                    for thief in (other_device, neighbour):
                        assert thief.answers_to(in_dialog("BYE", invite, device, thief.peer.via)) == []
                        # Nor under its own name.
                        own_name = in_dialog("BYE", invite, device, thief.peer.via, cseq=2).replace(
                            f"From: <sip:{device.channels[0]}".encode(), f"From: <sip:{thief.id}".encode()
                        )
                        assert thief.answers_to(own_name) == []
                # The right source with too little knowledge.
                for changed in (
                    {"to_tag": "guess"},
                    {"from_tag": "guess"},
                    {"call_id": "guess"},
                    {"to_tag": ""},
                ):
                    (answer,) = device.answers_to(
                        in_dialog("BYE", invite, device, device.peer.via, **changed)
                    )
                    assert answer.status in (405, 481)
                # CANCEL of the gateway's own INVITE by the callee, and by somebody else.
                cancel = {"branch": "z9hG4bKforged", "to_tag": ""}
                assert answers_to(stranger, in_dialog("CANCEL", invite, device, stranger.via, **cancel)) == []
                now = gateway.get(f"/streams/{stream['id']}")
                assert now["state"] == "running"
                assert len(gateway.seen("stream.started", stream_id=stream["id"])) == 1
                assert [one.first for one in device.received if one.method == "BYE" and not one.status] == []
                # The device itself may.
                bye = device.transact(in_dialog("BYE", invite, device, device.peer.via, cseq=99))
                assert bye.status == 200
                wait_until(
                    lambda: (
                        gateway.api.get(f"/api/v1/streams/{stream['id']}").status_code == 404
                        or gateway.get(f"/streams/{stream['id']}")["state"] != "running"
                    ),
                    "the end of the call by the device's own BYE",
                )


# ---- noise on the media ports


def test_s06_noise_and_foreign_rtp_during_play(gateway: GatewayProcess, stream: dict[str, Any]) -> None:
    """Four foreign addresses and the device's own one, with the right SSRC and every sequence number."""
    ssrc = int(gateway.get(f"/streams/{stream['id']}")["ssrc"])
    rng = random.Random(SEED + 3)
    wait_until(lambda: len(media_ports(gateway)) == 1, "the end of all other streams")
    (port,) = media_ports(gateway)
    with (
        ExitStack() as ends,
        counted(gateway, "rtp_foreign", at_least=2_000),
        counted(gateway, "rtp_malformed", at_least=50),
    ):
        attackers = [ends.enter_context(loopback_udp(fresh_host())) for _ in range(4)]
        attackers.append(ends.enter_context(loopback_udp("127.0.0.1")))
        sequences = itertools.cycle(range(0, 65_536, 500))
        for _ in range(400):
            for sock in attackers:
                packets = [
                    rng.randbytes(rng.choice((0, 1, 4, 8, 11, 12, 13, 200, 1_400))),
                    b"\x80" + rng.randbytes(rng.choice((7, 11, 60))),
                    rng.choice(rtcp(ssrc)),
                    *forged_rtp(ssrc, sequence=next(sequences), count=2),
                ]
                for packet in packets:
                    sock.sendto(packet, ("127.0.0.1", port))
                sock.sendto(rng.choice(rtcp(ssrc)), ("127.0.0.1", port + 1))
            # The kernel's queue of the port is shared with the device: let the gateway take what is there.
            gateway.api.get("/healthz")
        for _ in range(5):
            with suppress(OSError), loopback_tcp(fresh_host(), port) as connection:
                connection.sendall(rng.randbytes(5_000))
        gateway.wait_event("media.source_conflict", stream_id=stream["id"])
        # Not asked of the device's own host, whose RTCP may come from any of its ports.
        assert all(nothing_came(sock) for sock in attackers[:-1])


def test_s06_foreign_rtp_before_the_first_packet_over_udp(gateway: GatewayProcess) -> None:
    """The attacker knows port and SSRC and is there first; the device sends within 2 s of the ACK."""
    with (
        registered_camera(gateway) as device,
        loopback_udp(fresh_host()) as attacker,
        loopback_udp(device.peer.host) as media,
        started(gateway, device, "udp") as asked,
    ):
        offer = Offer.read(device.wait_request("INVITE"))
        forged = forged_rtp(offer.ssrc)
        rng = random.Random(SEED + 4)
        there = (offer.host, offer.port)
        for packet in (*forged, *rtcp(offer.ssrc), *(rng.randbytes(100) for _ in range(100))):
            attacker.sendto(packet, there)
        device.accept(device.wait_request("INVITE"), port=media.getsockname()[1])
        device.wait_request("ACK")
        for packet in forged:
            attacker.sendto(packet, there)
        with Camera(lambda data: media.sendto(data, there), offer.ssrc):
            stream = asked.result()
            for packet in forged:
                attacker.sendto(packet, there)
            assert sizes_of(stream["urls"]["http_flv"]) == {(WIDTH, HEIGHT)}
            tracks = gateway.get(f"/streams/{stream['id']}")["tracks"]
            assert [(one["width"], one["height"]) for one in tracks] == [(WIDTH, HEIGHT)]
            assert nothing_came(attacker)


def test_s06_strangers_first_at_the_tcp_port(gateway: GatewayProcess) -> None:
    """Silent ones, noise, and forged media with the right SSRC; the device connects last and is shown."""
    rng = random.Random(SEED + 5)
    with (
        registered_camera(gateway) as device,
        ExitStack() as ends,
        started(gateway, device, "tcp-passive") as asked,
    ):
        invite = device.wait_request("INVITE")
        offer = Offer.read(invite)
        forged = framed_stream(forged_rtp(offer.ssrc))
        for data in (
            b"",
            b"",
            b"",
            rng.randbytes(20_000),
            b"\xff" * 20_000,
            forged,
            b"$\x00\x05abcde",
            b"",
            b"",
        ):
            connection = ends.enter_context(loopback_tcp(fresh_host(), offer.port))
            with suppress(OSError):
                connection.sendall(data)
        device.accept(invite, port=9)
        device.wait_request("ACK")
        media = ends.enter_context(loopback_tcp(device.peer.host, offer.port))
        with Camera(lambda data: media.sendall(framed_stream([data])), offer.ssrc):
            stream = asked.result()
            for _ in range(5):
                late = ends.enter_context(loopback_tcp(fresh_host(), offer.port))
                with suppress(OSError):
                    late.sendall(forged)
            assert sizes_of(stream["urls"]["http_flv"]) == {(WIDTH, HEIGHT)}
            assert gateway.get(f"/streams/{stream['id']}")["rtp"]["lost"] == 0


# ---- noise on the HTTP listeners


@pytest.mark.parametrize("listener", ["media", "api"])
def test_s09_f08_hostile_requests_of_web_clients(gateway: GatewayProcess, listener: str) -> None:
    """Refused or cut off; never served, never an error of ours."""
    port = gateway.media_port if listener == "media" else gateway.api_port
    rng = random.Random(SEED + 6)
    denied = ("media_http_refused_total",) if listener == "media" else ("api_denied_total",)
    with counted(gateway, *denied, at_least=3):
        odd: dict[str, bytes] = {}
        for name, data in WEB.items():
            for line in re.findall(rb"(?m)^HTTP/1\.[01] (\d\d\d)", answer_of(port, data)):
                if not 400 <= int(line) < 500:
                    odd[name] = line
        for sound in list(WEB.values())[6:]:
            for number, data in enumerate(mutations(rng, sound[:2_000], 8)):
                for line in re.findall(rb"(?m)^HTTP/1\.[01] (\d\d\d)", answer_of(port, data)):
                    if not 400 <= int(line) < 500:
                        odd[f"{data!r} {number}"] = line
        for size in (1, 100, 70_000):
            answer_of(port, rng.randbytes(size))
        assert odd == {}
    assert gateway.api.get("/readyz").status_code == 200


# ---- at the end


def test_s11_no_stranger_is_answered_again(strangers: Strangers) -> None:
    """The last test, so that there was time: nobody who had his answer, or silence, over UDP hears from us again."""
    wait_until(lambda: time.monotonic() > strangers.sent_at + REPEATED_S, "time for a repetition")
    again = {
        name: late.first
        for name, peer in strangers.peers.items()
        if (late := peer.receive(0.001)) is not None
    }
    assert again == {}
