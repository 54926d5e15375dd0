"""Metrics for Prometheus (O-04): objects keep plain counters, and this reads them when it is asked.

No label may tell one device, channel, stream or peer from another: a metric's size must not depend on how many
there are (I10).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "gb28181gw_"
FORBIDDEN_LABELS: Final = frozenset(
    {"device_id", "channel_id", "stream_id", "upper_id", "call_id", "ssrc", "peer", "client", "id", "ip"}
)
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0)

Labels = tuple[str, ...]
Samples = Mapping[Labels, float]


class Histogram:
    """A plain histogram: `observe` is an addition. Bounds are upper limits, in the unit of the metric."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """(upper limit, number at or below it), as Prometheus wants them."""
        result: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            result.append((bound, float(running)))
        return result


class Metrics(Collector):
    """The register of callables. Names get the prefix; counters end in ``_total``."""

    def __init__(self, *, process: bool = True) -> None:
        self._families: dict[str, Callable[[], Metric]] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self.registry.register(self)

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """`read()` gives a number that only grows while the process lives."""
        self.counters(name, text, (), lambda: {(): read()})

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.gauges(name, text, (), lambda: {(): read()})

    def counters(self, name: str, text: str, labels: Labels, read: Callable[[], Samples]) -> None:
        """`read()` gives a number for each combination of label values."""
        full = self._claim(name.removesuffix("_total"), labels)

        def make() -> Metric:
            family = CounterMetricFamily(full, text, labels=labels)
            for values, number in read().items():
                family.add_metric(list(values), number)
            return family

        self._families[full] = make

    def gauges(self, name: str, text: str, labels: Labels, read: Callable[[], Samples]) -> None:
        full = self._claim(name, labels)

        def make() -> Metric:
            family = GaugeMetricFamily(full, text, labels=labels)
            for values, number in read().items():
                family.add_metric(list(values), number)
            return family

        self._families[full] = make

    def histograms(
        self, name: str, text: str, labels: Labels, read: Callable[[], Mapping[Labels, Histogram]]
    ) -> None:
        full = self._claim(name, labels)

        def make() -> Metric:
            family = HistogramMetricFamily(full, text, labels=labels)
            for values, histogram in read().items():
                family.add_metric(list(values), buckets=histogram.buckets(), sum_value=histogram.total)
            return family

        self._families[full] = make

    def _claim(self, name: str, labels: Labels) -> str:
        full = name if name.startswith(PREFIX) else PREFIX + name
        forbidden = FORBIDDEN_LABELS.intersection(labels)
        if forbidden:
            raise ValueError(
                f"{full}: label {min(forbidden)} has as many values as there are devices or peers"
            )
        if full in self._families:
            raise ValueError(f"{full} is there already")
        return full

    def names(self) -> tuple[str, ...]:
        """Names without the suffixes that Prometheus adds."""
        return tuple(self._families)

    def collect(self) -> Iterable[Metric]:
        for make in self._families.values():
            yield make()

    def describe(self) -> Iterable[Metric]:
        return []

    def render(self) -> bytes:
        """The text exposition; `CONTENT_TYPE` goes with it."""
        return generate_latest(self.registry)
