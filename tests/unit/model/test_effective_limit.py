"""Effective limits: the numbers that are derived from the declared ones."""

import pytest

from ratelimit.model.effective_limit import (
    WINDOW_BUCKETS,
    EffectiveConcurrency,
    EffectiveLimit,
    EffectivePace,
    EffectiveQuota,
    EffectiveRate,
)


@pytest.mark.parametrize(
    ("limit", "burst", "period", "bucket_ms", "window_ms"),
    [
        (64, 0, 60, 1, 60_000),
        (60, 4, 60, 1, 60_000),
        (60, 5, 60, 938, 60_032),
        (65, 0, 1, 16, 1008),
        (1000, 0, 3600, 56_250, 3_600_000),
    ],
)
def test_a_window_is_cut_into_at_most_64_buckets(
    limit: int, burst: int, period: int, bucket_ms: int, window_ms: int
) -> None:
    """1 ms where L + C ≤ 64, else a 64th of the window, rounded up; and as many as cover the window."""
    rate = EffectiveRate(policy="p", scope="token", limit=limit, window=period, burst=burst)
    assert (rate.bucket_ms, rate.window_ms, rate.capacity) == (bucket_ms, window_ms, limit + burst)
    assert WINDOW_BUCKETS == 64


@pytest.mark.parametrize(
    ("share", "caller_capacity", "advertised_limit"), [(None, 120, 100), (50, 50, 50), (110, 110, 100), (999, 120, 100)]
)
def test_a_share_bounds_what_a_caller_may_fill(share: int | None, caller_capacity: int, advertised_limit: int) -> None:
    """The caller is admitted up to its share of the capacity, and sees the limit without burst."""
    rate = EffectiveRate(policy="p", scope="token", limit=100, window=60, burst=20, share=share)
    assert (rate.caller_capacity, rate.advertised_limit) == (caller_capacity, advertised_limit)
    assert rate.reported_limit == advertised_limit


def test_a_part_of_a_fleets_limit_reports_the_whole() -> None:
    """A worker enforces its own part, and answers name the limit that was declared."""
    part = EffectiveQuota(policy="q", scope="org", limit=25, fleet_limit=100)
    assert (part.caller_capacity, part.advertised_limit, part.reported_limit) == (25, 25, 100)


@pytest.mark.parametrize(
    ("limit", "is_advertised"),
    [
        (EffectiveRate(policy="p", scope="token", limit=1, window=1), True),
        (EffectiveRate(policy="p", scope="token", limit=1, window=1, shadow=True), False),
        (EffectiveQuota(policy="p", scope="token", limit=1), False),
        (EffectiveConcurrency(policy="p", scope="token", limit=1), False),
        (EffectivePace(policy="p", scope="token", limit=1, window=1), False),
    ],
)
def test_only_rates_that_are_enforced_are_advertised(limit: EffectiveLimit, *, is_advertised: bool) -> None:
    """The headers of an admitted request name neither shadows nor other kinds."""
    assert limit.is_advertised is is_advertised


def test_limits_are_compared_by_identity() -> None:
    """Two callers with equal numbers keep separate limits, so that a batch names each object once."""
    one, two = (EffectiveQuota(policy="q", scope="org", limit=5) for _ in range(2))
    assert one != two
    assert len({one, two, one}) == 2
