"""What is asked of a store, and what comes back."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Self

from ratelimit.rate import Rate

Kind = Literal["limit", "quota", "concurrency"]

NEVER: Final = 2**53 - 1
"""The wait, in milliseconds, of a cost that can never be admitted: the largest integer that Lua holds exactly."""

GLOBAL: Final = "global"
"""The scope of a policy that has one counter for everybody."""

MAX_SLOTS: Final = 64
"""Into how many slots a window is cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The numbers of one policy for one kind of caller: made once, shared by every charge under them.

    `limit`, `allowance` (the burst) and `ceiling` (their sum) are units; `slot` and `span` are milliseconds, `span` being the whole slots
    that cover the window. Compared by identity, so that a batch names each only once.
    """

    kind: Kind
    policy: str
    scope: str
    rate: Rate
    allowance: int
    shadow: bool = False
    on_store_failure: str = "local"
    code: str | None = None
    detail: str | None = None
    limit: int = field(init=False)
    ceiling: int = field(init=False)
    window: int = field(init=False)
    slot: int = field(init=False)
    span: int = field(init=False)

    def __post_init__(self) -> None:
        window = self.rate.period * 1000
        few = self.rate.limit + self.allowance <= MAX_SLOTS
        slot = 1 if few else -(-window // MAX_SLOTS)
        for name, value in (
            ("limit", self.rate.limit),
            ("ceiling", self.rate.limit + self.allowance),
            ("window", self.rate.period),
            ("slot", slot),
            ("span", -(-window // slot) * slot),
        ):
            object.__setattr__(self, name, value)


class Charge(NamedTuple):
    """One debit of `cost` units asked of one policy at one partition key: all that a store knows."""

    # A tuple like the service limit that answers it: several of both are made for each request, and a frozen
    # dataclass takes four times as long to make.

    terms: Terms
    key: str
    cost: int = 1


class ServiceLimit(NamedTuple):
    """What one policy has left after a check.

    `limit` and `remaining` are units, `remaining` against the nominal limit; `window` and `retry_after` are seconds,
    `reset_at` epoch seconds by this process's clock. `retry_after` is 0.0 unless this limit refused, infinite where
    the cost can never be admitted. `reset_after` is the wait until `reset_at`, in seconds. `exhausted` says that not even one more unit, burst included, would be admitted
    now; `cost` is what was asked of it. `code` and `detail` are the policy's own words for a problem.
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
    code: str | None = None
    detail: str | None = None

    @property
    def is_capacity(self) -> bool:
        """Whether this is the capacity of the whole service, whose refusals tell no numbers."""
        return self.scope == GLOBAL


def service_limit(charge: Charge, remaining: int, reset: int, wait: int, now: int) -> ServiceLimit:
    """Render a store's three integers for `charge` at `now` (epoch microseconds).

    `reset` and `wait` are durations in milliseconds. `wait` is above zero where the charge was refused (`NEVER`: for
    good), and below zero where it was admitted and the next unit comes free after −`wait`.
    """
    terms = charge.terms
    return ServiceLimit(
        terms.policy,
        terms.kind,
        terms.scope,
        terms.limit,
        remaining,
        terms.window,
        (now + reset * 1000) / 1e6,
        0.0 if wait <= 0 else math.inf if wait == NEVER else wait / 1000,
        terms.shadow,
        wait != 0 and remaining == 0,
        charge.cost,
        reset / 1000,
        terms.code,
        terms.detail,
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """Say whether a request goes on, and by which service limits.

    `status` is 200, 429, 403 or 503; `retry_after` is in seconds, 0.0 when allowed and infinite where waiting cannot
    help. `violated` are the limits that refused, `binding` the one that speaks in the headers (`None`: no limit
    applies). `degraded` says that the store did not answer and the policies' failure modes decided.
    """

    allowed: bool
    status: int = 200
    retry_after: float = 0.0
    limits: tuple[ServiceLimit, ...] = ()
    violated: tuple[ServiceLimit, ...] = ()
    binding: ServiceLimit | None = None
    degraded: bool = False

    @classmethod
    def of(cls, limits: Sequence[ServiceLimit], *, degraded: bool = False) -> Self:
        """Fold service limits, in the order in which their policies were declared, into the decision."""
        violated = tuple([limit for limit in limits if limit.retry_after and not limit.shadow])
        if not violated:
            return cls(True, 200, 0.0, tuple(limits), (), _tightest(limits), degraded)
        binding = max(violated, key=lambda limit: limit.retry_after)
        status = 403 if binding.kind == "quota" else 429
        return cls(False, status, binding.retry_after, tuple(limits), violated, binding, degraded)

    @classmethod
    def unavailable(cls, retry_after: float = 1.0) -> Self:
        """Refuse because the store is away and a policy says `deny`."""
        return cls(False, 503, retry_after, degraded=True)


def _tightest(limits: Iterable[ServiceLimit]) -> ServiceLimit | None:
    """Return the limit with the fewest requests left, an exhausted one before one that has burst left."""
    tightest, fewest = None, (math.inf, True)
    for limit in limits:
        left = (limit.remaining // limit.cost, not limit.exhausted)
        if limit.kind == "limit" and not limit.shadow and left < fewest:
            tightest, fewest = limit, left
    return tightest
