"""Measure what Redis spends on a limit whose rates have several periods, against one that has a single period."""

from collections.abc import Callable
from functools import partial
from itertools import islice

from benchmarks.harness import compared, in_turns, redis, result
from benchmarks.report import Result
from benchmarks.stores.redis_cpu import ours
from ratelimit import Limit, RateLimitSettings

ROUNDS, TOKENS, PLENTY = 5, 1000, 10**9
PLANS = {"night": f"{PLENTY}/12 hours", "week": f"{PLENTY}/7 days"}
"""A plan's rate brings its period, whichever plan a caller has."""


def run() -> Result:
    """Measure and return microseconds of Redis per decision, one decision at a time and in batches."""
    with redis() as server:
        measures: dict[str, Callable[[], float]] = {
            f"{name}, {how}": partial(ours, server, settings(limits, periods), TOKENS, at_once)
            for how, at_once in (("one at a time", 1), ("batches", 128))
            for name, limits, periods in (
                ("one limit", 1, 1),
                ("one limit of two periods", 1, 2),
                ("one limit of three periods", 1, 3),
                ("three limits", 3, 1),
                ("three limits of two periods", 3, 2),
            )
        }
        times = in_turns(measures, ROUNDS)
    return result(
        "periods",
        "Redis CPU per decision of limits whose rates have several periods, against one period",
        goal="none: it says what the choice costs",
        measured="; ".join(
            f"{limits}, {how}: {ratio(times, f'{limits} of two periods, {how}', f'{limits}, {how}'):.1f}× with two"
            for how in ("one at a time", "batches")
            for limits in ("one limit", "three limits")
        ),
        unit="µs of Redis",
        times=times,
        first=next(iter(measures)),
    )


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median over the rounds of the ratio of one to another."""
    return compared(times, base)[name]


def settings(limits: int, periods: int) -> RateLimitSettings:
    """Return settings with this number of limits, each with rates of this number of periods."""
    plans = dict(islice(PLANS.items(), periods - 1))
    scopes = ("token", "org", "endpoint")[:limits]
    return RateLimitSettings(
        limits=[Limit(name=scope, rate=f"{PLENTY}/hour", per=scope, plans=plans) for scope in scopes]
    )
