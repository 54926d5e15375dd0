"""What is sent to an object store; that real ones take it, tests/interop/test_recording_store.py shows."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from gb28181gw.recording.models import ObjectStoreError
from gb28181gw.storage.objects import S3Config, S3Objects

ANSWER = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 104\r\nConnection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>AKID</AWSAccessKeyId><StringToSign>s</StringToSign></Error>"
)


async def test_s08_nothing_of_the_environment_is_used_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("AWS_SESSION_TOKEN", "of-another-account"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_UNSIGNED_PAYLOAD", "true"),
        ("AWS_SECRET_ACCESS_KEY", "of-another-account"),
    ):
        monkeypatch.setenv(name, value)
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(3)
        writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    file = tmp_path / "a.mp4"
    file.write_bytes(b"abc")
    config = S3Config(
        endpoint=f"http://127.0.0.1:{port}/", bucket="cameras", region="cn-north", access_key="AKID", secret_key="s",
        allow_http=True,
    )  # fmt: skip
    with pytest.raises(ObjectStoreError) as caught:
        await S3Objects(config).put("gate/a b.mp4", file)
    server.close()
    assert (caught.value.reason, caught.value.detail) == (
        "refused",
        "PUT: Server returned non-2xx status code: 403 Forbidden (AccessDenied)",
    )
    (request,) = requests
    text = request.decode().lower()
    assert text.startswith("put /cameras/gate/a%20b.mp4 ")
    assert "credential=akid/" in text
    assert "/cn-north/s3/aws4_request" in text
    assert f"x-amz-content-sha256: {hashlib.sha256(b'abc').hexdigest()}" in text
    assert "another" not in text
    assert "of-another-account" not in repr(config)


async def test_s08_plain_http_is_not_spoken_unless_it_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"abc")
    config = S3Config(
        endpoint="http://127.0.0.1:9", bucket="cameras", region="r", access_key="AKID", secret_key="s"
    )
    with pytest.raises(ObjectStoreError) as caught:
        await S3Objects(config).put("a.mp4", file)
    assert caught.value.reason == "failed"
