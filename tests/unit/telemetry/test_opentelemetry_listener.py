"""OpenTelemetry: counters and gauges are observed, histograms recorded (`telemetry.measures` has the names)."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings
from ratelimit.telemetry import OpenTelemetryListener
from ratelimit.telemetry.measures import METRIC
from ratelimit.testing import ManualClock


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Return the data points by metric, and check each unit."""
    data = reader.get_metrics_data()
    assert data is not None
    found = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert metric.unit == METRIC[metric.name].unit
        found[metric.name] = list(metric.data.data_points)
    return found


async def test_what_is_decided_is_exported(clock: ManualClock) -> None:
    """By the names and attributes of the table, and in its buckets."""
    reader = InMemoryMetricReader()
    listener = OpenTelemetryListener(meter_provider=MeterProvider([reader]))
    settings = RateLimitSettings(limits=[Limit(name="token", rate="2/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[listener])
    for _ in range(3):
        await limiter.check(Identity(token="t"))
    found = points(reader)
    requests = {tuple(sorted(point.attributes.items())): point.value for point in found["ratelimit.requests"]}
    assert requests == {
        (("policy", ""), ("result", "admitted"), ("source", "store")): 2,
        (("policy", "token"), ("result", "refused"), ("source", "store")): 1,
    }
    states = {point.attributes["state"]: point.value for point in found["ratelimit.policy.checks"]}
    assert states == {"within": 1, "near": 1, "over": 1, "shadow_over": 0}
    (utilization,) = found["ratelimit.policy.utilization"]
    assert (utilization.count, utilization.attributes) == (3, {"policy": "token"})
    (wait,) = found["ratelimit.retry_after"]
    assert wait.explicit_bounds[:5] == (1, 2, 5, 10, 30)
    assert found["ratelimit.store.available"][0].value == 1
    assert found["ratelimit.decision.duration"][0].count == 3
