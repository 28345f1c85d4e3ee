"""Makes effective limits and keys, for tests of stores."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from ratelimit.model.calendar_period import NOMINAL, Period
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import (
    EffectiveConcurrency,
    EffectivePace,
    EffectiveQuota,
    EffectiveRate,
    OtherWindow,
)
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
    new_until_ms: int = 0,
) -> EffectiveRate:
    """Return a rate: `limit` units in `period` seconds, and `burst` units on top."""
    return EffectiveRate(
        policy=policy,
        scope="token",
        limit=limit,
        window=period,
        burst=burst,
        shadow=shadow,
        share=share,
        new_until_ms=new_until_ms,
    )


def counted_together(limits: Sequence[EffectiveRate]) -> list[EffectiveRate]:
    """Return these rates of different periods so that what one of them admits is counted in the windows of all."""
    return [
        replace(
            own, other_windows=tuple(OtherWindow(each, _part(each), _part(own)) for each in limits if each is not own)
        )
        for own in limits
    ]


def windowed(limit: EffectiveRate, key: str, cost: int = 1) -> Charge:
    """Return a charge of one of the rates that are `counted_together`; `key` is that of all their windows."""
    return Charge(limit, key.replace("}:", _part(limit), 1), cost)


def _part(limit: EffectiveRate) -> str:
    return f"}}:{limit.window}:"


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
