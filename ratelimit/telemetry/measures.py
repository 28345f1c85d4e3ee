"""Measures: all that a limiter has counted, by the names of metrics, whichever system they are for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from operator import add
from typing import Final, Literal
from weakref import WeakKeyDictionary

from ratelimit._utils.histogram import Histogram
from ratelimit.config.settings_hash import settings_hash
from ratelimit.enforcement.tallies import STATES, Tallies
from ratelimit.limiter_core import LimiterCore
from ratelimit.stores.memory import MemoryStore

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """The name (of OpenTelemetry), the kind, the unit (UCUM), what it means, and its attributes."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Metric(
        "ratelimit.requests", "counter", "{request}", "Requests by what was decided.", ("result", "policy", "source")
    ),
    Metric("ratelimit.policy.checks", "counter", "{check}", "Checks of a policy by how it stood.", ("policy", "state")),
    Metric("ratelimit.policy.units", "counter", "{unit}", "Units of a policy by what was done.", ("policy", "action")),
    Metric("ratelimit.policy.utilization", "histogram", "1", "How full a policy was when it was checked.", ("policy",)),
    Metric("ratelimit.retry_after", "histogram", "s", "The waits that refusals named.", ("policy",)),
    Metric("ratelimit.decision.duration", "histogram", "s", "How long decisions took.", ("source",)),
    Metric("ratelimit.store.duration", "histogram", "s", "How long calls to the store took.", ("op", "outcome")),
    Metric("ratelimit.store.batch", "histogram", "{request}", "Requests that travel in one call to the store."),
    Metric("ratelimit.store.available", "gauge", "1", "Whether the store is available (1) or not (0)."),
    Metric("ratelimit.store.outages", "counter", "{outage}", "Outages of the store."),
    Metric("ratelimit.outbox.pending", "gauge", "{correction}", "Corrections that wait for the store."),
    Metric("ratelimit.outbox.lost", "counter", "{unit}", "Units of corrections that could not be kept."),
    Metric("ratelimit.workers", "gauge", "{worker}", "Workers that share the limits."),
    Metric("ratelimit.memory.keys", "gauge", "{key}", "Counters that the memory store keeps."),
    Metric("ratelimit.memory.evictions", "counter", "{key}", "Counters that the memory store has evicted."),
    Metric("ratelimit.overrides.active", "gauge", "{override}", "Overrides that hold.", ("policy",)),
    Metric(
        "ratelimit.config.reloads", "counter", "{reload}", "Times that the settings were loaded again.", ("result",)
    ),
    Metric("ratelimit.config.info", "gauge", "1", "The settings that hold, by their hash.", ("hash", "version")),
    Metric("ratelimit.errors", "counter", "{error}", "Errors that changed no answer.", ("where",)),
)
"""All metrics."""

METRIC: Final = {metric.name: metric for metric in METRICS}

Sample = tuple[Sequence[str], float | Histogram]
"""The values of a metric's labels, and its number, or its histogram."""


Snapshot = dict[str, dict[tuple[str, ...], float | Histogram]]
"""What was counted, by the name of the metric and the values of its labels."""

_COMBINED: Final[dict[str, Callable[[float, float], float]]] = {
    "ratelimit.store.available": min,
    "ratelimit.workers": max,
    "ratelimit.config.info": max,
}
"""What several limiters of a process come to, apart from their sum."""


def snapshot(limiters: Iterable[LimiterCore]) -> Snapshot:
    """Return all that these limiters have counted together, read once."""
    found: Snapshot = {metric.name: {} for metric in METRICS}
    for limiter in limiters:
        tallies = limiter.observer.count()
        for name, own in {**_counted(tallies), **_standing(limiter, tallies)}.items():
            for labels, value in own:
                key = tuple(labels)
                found[name][key] = _added(name, found[name].get(key), value)
    return found


def _added(name: str, known: float | Histogram | None, value: float | Histogram) -> float | Histogram:
    if isinstance(value, Histogram):
        both = Histogram(value.bounds)
        before = known.counts if isinstance(known, Histogram) else [0] * len(value.counts)
        both.counts = [a + b for a, b in zip(before, value.counts, strict=True)]
        both.total = value.total + (known.total if isinstance(known, Histogram) else 0.0)
        return both
    combine: Callable[[float, float], float] = _COMBINED.get(name, add)
    return combine(value, known) if isinstance(known, (int, float)) else value


def _counted(tallies: Tallies) -> dict[str, Iterable[Sample]]:
    policies = tallies.policies.items()
    return {
        "ratelimit.requests": [(key, count) for key, count in list(tallies.requests.items())],
        "ratelimit.policy.checks": (
            ((policy, state), getattr(tally, state)) for policy, tally in list(policies) for state in STATES
        ),
        "ratelimit.policy.units": (
            ((policy, action), units) for policy, tally in list(policies) for action, units in tally.units.items()
        ),
        "ratelimit.policy.utilization": (((policy,), tally.utilization) for policy, tally in list(policies)),
        "ratelimit.retry_after": (((policy,), tally.retry_after) for policy, tally in list(policies)),
        "ratelimit.decision.duration": (((source,), each) for source, each in list(tallies.durations.items())),
        "ratelimit.store.duration": [(key, each) for key, each in list(tallies.store_calls.items())],
    }


def _standing(limiter: LimiterCore, tallies: Tallies) -> dict[str, Iterable[Sample]]:
    enforcer = limiter.enforcer
    batches = limiter.store.batches
    memory = limiter.store if isinstance(limiter.store, MemoryStore) else None
    return {
        "ratelimit.store.batch": [] if batches is None else [((), batches)],
        "ratelimit.store.available": [((), float(tallies.is_store_available))],
        "ratelimit.store.outages": [((), tallies.outages)],
        "ratelimit.outbox.pending": [((), len(enforcer.outbox) + enforcer.local_fallback.has_unreported)],
        "ratelimit.outbox.lost": [((), enforcer.outbox.lost)],
        "ratelimit.workers": [((), enforcer.workers.count)],
        "ratelimit.memory.keys": [] if memory is None else [((), len(memory))],
        "ratelimit.memory.evictions": [] if memory is None else [((), memory.evictions)],
        "ratelimit.overrides.active": [((policy,), count) for policy, count in limiter.overrides.counts().items()],
        "ratelimit.errors": (((where,), count) for where, count in _errors(limiter, tallies).items()),
        "ratelimit.config.reloads": (((result,), count) for result, count in tallies.reloads.items()),
        "ratelimit.config.info": [((config_hash(limiter), _VERSION), 1.0)],
    }


_HASHES: Final[WeakKeyDictionary[LimiterCore, tuple[object, str]]] = WeakKeyDictionary()


def _errors(limiter: LimiterCore, tallies: Tallies) -> dict[str, int]:
    other = tallies.errors.get("other", 0) + limiter.observer.listeners.failed
    controls = limiter.overrides, limiter.blocks, limiter.allowed, limiter.fleet
    return {**tallies.errors, "override": sum(each.unreadable for each in controls), "other": other}


def config_hash(limiter: LimiterCore) -> str:
    """Return eight digits that stand for the settings of a limiter; of two hashes in a fleet, one is out of date."""
    known = _HASHES.get(limiter)
    if known is None or known[0] is not limiter.settings:
        known = _HASHES[limiter] = limiter.settings, settings_hash(limiter.settings)
    return known[1]


def _version() -> str:
    try:
        return version("ratelimit-asgi")
    except PackageNotFoundError:
        return "unknown"


_VERSION: Final = _version()
