"""What is asked of a store, and what comes back."""

import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, Self

from ratelimit.errors import ConfigurationError
from ratelimit.periods import Period
from ratelimit.rate import MAX_LIMIT

Kind = Literal["limit", "quota", "concurrency"]

NEVER: Final = 2**53 - 1
"""The wait, in milliseconds, of a cost that can never be admitted: the largest integer that Lua holds exactly."""

DRAINING: Final = 1000
"""The wait, in milliseconds, for a level that others bring down, at a moment that nobody knows."""

GLOBAL: Final = "global"
"""The scope of a policy that has one counter for everybody."""

MAX_SLOTS: Final = 64
"""Into how many slots a window is cut."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Terms:
    """The numbers and words of one policy for one kind of caller: made once, shared by every charge under them.

    `limit`, `allowance` (the burst) and `ceiling` (their sum) are units; `cap` is how far this caller may fill the
    policy, `usable` what it is told as its limit. `window` is in seconds (0: levels and slots). `slot` and `span` are
    milliseconds, `span` being the whole slots that cover the window; `lease` is how many of them a slot is held
    without renewal, and `ahead` how many units a worker may take at once. Compared by identity, so that a batch names each only once.
    """

    kind: Kind
    policy: str
    scope: str
    limit: int
    window: int = 0
    allowance: int = 0
    share: int | None = None
    shadow: bool = False
    on_store_failure: str = "local"
    code: str | None = None
    detail: str | None = None
    status: int = 429
    unit: str = "requests"
    period: Period | None = None
    lease: int = 0
    ahead: int = 0
    hold: str = "response"
    refund_on: tuple[int, ...] = ()
    ceiling: int = field(init=False)
    cap: int = field(init=False)
    usable: int = field(init=False)
    slot: int = field(init=False)
    span: int = field(init=False)
    head: tuple[str, Kind, str, int] = field(init=False, repr=False)
    tail: tuple[str | None, str | None, int, str, Period | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        window, ceiling = self.window * 1000, self.limit + self.allowance
        slot = 1 if ceiling <= MAX_SLOTS else max(1, -(-window // MAX_SLOTS))
        cap = ceiling if self.share is None else min(self.share, ceiling)
        for name, value in (
            ("ceiling", ceiling),
            ("cap", cap),
            ("usable", min(self.limit, cap)),
            ("slot", slot),
            ("span", -(-window // slot) * slot),
            # What a service limit under these terms begins and ends with.
            ("head", (self.policy, self.kind, self.scope, min(self.limit, cap))),
            ("tail", (self.code, self.detail, self.status, self.unit, self.period)),
        ):
            object.__setattr__(self, name, value)


class Charge(NamedTuple):
    """One debit of `cost` units asked of one policy at one partition key: all that a store knows.

    Below zero it is a credit, where one is asked for. A holder takes one slot of a concurrency limit, whatever it costs.
    """

    # A tuple like the service limit that answers it: several of both are made for each request, and a frozen
    # dataclass takes four times as long to make.

    terms: Terms
    key: str
    cost: int = 1


class ServiceLimit(NamedTuple):
    """What one policy has left after a check.

    `limit` and `remaining` are units, `remaining` against the nominal limit; `window` and `retry_after` are seconds,
    `reset_at` epoch seconds by this process's clock. `retry_after` is 0.0 unless this limit refused, infinite where
    the cost can never be admitted, or nobody can tell when. `window` is 0 for levels and concurrency, and nominal for
    months and years. `reset_after` is the wait until `reset_at`, in seconds. `exhausted` says that not even one more
    unit, burst included, would be admitted now; `cost` is what was asked of it. `code` and `detail` are the policy's
    own words for a problem, and `status` its status. `unit` is what is counted, `period` the name of a calendar period.
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
    status: int = 429
    unit: str = "requests"
    period: Period | None = None

    @property
    def head(self) -> tuple[object, ...]:
        """What depends on the policy and who asks alone, before the numbers of the moment."""
        return self[:4]

    @property
    def tail(self) -> tuple[object, ...]:
        """What depends on the policy alone, behind them."""
        return self[12:]

    def later(self, seconds: float) -> "ServiceLimit":
        """Return this as it stands so many seconds later, if nobody spends."""
        wait = self.retry_after - seconds if self.retry_after else 0.0
        # As in `service_limit`, several times faster than naming the fields.
        return tuple.__new__(
            ServiceLimit, (*self[:7], wait, *self[8:11], max(0.0, self.reset_after - seconds), *self[12:])
        )

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
    if wait == NEVER and terms.kind == "quota" and terms.status != 403 and charge.cost <= terms.cap:
        reset = wait = DRAINING
    retry_after = 0.0 if wait <= 0 else math.inf if wait == NEVER else wait / 1000
    exhausted = wait != 0 and remaining == 0
    numbers = remaining, terms.window, (now + reset * 1000) / 1e6, retry_after
    # Several are made for each request; this way takes half the time of naming the fields.
    fields = (*terms.head, *numbers, terms.shadow, exhausted, charge.cost, reset / 1000, *terms.tail)
    return tuple.__new__(ServiceLimit, fields)


