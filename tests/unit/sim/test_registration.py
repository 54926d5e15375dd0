"""Registration against a platform that checks digests by itself."""

import re

import pytest

from tests.support.sim import simulated
from tests.support.sim_platform import MiniPlatform, platform

DEVICE = "34020000001180000001"


def param(authorization: str, name: str) -> str:
    found = re.search(rf'{name}=(?:"([^"]*)"|([^\s,]+))', authorization)
    return "" if found is None else found.group(1) or found.group(2)


async def registers(gateway: MiniPlatform, **changes: object) -> None:
    async with simulated(gateway.address, channels=1, **changes) as sim:
        await sim.registered()


@pytest.mark.parametrize("qop", [True, False])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_challenge_answer_and_unregister(transport: str, qop: bool) -> None:
    async with platform(qop=qop) as gateway:
        async with simulated(gateway.address, transport=transport) as sim:
            await sim.registered()
            assert list(gateway.registered) == [DEVICE]
            first, second = gateway.requests("REGISTER")
            assert first.headers.get("Authorization") is None
            assert first.uri == "sip:34020000002000000001@3402000000"
            assert str(first.from_.uri) == str(first.to.uri) == f"sip:{DEVICE}@3402000000"
            assert first.headers.get("X-GB-Ver") == "3.0"
            assert (first.call_id, first.cseq.number + 1) == (second.call_id, second.cseq.number)
            assert param(gateway.authorizations[0], "uri") == first.uri
        assert gateway.registered == {}
        assert gateway.requests("REGISTER")[-1].expires == 0


async def test_older_editions_send_no_version() -> None:
    async with platform() as gateway:
        await registers(gateway, edition="2.0")
        assert gateway.requests("REGISTER")[0].headers.get("X-GB-Ver") is None


async def test_wrong_password_is_told_and_tried_again_later() -> None:
    async with platform(password="other") as gateway, simulated(gateway.address) as sim:
        await sim.until(lambda: sim.device.counters.register_failures >= 2)
        assert sim.device.last_error.startswith("401")
        assert not sim.device.registered
        call_ids = [request.call_id for request in gateway.requests("REGISTER")]
        assert len(set(call_ids)) >= 2
        assert max(call_ids.count(call_id) for call_id in call_ids) == 2


async def test_refusal_is_told() -> None:
    async with platform() as gateway:
        gateway.register_status = 403
        async with simulated(gateway.address) as sim:
            await sim.until(lambda: sim.noted("register_failed"))
            assert sim.noted("register_failed")[0].facts["status"] == 403


async def test_refresh_before_expiry_uses_the_known_nonce() -> None:
    async with platform() as gateway, simulated(gateway.address, expires_s=2) as sim:
        await sim.until(lambda: sim.noted("refreshed"))
        third = gateway.requests("REGISTER")[2]
        assert 'nonce="nonce1"' in (third.headers.get("Authorization") or "")
        assert "nc=00000002" in (third.headers.get("Authorization") or "")


async def test_sip_loss_is_survived_by_retransmission() -> None:
    async with platform() as gateway, simulated(gateway.address, sip_loss=0.4, seed=7) as sim:
        await sim.registered(timeout_s=30)
        assert sim.device.signalling.counters.retransmitted > 0


async def test_the_same_seed_gives_the_same_messages() -> None:
    seen = []
    for _ in range(2):
        async with platform() as gateway:
            await registers(gateway, seed=42)
            seen.append([request.call_id for request in gateway.requests("REGISTER")][:2])
    assert seen[0] == seen[1]


# --- rows ---------------------------------------------------------------------------------------------------------


async def test_reg01_digest_uri_is_not_the_request_uri() -> None:
    async with platform() as gateway:
        await registers(gateway, quirks=("REG-01",))
        assert param(gateway.authorizations[0], "uri") == f"sip:34020000002000000001@{gateway.address}"


async def test_reg01_bare_digest_uri_without_scheme() -> None:
    async with platform() as gateway:
        await registers(gateway, quirks=("REG-01-BARE",))
        assert param(gateway.authorizations[0], "uri") == "34020000002000000001@3402000000"


