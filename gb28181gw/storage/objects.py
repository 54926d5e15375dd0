"""`recording.models.ObjectStore` on S3-compatible storage, through obstore (docs/decisions/0003-obstore-for-s3.md).

Every request is signed together with the SHA-256 of what it carries, so the store refuses what was altered on its
way; after that its size and entity tag are asked for. Retries are the caller's.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gb28181gw.errors import GatewayError
from gb28181gw.recording.models import ObjectStoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

WHOLE_BYTES: Final = 64 << 20
"""A larger file is sent in parts."""
PART_BYTES: Final = 16 << 20
CONNECT_S: Final = 5
READ_S: Final = 10
"""Without a byte of what is fetched: somebody waits for it, and a stop of the gateway does."""
REQUEST_S: Final = 300
"""A whole request. A file that is sent has no other limit: its time counts as silence of the store."""
INSTALL: Final = (
    "recording.s3.bucket is set, and the library for it is not installed: run pip install 'gb28181gw[s3]'."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Of `[recording.s3]`."""

    endpoint: str
    bucket: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    virtual_host: bool = False
    """The bucket is a part of the host's name, not of the path."""
    allow_http: bool = False
    ca: str = ""
    """PEM; certificates that are trusted beside those of the system."""


class S3Objects:
    """One bucket. Raises GatewayError gb.config.invalid when the library is missing or takes the settings for wrong."""

    def __init__(self, config: S3Config) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError as error:
            raise GatewayError("gb.config.invalid", INSTALL) from error
        endpoint = config.endpoint.rstrip("/")
        self.place = f"{endpoint}/{config.bucket}"
        if config.virtual_host:
            parts = urlsplit(endpoint)
            endpoint = f"{parts.scheme}://{config.bucket}.{parts.netloc}"

        def store(silence: timedelta | None = None) -> S3Store:
            return S3Store(
                config.bucket,
                endpoint=endpoint,
                region=config.region,
                access_key_id=config.access_key,
                secret_access_key=config.secret_key,
                virtual_hosted_style_request=config.virtual_host,
                client_options={
                    "allow_http": config.allow_http,
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=REQUEST_S),
                    "user_agent": "gb28181gw",
                    **({"root_certificate": config.ca} if config.ca else {}),
                    **({"read_timeout": silence} if silence else {}),
                },
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=REQUEST_S)},
            )

        try:
            with _own_settings_only():
                self._store = store()
                self._reading = store(timedelta(seconds=READ_S))
        except BaseError as error:
            raise GatewayError("gb.config.invalid", f"recording.s3: {_detail(error)}") from error
        self._obstore = obstore
        self._error = BaseError

    async def put(self, name: str, path: Path) -> int:
        size = (await asyncio.to_thread(path.stat)).st_size
        content = await asyncio.to_thread(path.read_bytes) if size <= WHOLE_BYTES else path
        with self._told():
            done = await self._obstore.put_async(
                self._store,
                name,
                content,
                attributes={"Content-Type": "video/mp4"},
                use_multipart=isinstance(content, Path),
                chunk_size=PART_BYTES,
                max_concurrency=2,
            )
            found = await self._obstore.head_async(self._store, name)
        if found["size"] != size:
            raise ObjectStoreError("mismatch", f"{found['size']} of {size} bytes are there.")
        # A store need not give the tag of a file in parts both times alike.
        if isinstance(content, bytes) and done["e_tag"] and found["e_tag"] != done["e_tag"]:
            raise ObjectStoreError("mismatch", "Something else is there under this name.")
        return size

    def fetch(self, name: str, path: Path, size: int) -> None:
        with self._told():
            answer = self._obstore.get(self._reading, name)
            total = 0
            with path.open("xb") as file:
                for piece in answer.stream(min_chunk_size=1 << 20):
                    total += len(piece)
                    if total > size:
                        break
                    file.write(piece)
        if total != size:
            raise ObjectStoreError("mismatch", f"{name} has not the {size} bytes that it had.")

    async def remove(self, name: str) -> None:
        try:
            with self._told():
                await self._obstore.delete_async(self._store, name)
        except ObjectStoreError as error:
            if error.reason != "missing":
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the library as ours; those of a local file stay as they are."""
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError as error:
            if error.errno is not None:
                raise
            raise ObjectStoreError("missing", _detail(error)) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise ObjectStoreError("refused", _detail(error)) from error
        except self._error as error:
            text = str(error)
            lost = "kind: Connect" in text or "kind: Timeout" in text or "kind: Interrupted" in text
            raise ObjectStoreError("unreachable" if lost else "failed", _detail(error)) from error


@contextmanager
def _own_settings_only() -> Iterator[None]:
    """The library completes what it is given from ``AWS_…`` of the environment: another endpoint, the token of another
    account, no signature. At the start, when nothing else runs, they are not there."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.upper().startswith("AWS_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _detail(error: Exception) -> str:
    """What the store said, without the library's own debugging and what the store tells of the signature."""
    text = str(error)
    line = text.partition("\n")[0].partition(": <")[0]
    if found := re.search(r"Error performing (\w+) \S+ in \S+ - (.*)", line):
        line = f"{found[1]}: {found[2]}"
    code = re.search(r"<Code>(\w{1,64})</Code>", text)
    return f"{line[:150]} ({code[1]})" if code else line[:200]