class Receipt(Protocol):
    """What a decision has taken from a store, and how it is kept, settled and given back.

    What is awaited here has begun when the call returns, goes on if who waits is cancelled, and never fails.
    """

    @property
    def countable(self) -> set[str]:
        """The policies and units of the settings that may be spent and settled."""

    @property
    def unsettled(self) -> bool:
        """Whether something was noted that the store does not know yet."""

    def spend(self, costs: Mapping[str, int]) -> None:
        """Note what was spent so far, in addition to what was noted before."""

    def settle(self, costs: Mapping[str, int]) -> Awaitable[None]:
        """Make the charges of these policies and units what was really spent, in one step."""

    def refund(self, status: int) -> Awaitable[None]:
        """Give back the charges whose policies ask for it where the app answers with `status`."""

    def keep(self) -> None:
        """Renew the leases of the slots from now on, until they are given back."""

    def finish(self, hold: str | None = None) -> Awaitable[None]:
        """Give back the slots (only those of `hold`), and settle what was noted, in one step."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Say whether a request goes on, and by which service limits.

    `status` is 200, 429, 403 or 503; `retry_after` is in seconds, 0.0 when allowed and infinite where waiting cannot
    help. `violated` are the limits that refused, `binding` the one that speaks in the headers (`None`: no limit
    applies). `degraded` says that the store did not answer and the policies' failure modes decided. `receipts` are
    what it took from the stores.
    """

    allowed: bool
    status: int = 200
    retry_after: float = 0.0
    limits: tuple[ServiceLimit, ...] = ()
    violated: tuple[ServiceLimit, ...] = ()
    binding: ServiceLimit | None = None
    degraded: bool = False
    receipts: tuple[Receipt, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, limits: Sequence[ServiceLimit], *, degraded: bool = False, receipts: tuple[Receipt, ...] = ()) -> Self:
        """Fold service limits, in the order in which their policies were declared, into the decision."""
        violated = tuple([limit for limit in limits if limit.retry_after and not limit.shadow])
        if not violated:
            return cls(True, 200, 0.0, tuple(limits), (), _tightest(limits), degraded, receipts)
        binding = violated[0] if len(violated) == 1 else max(violated, key=lambda limit: limit.retry_after)
        # What is refused has taken nothing, and there is nothing to settle.
        return cls(False, binding.status, binding.retry_after, tuple(limits), violated, binding, degraded)

    def spend(self, costs: Mapping[str, int]) -> None:
        """Note units that the request has really used, by unit or policy (`{"tokens": 12}`), adding up.

        The sum takes the place of what was reserved when the request ends, however it ends: served, failed or cut
        off. Callable from any thread; does not wait. An amount that is no integer ≥ 0, or a name that is neither a
        unit nor a policy of the settings, raises `ConfigurationError` and notes nothing.
        """
        self._check(costs)
        for receipt in self.receipts:
            receipt.spend(costs)

    async def settle(self, costs: Mapping[str, int]) -> None:
        """Make what this decision charged the actual cost, by unit or policy (`{"tokens": 812}`).

        One step for all policies of that name or unit, in the windows and periods that were charged; what exceeds
        their limit is counted all the same. The numbers are totals: saying them twice changes nothing, saying others
        later corrects them. It is done even where the caller is cancelled meanwhile, and never fails because of a
        store. Policies that did not apply to this caller are passed over; errors are those of `spend`.
        """
        self._check(costs)
        for settled in [receipt.settle(costs) for receipt in self.receipts]:
            await settled

    def _check(self, costs: Mapping[str, object]) -> None:
        known = set[str]().union(*(receipt.countable for receipt in self.receipts))
        for name, amount in costs.items():
            if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MAX_LIMIT:
                raise ConfigurationError(f"{name}: must be an integer between 0 and {MAX_LIMIT}, got {amount!r}")
            if self.receipts and name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise ConfigurationError(f"{name}: is neither a policy nor a unit that is counted; known are {names}")

    @classmethod
    def unavailable(cls, retry_after: float = 1.0) -> Self:
        """Refuse because the store is away and a policy says `deny`."""
        return cls(False, 503, retry_after, degraded=True)


def _tightest(limits: Iterable[ServiceLimit]) -> ServiceLimit | None:
    """Return the limit with the fewest requests left, an exhausted one before one that has burst left.

    The capacity of the service, whose numbers are nobody's business, speaks only where there is no other.
    """
    tightest, fewest = None, _PLENTY
    for limit in limits:
        if limit.kind == "limit" and not limit.shadow:
            left = limit.remaining // (limit.cost or 1) + (_PLENTY if limit.scope == GLOBAL else 0)
            # A tie goes to the first, unless only a later one is exhausted.
            closer = left < fewest or (left == fewest and limit.exhausted and not (tightest and tightest.exhausted))
            if closer or tightest is None:
                tightest, fewest = limit, left
    return tightest


_PLENTY: Final = 2**54
"""More requests than any limit has left."""
