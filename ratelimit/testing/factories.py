"""Makes effective limits and keys, for tests of stores."""

from uuid import uuid4

from ratelimit.model.calendar_period import NOMINAL, Period
from ratelimit.model.effective_limit import EffectiveConcurrency, EffectivePace, EffectiveQuota, EffectiveRate
from ratelimit.model.kinds import NEVER


def fresh_key() -> str:
    """Return a key that no other test has used."""
    return f"rl:{{test}}:{uuid4().hex}"


def window_limit(
    limit: int,
    period: int = 60,
    burst: int = 0,
    *,
    policy: str = "p",
    shadow: bool = False,
    share: int | None = None,
) -> EffectiveRate:
    """Return a rate: `limit` units in `period` seconds, and `burst` units on top."""
    return EffectiveRate(
        policy=policy, scope="token", limit=limit, window=period, burst=burst, shadow=shadow, share=share
    )


def quota_limit(
    limit: int, period: Period | None, *, policy: str = "q", shadow: bool = False, share: int | None = None
) -> EffectiveQuota:
    """Return a quota of `limit` units in a calendar period, or a level (`period` is `None`)."""
    return EffectiveQuota(
        policy=policy,
        scope="org",
        limit=limit,
        period=period,
        window=NOMINAL[period] if period else 0,
        status=403,
        shadow=shadow,
        share=share,
    )


def concurrency_limit(
    limit: int, lease_ms: int = 60_000, *, policy: str = "s", shadow: bool = False, share: int | None = None
) -> EffectiveConcurrency:
    """Return a concurrency limit of `limit` permits, each of which expires `lease_ms` after its last renewal."""
    return EffectiveConcurrency(policy=policy, scope="org", limit=limit, lease_ms=lease_ms, shadow=shadow, share=share)


def pace_limit(limit: int, period: int = 1, max_wait_ms: int = NEVER, *, policy: str = "t") -> EffectivePace:
    """Return a pace of `limit` reservations in `period` seconds, refused where they start more than `max_wait_ms` ahead."""
    return EffectivePace(policy=policy, scope="global", limit=limit, window=period, max_wait_ms=max_wait_ms)
