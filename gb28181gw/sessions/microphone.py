"""A microphone that speaks into a talk: the right to be its only source, until it is given back or the talk ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MicrophoneKind = Literal["websocket", "webrtc", "upper"]
"""``upper``: what an upper platform says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrophoneUse:
    """What the talk does for a microphone."""

    feed: Callable[[bytes, int], None]
    released: Callable[[Microphone, str], None]


class Microphone:
    """Made by `Talk.take_microphone`. `release` is idempotent."""

    def __init__(
        self,
        use: MicrophoneUse,
        *,
        kind: MicrophoneKind,
        client: str,
        sample_rate: int,
        opened_at: float,
        on_over: Callable[[], None] | None,
    ) -> None:
        self.kind = kind
        self.client = client
        """``ip:port``."""
        self.sample_rate = sample_rate
        """Hz that the device is sent; sound of another rate is resampled."""
        self.opened_at = opened_at
        """Seconds since 1970 UTC."""
        self._use = use
        self._on_over = on_over
        self._released = False

    def feed(self, pcm: bytes, rate: int) -> None:
        """Signed 16-bit little-endian mono samples. Raises GatewayError: see `Speaker.feed`; the talk may be over."""
        self._use.feed(pcm, rate)

    def release(self, reason: str) -> None:
        """The speaker has gone; another may come."""
        if not self._released:
            self._released = True
            self._use.released(self, reason)

    def talk_over(self) -> None:
        """For the talk: it ends."""
        if not self._released:
            self.release("talk_over")
            if self._on_over is not None:
                self._on_over()
