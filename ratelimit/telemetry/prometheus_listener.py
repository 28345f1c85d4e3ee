"""Metrics for Prometheus: read by a custom collector at each scrape, from counts that a request pays little for."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ratelimit._utils.histogram import Histogram
from ratelimit.enforcement.listeners import Listener
from ratelimit.limiter_core import LimiterCore
from ratelimit.telemetry.measures import METRICS, Metric, snapshot

_SUFFIXES: Final = {"s": "_seconds"}


class PrometheusListener(Listener, Collector):
    """Let Prometheus read what limiters decide: `Limiter(settings, listeners=[PrometheusListener()])`.

    Registers itself with `registry` (default: that of `prometheus_client`). Counts are exact at each scrape, and added up
    where it listens to several limiters. The names are those of OpenTelemetry with underscores, unit and `_total`:
    `ratelimit_requests_total{result, policy, source}`. No label holds a token, an organization, an address or a path.
    Each process has its own numbers: let Prometheus scrape each worker.
    """

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self._limiters: list[LimiterCore] = []
        (REGISTRY if registry is None else registry).register(self)

    def attach(self, limiter: Any) -> None:
        """Count what this limiter decides from now on."""
        limiter.observer.count()
        self._limiters.append(limiter)

    def describe(self) -> Iterator[Any]:
        """Return the families without samples: registering asks for them, before there is a limiter."""
        return iter([_family(metric) for metric in METRICS])

    def collect(self) -> Iterator[Any]:
        """Return all families as they stand."""
        found = snapshot(self._limiters)
        for metric in METRICS:
            family = _family(metric)
            for labels, value in found[metric.name].items():
                if isinstance(value, Histogram):
                    family.add_metric(labels, buckets=_buckets(value), sum_value=value.total)
                else:
                    family.add_metric(labels, value)
            yield family


def prometheus_name(metric: Metric) -> str:
    """Return the name of a metric without `_total`, which the exposition adds to counters."""
    return metric.name.replace(".", "_") + _SUFFIXES.get(metric.unit, "")


def _family(metric: Metric) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[metric.kind](prometheus_name(metric), metric.description, labels=metric.labels)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative buckets, as Prometheus counts them."""
    bounds = [*(f"{bound:g}" if bound < 1 else str(float(bound)) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
