"""The kinds of numbers that the daemon shows, in Prometheus' terms, and the registry that they are in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

NAMESPACE: Final = "detectd"

Read = Callable[[], float]


class Total:
    """A counter that someone else keeps: read when scraped, for one value of the label or without labels."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, label: str = "") -> None:
        self._name, self._text, self._label = name, text, label
        self._reads: dict[str, Read] = {}
        registry.register(self)

    def read_from(self, read: Read, label: str = "") -> None:
        """`read` gives the total so far; it must never fall while the process lives, except by `forget`."""
        self._reads[label] = read

    def forget(self, label: str) -> None:
        self._reads.pop(label, None)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, read in self._reads.items():
            family.add_metric([label] if self._label else [], read())
        yield family


class Spread:
    """A histogram that takes a whole batch of seconds in one call: its cost per report is a few nanoseconds."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, bounds_s: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds_s = np.array(bounds_s)
        self._counts = np.zeros(len(bounds_s) + 1, dtype=np.int64)  # [bound], the last one is +Inf
        self._sum_s = 0.0
        registry.register(self)

    def observe(self, seconds: npt.NDArray[np.float64]) -> None:
        """seconds: [n]. A clock that stepped back makes negative ones: they count as 0."""
        at_least_0 = np.maximum(seconds, 0.0)
        places = np.searchsorted(self._bounds_s, at_least_0, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum_s += float(at_least_0.sum())

    def collect(self) -> Iterator[Metric]:
        below = np.cumsum(self._counts)
        names = [*(str(float(bound)) for bound in self._bounds_s), "+Inf"]
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], [(name, float(count)) for name, count in zip(names, below, strict=True)], self._sum_s)
        yield family


class Instruments:
    """A registry, and what makes metrics in it."""

    def __init__(self) -> None:
        # A second series per counter that nobody queries.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client leaves it without a signature
        self.registry = CollectorRegistry()

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4; every value is as of now."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(self, name: str, text: str, bounds_s: Iterable[float]) -> Histogram:
        return Histogram(name, text, (), namespace=NAMESPACE, registry=self.registry, buckets=tuple(bounds_s))

    def spread(self, name: str, text: str, bounds_s: Sequence[float]) -> Spread:
        return Spread(self.registry, f"{NAMESPACE}_{name}", text, bounds_s)

    def total(self, name: str, text: str, label: str = "") -> Total:
        return Total(self.registry, f"{NAMESPACE}_{name}", text, label)

    def totals(self, of: str, texts: Mapping[str, str], label: str = "") -> dict[str, Total]:
        """One for each of `texts`, by the name there."""
        return {name: self.total(f"{of}_{name}" if of else name, text, label) for name, text in texts.items()}
