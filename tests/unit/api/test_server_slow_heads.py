"""Requests that never end and heads that never stop: what uvicorn by itself would wait for and keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gb28181gw.api import server as server_module
from gb28181gw.api.server import MAX_HEAD, ApiServer, ApiServerConfig
from tests.support.api_services import api_rig


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a running server."""
    async with api_rig() as rig:
        server = ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=0, graceful_s=1))
        await server.start()
        try:
            yield server.port
        finally:
            await server.stop()


async def answer_to(port: int, *pieces: bytes) -> bytes:
    """What comes until the server closes the connection; each piece is sent when the one before was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        async with asyncio.timeout(10):
            for piece in pieces[:-1]:
                writer.write(piece)
                answer += await reader.readuntil(b"}")
            writer.write(pieces[-1])
            return answer + await reader.read()
    except ConnectionError:
        return answer
    finally:
        writer.close()


@pytest.mark.parametrize("data", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "])
async def test_f08_connection_without_a_whole_head_is_closed(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEAD_S", 0.1)
    async with served() as port:
        assert await answer_to(port, data) == b""


async def test_f08_second_request_of_a_connection_has_its_own_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "HEAD_S", 0.2)
    async with served() as port:
        answer = await answer_to(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /he")
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_i10_head_beyond_the_limit_is_refused_and_not_kept() -> None:
    async with served() as port:
        answer = await answer_to(
            port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * (2 * MAX_HEAD)
        )
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


async def test_broken_body_of_a_request_under_way_ends_the_connection_and_is_no_error_of_ours() -> None:
    async with api_rig() as rig:
        server = ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=0, graceful_s=1))
        await server.start()
        try:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert await answer_to(server.port, head + b"zz\r\nab\r\n0\r\n\r\n") == b""
            assert rig.services.bus.counts["api.failed"] == 0
        finally:
            await server.stop()
