"""Numbers that are counted many thousand times a second: as prometheus_client shows them, without its lock and calls.

For one thread, the event loop's, that counts and is scraped too. Labels are given as one tuple, in the order in which
they were declared; a series begins with its first count.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
_as_label: Callable[[float], str] = floatToGoString


class Counts(Collector):
    """A counter: `counts.of[labels] += 1`."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.of: defaultdict[Labels, int] = defaultdict(int)
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in self.of.items():
            family.add_metric(labels, count)
        yield family


class Level(Collector):
    """A gauge without labels: `level.now += 1`."""

    def __init__(self, name: str, text: str, *, registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self.now = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(self._name, self._text, value=self.now)


class _Row:
    __slots__ = ("buckets", "sum_s")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.sum_s = 0.0


class Durations(Collector):
    """A histogram of seconds. `bounds_s` are the upper ones, in order; the infinite one is added."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, bounds_s: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labels, self._bounds_s = name, text, labels, bounds_s
        self._shown = [_as_label(bound) for bound in (*bounds_s, float("inf"))]
        self._rows: defaultdict[Labels, _Row] = defaultdict(lambda: _Row(len(self._shown)))
        registry.register(self)

    def observe(self, labels: Labels, seconds: float) -> None:
        row = self._rows[labels]
        row.buckets[bisect_left(self._bounds_s, seconds)] += 1
        row.sum_s += seconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, row in self._rows.items():
            up_to = list(zip(self._shown, accumulate(row.buckets), strict=True))
            family.add_metric(labels, up_to, row.sum_s)
        yield family
