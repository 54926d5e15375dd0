import random

import pytest

from gb28181gw.sim.faults import FaultRates
from gb28181gw.sim.media_links import UdpLink, bind_pair
from tests.support.sim_platform import MiniPlatform, udp_sink


def link() -> UdpLink:
    return UdpLink("127.0.0.1", FaultRates(), random.Random(1))


def test_pair_is_even_and_adjacent() -> None:
    rtp, rtcp = bind_pair("127.0.0.1")
    try:
        port = rtp.getsockname()[1]
        assert port % 2 == 0
        assert rtcp.getsockname()[1] == port + 1
        with pytest.raises(OSError, match="use"):
            bind_pair("127.0.0.1", port)
    finally:
        rtp.close()
        rtcp.close()


async def test_udp_link_sends_from_its_port() -> None:
    async with udp_sink() as sink:
        sender = link()
        sender.connect("127.0.0.1", sink.port)
        assert sender.send(b"packet") == 6
        await MiniPlatform().until(lambda: sink.packets)
        assert sink.sources == {("127.0.0.1", sender.port)}
        old = sender.port
        sender.move()
        assert sender.port != old
        sender.send(b"again")
        await MiniPlatform().until(lambda: len(sink.sources) == 2)
        sender.close()
        sender.close()
        assert sender.send(b"late") == 0


async def test_nobody_listening_is_counted_and_nothing_else() -> None:
    async with udp_sink() as sink:
        port = sink.port
    sender = link()
    sender.connect("127.0.0.1", port)
    try:
        await MiniPlatform().until(lambda: sender.send(b"packet") == 0 and sender.refused > 0)
    finally:
        sender.close()
