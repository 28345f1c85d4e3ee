"""What an identity has used of a quota."""

from typing import NamedTuple

from ratelimit.model.calendar_period import Period
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import Reading


class QuotaUsage(NamedTuple):
    """What an identity has used of one quota: whole `unit`s in this period, and `last` in the previous one (levels: 0).

    `resets_at` is when the period ends, in epoch seconds by this process's clock; `None` for levels.
    """

    policy: str
    unit: str
    period: Period | None
    limit: int
    used: int
    remaining: int
    resets_at: float | None
    last: int


def quota_usage(charge: Charge, reading: Reading, now: int) -> QuotaUsage:
    """Return the usage that a store's reading (used, reset in ms, used before) tells, read at `now` (epoch µs)."""
    limit, (used, reset_ms, last) = charge.limit, reading
    # Periods end on the second; the rest is how long the reply took.
    resets_at = None if limit.period is None else float(round((now + reset_ms * 1000) / 1e6))
    number = limit.advertised_limit
    return QuotaUsage(limit.policy, limit.unit, limit.period, number, used, max(0, number - used), resets_at, last)