async def test_reg02_qop_is_ignored() -> None:
    async with platform(qop=True) as gateway:
        await registers(gateway, quirks=("REG-02",))
        assert "qop" not in gateway.authorizations[0]
        assert "cnonce" not in gateway.authorizations[0]


async def test_reg03_nc_without_padding_in_capitals() -> None:
    async with platform(qop=True) as gateway:
        await registers(gateway, quirks=("REG-03",))
        assert param(gateway.authorizations[0], "nc") == "A"


async def test_reg04_an_empty_authorization_first() -> None:
    async with platform() as gateway:
        await registers(gateway, quirks=("REG-04",))
        assert gateway.authorizations[0].strip() == "Digest"
        assert len(gateway.requests("REGISTER")) >= 3


async def test_reg06_refresh_without_credentials() -> None:
    async with platform() as gateway, simulated(gateway.address, expires_s=2, quirks=("REG-06",)) as sim:
        await sim.until(lambda: sim.noted("refreshed"))
        third, fourth = gateway.requests("REGISTER")[2:4]
        assert third.headers.get("Authorization") is None
        assert 'nonce="nonce1"' in (fourth.headers.get("Authorization") or "")


async def test_reg07_no_pause_after_a_refusal() -> None:
    async with (
        platform(password="other") as gateway,
        simulated(gateway.address, retry_s=60.0, quirks=("REG-07",)) as sim,
    ):
        await sim.until(lambda: sim.device.counters.register_failures >= 5)


async def test_reg10_no_expires_anywhere() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-10",)) as sim:
        await sim.registered()
        assert [request.expires for request in gateway.requests("REGISTER")] == [None, None]


async def test_reg10_contact_expires_only_there() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-10-CONTACT",)) as sim:
        await sim.registered()
        first = gateway.requests("REGISTER")[0]
        assert first.headers.get("Expires") is None
        assert first.expires == 3600


async def test_reg11_unregisters_first() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-11",)) as sim:
        await sim.registered()
        expiries = [request.expires for request in gateway.requests("REGISTER")]
        assert expiries[:2] == [0, 0]
        assert expiries[-1] == 3600


async def test_reg12_a_minute() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-12",)) as sim:
        await sim.registered()
        assert gateway.requests("REGISTER")[0].expires == 60


async def test_reg13_id_of_19_digits() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-13",)) as sim:
        await sim.registered()
        assert list(gateway.registered) == [DEVICE[:19]]


async def test_reg15_a_twin_on_another_port() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-15",)) as sim:
        await sim.registered()
        sources = {str(entry.source) for entry in gateway.seen if entry.request.method == "REGISTER"}
        assert len(sources) == 2
        assert {device.id for device in sim.devices} == {DEVICE}


async def test_reg16_private_addresses_and_no_rport() -> None:
    async with platform() as gateway, simulated(gateway.address, quirks=("REG-16",)) as sim:
        await sim.registered()
        first = gateway.requests("REGISTER")[0]
        assert first.via.host == first.from_.uri.host == "192.168.1.64"
        assert first.contact is not None
        assert first.contact.uri.host == "192.168.1.64"
        assert first.via.rport is None


async def test_reg17_moves_to_another_port() -> None:
    async with platform() as gateway, simulated(gateway.address, keepalive_s=0.2, quirks=("REG-17",)) as sim:
        await sim.until(lambda: sim.noted("moved"))
        addresses = [note.facts["address"] for note in sim.noted("registered") + sim.noted("moved")]
        assert len(set(addresses)) == 2


async def test_reg21_a_connection_for_every_register() -> None:
    async with (
        platform() as gateway,
        simulated(gateway.address, transport="tcp", expires_s=2, quirks=("REG-21",)) as sim,
    ):
        await sim.until(lambda: sim.noted("refreshed"))
        sources = {str(entry.source) for entry in gateway.seen}
        assert len(sources) == 2


async def test_reg22_double_crlf_between_messages() -> None:
    async with (
        platform() as gateway,
        simulated(gateway.address, transport="tcp", keepalive_s=0.2, quirks=("REG-22",)) as sim,
    ):
        await sim.until(lambda: sim.device.counters.keepalives >= 2)
        assert gateway.pings >= 1
