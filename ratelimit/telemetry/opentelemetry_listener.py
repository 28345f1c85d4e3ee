"""Metrics for OpenTelemetry: counters and gauges are observed, histograms recorded."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation

from ratelimit.enforcement.events import DecisionEvent, StoreCallEvent
from ratelimit.enforcement.listeners import Listener
from ratelimit.enforcement.tallies import (
    DURATION_BUCKETS,
    MAX_POLICIES,
    OTHER,
    RETRY_AFTER_BUCKETS,
    UTILIZATION_BUCKETS,
)
from ratelimit.limiter_core import LimiterCore
from ratelimit.stores.base import BATCH_SIZES
from ratelimit.telemetry.measures import METRIC, METRICS, Metric, snapshot

_RECORDED: Final = {
    "ratelimit.policy.utilization": UTILIZATION_BUCKETS,
    "ratelimit.retry_after": RETRY_AFTER_BUCKETS,
    "ratelimit.decision.duration": DURATION_BUCKETS,
    "ratelimit.store.duration": DURATION_BUCKETS,
    "ratelimit.store.batch": BATCH_SIZES,
}
"""The histograms, which are recorded as they happen, and their bounds."""


class OpenTelemetryListener(Listener):
    """Let OpenTelemetry read what limiters decide, by the names, units and attributes of `ratelimit.telemetry.measures`.

    Needs `opentelemetry-api` alone; `meter_provider` is the app's own (default: the global one). Counters and gauges are
    observed when they are exported and cost a request nothing; the histograms are recorded with each decision, each request to
    the store, and each call with the number of its requests. A span that is current gets `ratelimit.result`, `ratelimit.policy` and
    `ratelimit.remaining`, and an event for a refusal.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        provider = meter_provider or metrics.get_meter_provider()
        self._meter: Meter = provider.get_meter("ratelimit")
        self._limiters: list[LimiterCore] = []
        self._policies: set[str] = set()
        self._recorded: dict[str, Histogram] = {name: self._histogram(METRIC[name]) for name in _RECORDED}
        for metric in METRICS:
            if metric.kind != "histogram":
                self._observe(metric)

    def attach(self, limiter: Any) -> None:
        """Count what this limiter decides from now on."""
        limiter.observer.count()
        self._limiters.append(limiter)
        batches, record = limiter.store.batches, self._recorded["ratelimit.store.batch"].record
        if batches is not None and record not in batches.relays:  # Limiters may share a store.
            batches.relays.append(record)

    def on_decision(self, event: DecisionEvent) -> None:
        """Record what has a distribution, and describe the decision on the span that is current."""
        _describe(event, trace.get_current_span())
        if event.result == "exempt" or not (event.charges or event.decision.status == 403):
            return  # Nothing was decided.
        self._recorded["ratelimit.decision.duration"].record(event.seconds, {"source": event.source})
        for limit in event.decision.limits:
            policy = {"policy": self._name(limit.policy)}
            used = 1 - limit.remaining / limit.limit if limit.limit else 1.0
            self._recorded["ratelimit.policy.utilization"].record(used, policy)
            if limit.retry_after and math.isfinite(limit.retry_after):
                self._recorded["ratelimit.retry_after"].record(limit.retry_after, policy)

    def on_store_call(self, event: StoreCallEvent) -> None:
        """Record how long a call to the store took."""
        attributes = {"op": event.operation, "outcome": event.outcome}
        self._recorded["ratelimit.store.duration"].record(event.seconds, attributes)

    def _name(self, policy: str) -> str:
        if policy not in self._policies and len(self._policies) < MAX_POLICIES:
            self._policies.add(policy)
        return policy if policy in self._policies else OTHER

    def _histogram(self, metric: Metric) -> Histogram:
        return self._meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.description,
            explicit_bucket_boundaries_advisory=list(_RECORDED[metric.name]),
        )

    def _observe(self, metric: Metric) -> None:
        counter, gauge = self._meter.create_observable_counter, self._meter.create_observable_gauge
        create: Callable[..., Any] = counter if metric.kind == "counter" else gauge
        create(metric.name, [self._observer(metric)], unit=metric.unit, description=metric.description)

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            del options
            for labels, value in snapshot(self._limiters)[metric.name].items():
                if isinstance(value, (int, float)):
                    yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

        return observe


def _describe(event: DecisionEvent, span: trace.Span) -> None:
    if not span.is_recording():
        return
    binding = event.decision.binding
    span.set_attribute("ratelimit.result", event.result)
    if binding is not None:
        span.set_attributes({"ratelimit.policy": binding.policy, "ratelimit.remaining": binding.remaining})
    if not event.decision.allowed:
        wait = event.decision.retry_after
        finite = {"ratelimit.retry_after": wait} if math.isfinite(wait) else {}
        span.add_event("ratelimit.refused", {"ratelimit.policy": event.policy or "", **finite})
