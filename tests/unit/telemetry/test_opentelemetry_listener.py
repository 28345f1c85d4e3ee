"""OpenTelemetry: counters and gauges are observed, histograms recorded (`telemetry.measures` has the names)."""

import asyncio
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings, RedisStore
from ratelimit.errors import StoreUnavailable
from ratelimit.stores.messages import StoreReply, StoreRequest
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


async def test_the_current_span_is_described(clock: ManualClock) -> None:
    """With the result and the policy that speaks, and an event for a refusal; never with the caller."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = RateLimitSettings(limits=[Limit(name="token", rate="1/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[OpenTelemetryListener()])
    for _ in range(2):
        with provider.get_tracer("test").start_as_current_span("request"):
            await limiter.check(Identity(token="secret"))
    admitted, refused = exporter.get_finished_spans()
    assert dict(admitted.attributes or {}) == {
        "ratelimit.result": "admitted",
        "ratelimit.policy": "token",
        "ratelimit.remaining": 0,
    }
    assert not admitted.events
    (event,) = refused.events
    assert (event.name, dict(event.attributes or {})["ratelimit.policy"]) == ("ratelimit.refused", "token")
    assert "secret" not in admitted.to_json() + refused.to_json()


async def test_what_was_not_decided_has_no_distribution(clock: ManualClock) -> None:
    """A request without a limit took no decision; a wait without end has no length."""
    reader = InMemoryMetricReader()
    listener = OpenTelemetryListener(meter_provider=MeterProvider([reader]))
    settings = RateLimitSettings(limits=[Limit(name="token", rate="2/minute", per="token", paths="/limited")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[listener])
    await limiter.check(Identity(token="t"), endpoint="/free")
    found = points(reader)
    assert "ratelimit.decision.duration" not in found
    await limiter.check(Identity(token="t"), endpoint="/limited", cost=3)
    found = points(reader)
    assert found["ratelimit.decision.duration"][0].count == 1
    assert "ratelimit.retry_after" not in found


async def test_calls_to_the_store_have_a_distribution(redis_url: str) -> None:
    """How long they took, by operation and outcome, and how many requests travelled together; once for two limiters."""
    reader = InMemoryMetricReader()
    listener = OpenTelemetryListener(meter_provider=MeterProvider([reader]))
    settings = RateLimitSettings(limits=[Limit(name="token", rate="20/minute", per="token")])
    store = RedisStore(redis_url, timeout=10)
    first, second = (Limiter(settings, store, listeners=[listener]) for _ in range(2))
    await asyncio.gather(*(first.check(Identity(token="t")) for _ in range(8)))
    await second.check(Identity(token="t"))
    for limiter in (first, second):
        await limiter.aclose()
    found = points(reader)
    calls = {tuple(point.attributes.values()): point.count for point in found["ratelimit.store.duration"]}
    assert calls["charge", "ok"] == 9
    (batch,) = found["ratelimit.store.batch"]
    assert batch.sum >= 9
    assert batch.explicit_bounds == (1, 2, 4, 8, 16, 32, 64, 128)
    batches = store.batches
    assert batches is not None
    assert (batch.count, batch.sum) == (batches.number, batches.total)


async def test_two_limiters_are_one_process(clock: ManualClock) -> None:
    """Counts add up; the store is as available as the worse of the two."""
    reader = InMemoryMetricReader()
    listener = OpenTelemetryListener(meter_provider=MeterProvider([reader]))
    settings = RateLimitSettings(limits=[Limit(name="token", rate="2/minute", per="token")])

    class Away(MemoryStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            raise StoreUnavailable("down")

    for store in (Away(clock=clock), MemoryStore(clock=clock)):
        await Limiter(settings, store, clock, listeners=[listener]).check(Identity(token="t"))
    found = points(reader)
    assert sum(point.value for point in found["ratelimit.requests"]) == 2
    assert [point.value for point in found["ratelimit.store.available"]] == [0]
