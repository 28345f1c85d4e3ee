"""Service limits: what each policy has left after a check."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from ratelimit.model.calendar_period import Period
from ratelimit.model.charge import Charge
from ratelimit.model.kinds import GLOBAL, NEVER, Kind

Reading = tuple[int, int, int]
"""A store's three integers for one charge: (remaining, reset_ms, wait_ms).

`remaining` is in units, `reset_ms` and `wait_ms` are durations. `wait_ms` > 0: refused, retry after so long (`NEVER`:
never). `wait_ms` == 0: admitted. `wait_ms` < 0: admitted, and one more unit than now is free after −`wait_ms`; where nothing
remains, nothing of the burst is left either.

Two cases differ. `Operation.USAGE` answers (used, reset_ms, used in the previous period). The kind `pace` answers (start
of the reservation in µs, wait for it in µs, `over_ms`): `over_ms` > 0 is by how much the wait exceeds the bound.

A plain tuple, to be unpacked and never indexed. A `NamedTuple` costs 12 % of a check in memory and 30 % of reading a batch.
"""

LEVEL_RETRY_MS: Final = 1000
"""The wait that a full level with status 429 reports: other requests bring the level down, at an unknown time."""


class ServiceLimit(NamedTuple):
    """What one policy has left after a check (the term of draft-ietf-httpapi-ratelimit-headers).

    `limit` and `remaining` are units, `remaining` against the limit without burst; `window` and `retry_after` are
    seconds, `reset_at` epoch seconds by this process's clock. `retry_after` is 0.0 unless this limit refused, and
    infinite where waiting does not help or its end is unknown. `window` is 0 for levels and concurrency, and nominal
    for months and years. `reset_after` is the wait until `reset_at`, in seconds, `more_after` that until more remains than
    now (`None`: as long). `exhausted` says that not even one
    more unit, burst included, would be admitted now. `cost` is what was asked of this limit. `code`, `detail` and
    `status` are what the policy sets for its refusals. `unit` is what is counted, `period` the calendar period's name.
    """

    policy: str
    kind: Kind
    scope: str
    limit: int
    remaining: int
    window: int
    reset_at: float
    retry_after: float = 0.0
    shadow: bool = False
    exhausted: bool = False
    cost: int = 1
    reset_after: float = 0.0
    more_after: float | None = None
    code: str | None = None
    detail: str | None = None
    status: int = 429
    unit: str = "requests"
    period: Period | None = None

    @property
    def is_capacity(self) -> bool:
        """Whether this is the capacity of the whole service, whose numbers stay private when it refuses."""
        return self.scope == GLOBAL

    def after(self, seconds: float) -> "ServiceLimit":
        """Return this limit as it stands `seconds` later if nothing else is charged."""
        # As in `service_limit`: `_replace` takes three times as long.
        policy, kind, scope, limit, left, window, at, wait, shadow, exhausted, cost, reset, more, *words = self
        wait = wait - seconds if wait else 0.0
        reset = reset - seconds if reset > seconds else 0.0
        more = more and max(0.0, more - seconds)
        fields = policy, kind, scope, limit, left, window, at, wait, shadow, exhausted, cost, reset, more, *words
        return tuple.__new__(ServiceLimit, fields)


def service_limit(charge: Charge, remaining: int, reset_ms: int, wait_ms: int, now: int) -> ServiceLimit:
    """Return the service limit that a store's `Reading` of `charge` means at `now` (epoch microseconds)."""
    limit = charge.limit
    if wait_ms == NEVER and limit.kind == "quota" and limit.status != 403 and charge.cost <= limit.caller_capacity:
        reset_ms = wait_ms = LEVEL_RETRY_MS
    retry_after = 0.0 if wait_ms <= 0 else math.inf if wait_ms == NEVER else wait_ms / 1000
    # Several are made for each request, and `ServiceLimit(…)` takes twice as long. A test holds this order of values
    # against the fields.
    return tuple.__new__(
        ServiceLimit,
        (
            limit.policy,
            limit.kind,
            limit.scope,
            limit.reported_limit,
            remaining,
            limit.window,
            (now + reset_ms * 1000) / 1e6,
            retry_after,
            limit.shadow,
            wait_ms != 0 and remaining == 0,
            charge.cost,
            reset_ms / 1000,
            -wait_ms / 1000 if wait_ms < 0 < remaining else None,
            limit.code,
            limit.detail,
            limit.status,
            limit.unit,
            limit.period,
        ),
    )


def service_limits(charges: Sequence[Charge], readings: Sequence[Reading], now: int) -> list[ServiceLimit]:
    """Return the service limit of each charge at `now` (epoch microseconds)."""
    return [
        service_limit(charge, remaining, reset_ms, wait_ms, now)
        for charge, (remaining, reset_ms, wait_ms) in zip(charges, readings, strict=True)
    ]
