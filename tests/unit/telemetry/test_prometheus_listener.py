"""Prometheus: families by the names of the table; `tests/behaviour/test_metrics.py` has the rest (`telemetry.measures`)."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import ratelimit.telemetry
from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings
from ratelimit.telemetry import PrometheusListener
from ratelimit.testing import ManualClock


async def test_two_limiters_are_added_up(clock: ManualClock) -> None:
    """Under one registry there is one of each series."""
    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry)
    settings = RateLimitSettings(limits=[Limit(name="a", rate="9/minute", per="token")])
    for _ in range(2):
        limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[listener])
        await limiter.check(Identity(token="t"))
    labels = {"policy": "", "result": "admitted", "source": "store"}
    assert registry.get_sample_value("ratelimit_requests_total", labels) == 2
    assert registry.get_sample_value("ratelimit_policy_utilization_bucket", {"policy": "a", "le": "0.25"}) == 2
    assert registry.get_sample_value("ratelimit_policy_utilization_bucket", {"policy": "a", "le": "0.1"}) == 0
    assert "ratelimit_config_info" in generate_latest(registry).decode()
    limiter.observer.store_changed(ValueError("down"))
    assert registry.get_sample_value("ratelimit_store_available") == 0, "one of them is without its store"
    assert registry.get_sample_value("ratelimit_workers") == 1


async def test_overrides_and_outages_are_gauges_and_counters(clock: ManualClock) -> None:
    """As they stand at the scrape."""
    registry = CollectorRegistry()
    settings = RateLimitSettings(limits=[Limit(name="a", rate="9/minute", per="token")])
    listener = PrometheusListener(registry=registry)
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[listener])
    await limiter.overrides.set(policy="a", key={}, rate="1/minute")
    limiter.observer.store_changed(ValueError("down"))
    limiter.observer.failed("identify")
    assert registry.get_sample_value("ratelimit_overrides_active", {"policy": "a"}) == 1
    assert registry.get_sample_value("ratelimit_store_available") == 0
    assert registry.get_sample_value("ratelimit_store_outages_total") == 1
    assert registry.get_sample_value("ratelimit_errors_total", {"where": "identify"}) == 1


def test_the_libraries_are_extras() -> None:
    """Neither is imported before it is asked for."""
    code = (
        "import sys, ratelimit, ratelimit.telemetry\n"
        "print({'prometheus_client', 'opentelemetry.metrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError, match="has no attribute 'statsd'"):
        ratelimit.telemetry.statsd  # noqa: B018
