"""Charges as they reach a store, for tests of stores."""

from uuid import uuid4

from ratelimit.charge import NEVER, Terms
from ratelimit.periods import NOMINAL, Period


def fresh_key() -> str:
    """Return a key that no other test has used."""
    return f"rl:{{test}}:{uuid4().hex}"


def terms(
    limit: int,
    period: int = 60,
    allowance: int = 0,
    *,
    policy: str = "p",
    shadow: bool = False,
    share: int | None = None,
) -> Terms:
    """Return the numbers of a rate: `limit` units in `period` seconds, and `allowance` units of burst."""
    return Terms(
        kind="limit",
        policy=policy,
        scope="token",
        limit=limit,
        window=period,
        allowance=allowance,
        shadow=shadow,
        share=share,
    )


def quota(
    limit: int, period: Period | None, *, policy: str = "q", shadow: bool = False, share: int | None = None
) -> Terms:
    """Return the numbers of a quota in a calendar period, or of a level."""
    return Terms(
        kind="quota",
        policy=policy,
        scope="org",
        limit=limit,
        period=period,
        window=NOMINAL[period] if period else 0,
        status=403,
        shadow=shadow,
        share=share,
    )


def slots(
    limit: int, lease: int = 60_000, *, policy: str = "s", shadow: bool = False, share: int | None = None
) -> Terms:
    """Return the numbers of so many slots, with leases of `lease` milliseconds."""
    return Terms(kind="concurrency", policy=policy, scope="org", limit=limit, lease=lease, shadow=shadow, share=share)


def pace(limit: int, period: int = 1, patience: int = NEVER, *, policy: str = "t") -> Terms:
    """Return the numbers of a pace: `limit` turns in `period` seconds, for who waits `patience` milliseconds."""
    return Terms(kind="pace", policy=policy, scope="global", limit=limit, window=period, patience=patience)
