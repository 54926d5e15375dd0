"""The token bucket of refused messages: what scanners meet first (S-20).

Every message that is refused (malformed, unknown method, wrong digest, foreign domain) costs its source host one
token. A host without tokens is not read any more until it has some again; hosts that were never refused are not in
the table at all, so the check in front of the parser is one look-up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalLimits:
    """Rate of refusals that one host may cause."""

    per_second: float = 20.0
    burst: int = 60
    hosts: int = 20_000
    """Entries of the table; the oldest is forgotten first (I10)."""
    report_s: float = 60.0
    """At most one report of a host in so many seconds."""


class _Bucket:
    __slots__ = ("dropped", "reported_at", "stamp", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.stamp = now
        self.dropped = 0
        """Since the last report."""
        self.reported_at: float | None = None


class Refusals:
    """Owner of the buckets. `now` is monotonic."""

    def __init__(self, limits: RefusalLimits, *, on_shed: Callable[[str, int], None] | None = None) -> None:
        self._limits = limits
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self.on_shed = on_shed
        """Called with host and number of dropped messages: at the first one, then once in `report_s`."""
        self.dropped = 0
        """All of them, since the start."""

    def __len__(self) -> int:
        return len(self._buckets)

    def refused(self, host: str, now: float) -> None:
        """A message of this host was refused."""
        bucket = self._buckets.get(host)
        if bucket is None:
            if len(self._buckets) >= self._limits.hosts:
                self._report(*self._buckets.popitem(last=False), now)
            bucket = self._buckets[host] = _Bucket(self._limits.burst, now)
        else:
            self._refill(bucket, now)
        bucket.tokens = max(0.0, bucket.tokens - 1)

    def admits(self, host: str, now: float) -> bool:
        """May a message of this host be read? A False one is counted as dropped."""
        bucket = self._buckets.get(host)
        if bucket is None:
            return True
        self._refill(bucket, now)
        if bucket.tokens >= 1:
            quiet = bucket.reported_at is None or now - bucket.reported_at >= self._limits.report_s
            if bucket.tokens >= self._limits.burst and quiet:
                del self._buckets[host]
                self._report(host, bucket, now)
            return True
        bucket.dropped += 1
        self.dropped += 1
        if bucket.reported_at is None or now - bucket.reported_at >= self._limits.report_s:
            self._report(host, bucket, now)
        return False

    def _refill(self, bucket: _Bucket, now: float) -> None:
        bucket.tokens = min(
            float(self._limits.burst), bucket.tokens + (now - bucket.stamp) * self._limits.per_second
        )
        bucket.stamp = now

    def _report(self, host: str, bucket: _Bucket, now: float) -> None:
        if bucket.dropped and self.on_shed is not None:
            self.on_shed(host, bucket.dropped)
        bucket.dropped = 0
        bucket.reported_at = now
