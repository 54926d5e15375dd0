"""What a peer gets that knows too much, or that wants an answer sent to somebody else."""

from __future__ import annotations

import pytest

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.path import Path
from gb28181gw.ua.incoming import Incoming
from tests.support.sip_agent import DEVICE, GATEWAY, PEER, Line

CHANNEL = "34020000001310000001"
OTHER_DEVICE = Path("udp", "198.51.100.9", 5060, "192.0.2.1", 5062)
"""Bound to another device."""
NEIGHBOUR = Path("udp", PEER.remote_host, 6000, "192.0.2.1", 5062)
"""Bound to another device behind the same address."""
NEW_PORT = Path("udp", PEER.remote_host, 7000, "192.0.2.1", 5062)
"""Bound to nobody."""


def call(line: Line) -> list[Incoming]:
    """A watched call with a channel of the device at PEER."""
    bound = {PEER: DEVICE, OTHER_DEVICE: "34020000001320000002", NEIGHBOUR: "34020000001320000003"}

    def is_known(path: Path, user: str) -> bool:
        """As the registry says: a user that is no device may be a channel of whoever is bound there."""
        return path in bound and (user not in bound.values() or bound[path] == user)

    line.agent.use_policy(is_known=is_known, is_verified=lambda path: path in bound)
    dialog = Dialog(
        call_id="c1",
        local_tag="ours",
        remote_tag="dev",
        local_uri=f"sip:{GATEWAY}@3402000000",
        remote_uri=f"sip:{CHANNEL}@3402000000",
        remote_target=f"sip:{CHANNEL}@10.1.1.1",
        local_cseq=1,
        remote_cseq=None,
        invite_cseq=1,
        path=PEER,
    )
    got: list[Incoming] = []
    line.agent.watch_dialog(dialog, got.append, user=DEVICE)
    return got


@pytest.mark.parametrize("path", [OTHER_DEVICE, NEIGHBOUR])
async def test_s04_another_registered_device_cannot_end_a_call_that_it_knows(path: Path) -> None:
    line = Line()
    got = call(line)
    line.request("BYE", path=path, to_tag="ours")
    assert got == [] and line.messages() == []
    assert line.agent.counters.foreign_in_dialog == 1


@pytest.mark.parametrize("path", [PEER, NEW_PORT])
async def test_s04_the_device_of_a_call_ends_it_also_from_a_new_port(path: Path) -> None:
    line = Line()
    got = call(line)
    line.request("BYE", path=path, to_tag="ours")
    assert [incoming.method for incoming in got] == ["BYE"]


@pytest.mark.parametrize(("known", "kept"), [(False, 0), (True, 1)])
async def test_s11_refusal_of_an_invite_is_repeated_for_known_peers_only(known: bool, kept: int) -> None:
    """Timer G would send ten more packets to an address that somebody else may have written into the source."""
    line = Line(known=known)
    line.request("INVITE", extra="Require: x\r\n")
    assert [response.status for response in line.responses()] == [420]
    assert line.endpoint.gauges()["server_invite"] == kept


@pytest.mark.parametrize("known", [False, True])
async def test_invite_whose_to_cannot_be_read_is_refused_with_400(known: bool) -> None:
    line = Line(known=known)
    line.receive(
        b"INVITE sip:user@example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bKq\r\nMax-Forwards: 70\r\n"
        b'From: <sip:a@b>;tag=1\r\nTo: "Mr. J. User <sip:j.user@example>\r\nCall-ID: q\r\nCSeq: 1 INVITE\r\n\r\n'
    )
    assert [data.split(b" ", 2)[1] for _, data in line.wire.sent] == [b"400"]
