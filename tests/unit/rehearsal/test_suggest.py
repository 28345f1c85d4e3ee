"""Suggestions: `rehearsal.suggest` and `rehearsal.arrivals` find the smallest round limit that serves the honest."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Identity, Limit, RateLimitSettings
from ratelimit.rehearsal.arrivals import Arrivals, Simultaneous
from ratelimit.rehearsal.engine import RehearsalEngine
from ratelimit.rehearsal.log_records import LogRecord
from ratelimit.rehearsal.places import LogPlaces
from ratelimit.rehearsal.suggest import round_up, suggest

SECOND = 1_000_000
START = 1_795_000_000 * SECOND


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=80))
def test_a_limit_of_a_callers_peak_never_refuses(gaps: list[int]) -> None:
    """By the library's own window: so the peak is never too low."""
    arrivals, at, times = Arrivals(60), START, list[int]()
    for gap in gaps:
        at += gap * 1000
        times.append(at)
        arrivals.add("a", at)
    peak = arrivals.peaks()["a"]
    engine = RehearsalEngine(RateLimitSettings(limits=[Limit(name="l", rate=f"{peak}/minute", per="token")]))
    policies = LogPlaces(engine.resolver).find("GET", "/")[1]
    outcomes = [
        engine.decide(LogRecord(at, at, "GET", "/", 200, False, {}), Identity(token="a"), policies) for at in times
    ]
    assert not any(outcome.is_refused for outcome in outcomes)
    assert arrivals.effect(peak).requests == 0
    assert peak == 1 or arrivals.effect(peak - 1).requests > 0


def test_round_numbers() -> None:
    """The next one, never a smaller one."""
    assert [round_up(value) for value in (1, 2, 7, 11, 13, 24, 26, 61, 101, 999, 1001)] == [
        1, 2, 8, 12, 15, 25, 30, 80, 120, 1000, 1200,
    ]  # fmt: skip


def poisson(callers: int, *, per_minute: float, seconds: int, seed: int = 1) -> Arrivals:
    chance, arrivals = random.Random(seed), Arrivals(60)
    for caller in range(callers):
        at = 0.0
        while (at := at + chance.expovariate(per_minute / 60)) < seconds:
            arrivals.add(f"c{caller}", START + round(at * SECOND))
    return arrivals


def test_abusers_do_not_raise_the_limit_and_are_named() -> None:
    """One that asks a hundred times as often as all others."""
    arrivals = poisson(300, per_minute=6, seconds=3600)
    for n in range(36_000):
        arrivals.add("abuser", START + n * SECOND // 10)
    found = suggest("token", arrivals, START, START + 3600 * SECOND)
    assert list(found.outliers) == ["abuser"]
    assert 12 <= found.limit * (1 + found.burst) <= 40
    assert found.confidence == "low"
    assert "less than a day" in found.why[0]
    assert found.curve[0].effect.requests > found.curve[-1].effect.requests == 0
    assert found.rate.endswith("/minute")
    assert 'per = ["token"]' in found.toml()
    data = found.as_dict()
    assert (data["callers"], data["outliers"]["abuser"] > 500, data["concurrency"]) == (301, True, None)


def test_short_bursts_become_a_burst() -> None:
    """Callers that ask for much in one minute, and for nothing in the next: a lower rate, and room above it."""
    arrivals = Arrivals(60)
    for caller in range(60):
        for minute in range(0, 60, 3):
            for n in range(40):
                arrivals.add(f"c{caller}", START + (minute * 60 + n) * SECOND)
    found = suggest("ip", arrivals, START, START + 3600 * SECOND)
    assert found.burst > 0
    assert found.limit * (1 + found.burst) >= 40
    assert found.limit < 40


def test_requests_at_once_are_measured() -> None:
    """What all but one in a thousand do not exceed; longer windows are written in seconds."""
    at_once, arrivals = Simultaneous(), Arrivals(90)
    for n in range(2000):
        at = START + n * SECOND
        at_once.add("a", at, at + 2 * SECOND + 500_000)
        arrivals.add("a", at)
    assert at_once.highest() == {"a": 3}
    found = suggest("org", arrivals, START, START + 2000 * SECOND, simultaneous=at_once)
    assert found.concurrency == 3
    assert found.rate.endswith("/90s")
    assert "[[concurrency]]" in found.toml()
    assert found.confidence == "low"
