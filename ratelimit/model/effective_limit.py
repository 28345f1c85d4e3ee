"""Effective limits: a policy's numbers as they hold for one group of callers.

Which rate holds for a caller is already decided here (grant, override, schedule, plan or the policy's own rate), and so
is the caller's share. Each kind has a class with the fields of that kind.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, NamedTuple

from ratelimit.model.calendar_period import Period
from ratelimit.model.kinds import NEVER, Kind

WINDOW_BUCKETS: Final = 64
"""The largest number of buckets that a sliding window is cut into."""

Hold = Literal["response", "background"]
"""Until when a request holds its permit: the last chunk of its response, or the end of its background tasks."""


class OtherWindow(NamedTuple):
    """A window of another period, in which the units that a limit admits are counted too.

    It refuses nothing: its counter is for the time when a rate of its period holds. Its key is that of the charge, with
    `key_part` in place of `own_part`, as `}:token:3600:` in place of `}:token:60:`.
    """

    limit: "EffectiveRate"
    key_part: str
    own_part: str


@dataclass(slots=True, eq=False, kw_only=True)
class EffectiveLimit:
    """What all kinds have in common. Made once for a group of callers, shared by their charges, never changed.

    `limit` is in units. `share` caps how far this caller may fill the counter (`None`: no cap). `caller_capacity` is the
    highest total at which this caller is still admitted, burst included. `advertised_limit` is the limit without burst:
    `remaining` counts down from it. `reported_limit` is the limit that answers name: the advertised one, or the
    `fleet_limit` where this is one worker's part of a limit that the whole fleet shares. `window` is in seconds (0 for
    levels and concurrency). `is_advertised` says whether the limit may appear in the headers of an admitted request.
    `other_windows` are those in which what this limit admits is counted as well.
    Compared by identity, so that a batch sends the numbers of each only once.
    """

    kind: ClassVar[Kind]

    policy: str
    scope: str
    limit: int
    window: int = 0
    share: int | None = None
    fleet_limit: int | None = None
    shadow: bool = False
    on_store_failure: str = "local"
    refund_on: tuple[int, ...] = ()
    code: str | None = None
    detail: str | None = None
    status: int = 429
    unit: str = "requests"
    period: Period | None = None
    other_windows: tuple[OtherWindow, ...] = field(default=(), repr=False)
    caller_capacity: int = field(init=False)
    advertised_limit: int = field(init=False)
    reported_limit: int = field(init=False)
    is_advertised: bool = field(init=False)

    # The derived numbers are fields, and not properties: the algorithms read them several times for each charge.
    def __post_init__(self) -> None:
        self._derive(self.limit)

    def _derive(self, capacity: int) -> None:
        self.caller_capacity = capacity if self.share is None else min(self.share, capacity)
        self.advertised_limit = min(self.limit, self.caller_capacity)
        self.reported_limit = self.advertised_limit if self.fleet_limit is None else self.fleet_limit
        self.is_advertised = self.kind == "limit" and not self.shadow


@dataclass(slots=True, eq=False, kw_only=True)
class EffectiveRate(EffectiveLimit):
    """A `Limit`: `limit` units over a sliding window, plus `burst` units once in a while.

    `capacity` is `limit` + `burst`. The window is cut into buckets of `bucket_ms`; `window_ms` is the span of the whole
    buckets that cover it. `clock_tolerance_ms` is the width of the widest bucket that the window may have: a stamp that
    is further ahead was written by a wrong clock. `prefetch` is the number of units that a worker may take ahead at once.
    Before `new_until_ms` (since the epoch) the period is new: a key without a state begins with what the other windows hold.
    """

    kind: ClassVar[Kind] = "limit"

    burst: int = 0
    prefetch: int = 0
    new_until_ms: int = 0
    capacity: int = field(init=False)
    bucket_ms: int = field(init=False)
    window_ms: int = field(init=False)
    clock_tolerance_ms: int = field(init=False)

    def __post_init__(self) -> None:
        period_ms, capacity = self.window * 1000, self.limit + self.burst
        bucket_ms = 1 if capacity <= WINDOW_BUCKETS else max(1, -(-period_ms // WINDOW_BUCKETS))
        self.capacity, self.bucket_ms, self.window_ms = capacity, bucket_ms, -(-period_ms // bucket_ms) * bucket_ms
        self.clock_tolerance_ms = max(bucket_ms, -(-self.window_ms // WINDOW_BUCKETS))
        self._derive(capacity)


@dataclass(slots=True, eq=False, kw_only=True)
class EffectiveQuota(EffectiveLimit):
    """A `Quota`: `limit` units in each calendar `period`, or a level (`period` is `None`)."""

    kind: ClassVar[Kind] = "quota"


@dataclass(slots=True, eq=False, kw_only=True)
class EffectiveConcurrency(EffectiveLimit):
    """A `Concurrency`: `limit` permits. A permit that is not renewed expires after `lease_ms`."""

    kind: ClassVar[Kind] = "concurrency"

    lease_ms: int = 60_000
    hold: Hold = "response"


@dataclass(slots=True, eq=False, kw_only=True)
class EffectivePace(EffectiveLimit):
    """A pacer's rate: `limit` evenly spaced reservations in `window` seconds.

    A reservation that lies more than `max_wait_ms` ahead is refused.
    """

    kind: ClassVar[Kind] = "pace"

    max_wait_ms: int = NEVER
