"""The promise: metrics are what the clients counted, exactly, and nothing that a caller chooses becomes a series."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from ratelimit import Identity, Limit, Limiter, Listener, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.enforcement.events import DecisionEvent
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.telemetry import PrometheusListener
from ratelimit.telemetry.measures import METRICS
from ratelimit.telemetry.prometheus_listener import prometheus_name
from ratelimit.testing import ManualClock
from tests.support.asgi import ok
from tests.support.metrics_app import SETTINGS
from tests.support.redis_server import RedisServer
from tests.support.servers import serving

REQUESTS = int(os.environ.get("METRICS_REQUESTS", "3000"))


def samples_of(text: str) -> Counter[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the samples of an exposition, by name and labels."""
    found: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] += sample.value  # type: ignore[assignment]
    return found


def total(samples: Counter[tuple[str, tuple[tuple[str, str], ...]]], name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    return sum(value for (each, own), value in samples.items() if each == name and labels.items() <= dict(own).items())


async def drive(url: str, count: int) -> Counter[tuple[str, int]]:
    """Send mixed requests, and count their answers by path and status."""
    chosen = random.Random(7)
    limits = httpx.Limits(max_connections=40, max_keepalive_connections=0)
    answers: Counter[tuple[str, int]] = Counter()

    async def send(client: httpx.AsyncClient) -> None:
        path = chosen.choice(["/limited", "/limited", "/limited", "/org", "/free", "/health"])
        headers = {"x-token": f"t{chosen.randrange(20)}", "x-org": "acme"}
        answers[path, (await client.get(path, headers=headers)).status_code] += 1

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        for start in range(0, count, 200):
            await asyncio.gather(*(send(client) for _ in range(min(200, count - start))))
    return answers


def test_metrics_of_three_workers_are_what_the_client_counted(redis_url: str, tmp_path: Path) -> None:
    """Each result and each policy; `METRICS_REQUESTS` sets how many."""
    with serving(
        "uvicorn", "tests.support.metrics_app:app", workers=3, STORE=redis_url, METRICS_FOLDER=str(tmp_path)
    ) as server:
        answers = asyncio.run(drive(server.url, REQUESTS))
        ports = [path.read_text() for path in tmp_path.iterdir()]
        samples = samples_of("".join(""))
        for port in ports:
            samples += samples_of(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    assert len(ports) == 3
    limited, refused = answers["/limited", 200], answers["/limited", 429]
    assert refused
    name = "ratelimit_requests_total"
    assert total(samples, name, result="admitted") == limited + answers["/org", 200]
    assert total(samples, name, result="refused", policy="token") == refused
    assert total(samples, name, result="exempt") == answers["/health", 200]
    # The probe that the server was up is one more.
    assert total(samples, name, result="unlimited") >= answers["/free", 200] + 1
    checks = "ratelimit_policy_checks_total"
    assert total(samples, checks, policy="token", state="over") == refused
    assert total(samples, checks, policy="token") == limited + refused
    # Ten requests of each of twenty callers fit; what is refused from memory says nothing of the shadow.
    charged = sum(total(samples, checks, policy="shadow", state=state) for state in ("within", "near"))
    assert charged == total(samples, "ratelimit_policy_units_total", policy="shadow", action="charged") == 10 * 20
    assert total(samples, checks, policy="shadow", state="shadow_over") >= limited - 10 * 20
    assert (
        total(samples, "ratelimit_policy_units_total", policy="org", action="charged") == limited + answers["/org", 200]
    )
    assert total(samples, "ratelimit_policy_utilization_count", policy="org") >= limited + answers["/org", 200]
    assert total(samples, "ratelimit_retry_after_seconds_count", policy="token") == refused
    decided = total(samples, "ratelimit_decision_duration_seconds_count")
    assert decided == total(samples, name) - total(samples, name, result="exempt")
    assert total(samples, "ratelimit_store_available") == 3
    assert total(samples, "ratelimit_workers") == 9
    assert total(samples, "ratelimit_errors_total") == total(samples, "ratelimit_store_outages_total") == 0
    assert total(samples, "ratelimit_store_duration_seconds_count", outcome="ok") > 0
    assert total(samples, "ratelimit_store_batch_count") > 0
    hashes = {dict(labels)["hash"] for (each, labels) in samples if each == "ratelimit_config_info"}
    assert len(hashes) == 1


async def test_an_outage_is_in_the_metrics(tmp_path: Path) -> None:
    """That it is, that corrections wait, and afterwards that all of them were written and none was lost."""
    server = RedisServer(tmp_path)
    server.start()
    registry = CollectorRegistry()
    settings = RateLimitSettings(store=server.url, limits=[Limit(name="words", rate="1000/minute", per="org")])
    async with Limiter(settings, listeners=[PrometheusListener(registry=registry)]) as limiter:

        def metric(name: str, **labels: str) -> float:
            return registry.get_sample_value(f"ratelimit_{name}", labels) or 0.0

        decision = await limiter.check(Identity(org="o"), cost=10)
        assert (metric("store_available"), metric("store_outages_total"), metric("outbox_pending")) == (1, 0, 0)
        server.stop()
        for _ in range(8):
            await limiter.check(Identity(org="o"))
        await decision.settle({"words": 4})
        assert (metric("store_available"), metric("store_outages_total")) == (0, 1)
        assert metric("outbox_pending") > 0
        assert metric("requests_total", result="admitted", policy="", source="local") == 8
        server.start()
        async with asyncio.timeout(30):
            while metric("outbox_pending") or not metric("store_available"):
                await limiter.check(Identity(org="o"))
                await asyncio.sleep(0.05)  # The server is real, and is found again in real time.
        assert (metric("store_outages_total"), metric("outbox_lost_total")) == (1, 0)
    server.stop()


async def test_errors_that_changed_no_answer_are_counted(clock: ManualClock) -> None:
    """By where they were: the app's own functions, listeners, and overrides that cannot be read."""

    def fail(request: object) -> Any:
        raise ValueError

    class Failing(Listener):
        def on_decision(self, event: DecisionEvent) -> None:
            raise ValueError

    registry, store = CollectorRegistry(), MemoryStore(clock=clock)
    settings = RateLimitSettings(
        dimensions={"tenant": fail},
        limits=[Limit(name="a", rate="9/minute", cost=fail), Limit(name="b", rate="9/minute", per="tenant")],
    )
    limiter = Limiter(settings, store, clock, listeners=[PrometheusListener(registry=registry), Failing()])
    await store.put_entry("rl:{overrides}", "a:*", b"{")
    app = Starlette(
        routes=[Route("/", ok)],
        middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=fail)],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        assert (await client.get("/")).status_code == 200
    found = {
        where: registry.get_sample_value("ratelimit_errors_total", {"where": where})
        for where in ("identify", "cost", "override", "other")
    }
    assert found == {"identify": 1, "cost": 1, "override": 1, "other": 2}


async def test_ten_thousand_callers_add_no_series(clock: ManualClock) -> None:
    """Nor do their organizations, addresses and paths; no label holds anything of them."""
    registry = CollectorRegistry()
    limits = [
        Limit(name="token", rate="2/minute", per="token"),
        Limit(name="place", rate="100/minute", per=["endpoint", "org"]),
        Limit(name="ip", rate="100/minute", per="ip"),
    ]
    limiter = Limiter(
        RateLimitSettings(limits=limits),
        MemoryStore(clock=clock),
        clock,
        listeners=[PrometheusListener(registry=registry)],
    )
    chosen = random.Random(3)
    series = set()
    for number in range(10_000):
        name = f"secret{chosen.random()}"
        identity = Identity(token=name, org=f"org-{name}", ip=f"10.0.{number % 250}.1")
        for _ in range(1 + number % 4):
            await limiter.check(identity, endpoint=f"/path/{name}")
        if number in (100, 9_999):
            text = generate_latest(registry).decode()
            series.add(len(samples_of(text)))
            assert "secret" not in text
            assert "10.0." not in text
    assert len(series) == 1


def test_all_metrics_are_there_before_the_first_request() -> None:
    """With their type; so a query that names one is never about nothing."""
    registry = CollectorRegistry()
    PrometheusListener(registry=registry)
    text = generate_latest(registry).decode()
    for metric in METRICS:
        suffix = "_total" if metric.kind == "counter" else ""
        assert f"# TYPE {prometheus_name(metric)}{suffix} {metric.kind}" in text


@pytest.mark.parametrize("extra", [{}, {"limits": [Limit(name="other", rate="1/minute")]}])
def test_two_settings_have_two_hashes(extra: dict[str, object]) -> None:
    """And the same settings have the same, in each process."""
    from ratelimit.telemetry.measures import config_hash  # noqa: PLC0415

    first = Limiter(SETTINGS, MemoryStore())
    second = Limiter(SETTINGS.model_copy(update=extra), MemoryStore())
    assert (config_hash(first) == config_hash(second)) is not bool(extra)


async def test_a_wait_without_end_is_no_measure(clock: ManualClock) -> None:
    """A request that costs more than its limit is refused for ever; the sum of all waits stays a number."""
    registry = CollectorRegistry()
    settings = RateLimitSettings(limits=[Limit(name="token", rate="2/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[PrometheusListener(registry=registry)])
    decision = await limiter.check(Identity(token="t"), cost=3)
    assert decision.retry_after == float("inf")
    name = "ratelimit_policy_checks_total"
    assert registry.get_sample_value(name, {"policy": "token", "state": "over"}) == 1
    assert not registry.get_sample_value("ratelimit_retry_after_seconds_sum", {"policy": "token"})


async def test_a_caller_that_went_away_is_no_error_of_the_store(clock: ManualClock) -> None:
    """Only what the store itself did not do counts as its error."""

    class Hanging(MemoryStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            return await asyncio.Future()

    registry = CollectorRegistry()
    settings = RateLimitSettings(limits=[Limit(name="token", rate="2/minute", per="token")])
    limiter = Limiter(settings, Hanging(clock=clock), clock, listeners=[PrometheusListener(registry=registry)])
    waiting = asyncio.create_task(limiter.check(Identity(token="t")))
    for _ in range(5):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    text = generate_latest(registry).decode()
    assert 'outcome="error"' not in text
    assert 'outcome="timeout"' not in text
