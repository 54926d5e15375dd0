"""What of the queue outlives the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gb28181gw.downloads.models import DownloadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDownload:
    """A download that is not over."""

    id: str
    created_at: float
    """Seconds since 1970 UTC."""
    request: DownloadRequest


class DownloadStore(Protocol):
    """Durable when the call returns. Each raises GatewayError gb.route.storage_unavailable."""

    async def load_downloads(self) -> list[StoredDownload]:
        """In the order of asking."""
        ...

    async def save_download(self, download: StoredDownload) -> None: ...

    async def remove_download(self, download_id: str) -> None:
        """Whether it is there or not."""
        ...
