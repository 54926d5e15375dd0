"""Floods over a SIP connection."""

from __future__ import annotations

import asyncio

from gb28181gw.transport.transports import Transports
from tests.support.sip_peer import Recorder, until, wire


async def test_reg22_f08_flood_of_line_ends_is_answered_once_a_read_and_the_next_message_is_read() -> None:
    receiver, transports = Recorder(), Transports()
    transports.attach(receiver)
    port = await transports.listen("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\r\n\r\n" * 10_000 + wire("OPTIONS", port=5060))
        await until(lambda: receiver.messages, "the message behind the flood")
        assert transports.counters.pings == 10_000
        writer.write_eof()
        pongs = await reader.read()
        assert pongs and pongs.replace(b"\r\n", b"") == b""
        assert len(pongs) < 1_000
        writer.close()
        await writer.wait_closed()
    finally:
        await transports.close()
