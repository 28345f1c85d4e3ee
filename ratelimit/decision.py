"""What comes back from a store: what each policy has left, and the decision that they make together."""

import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, Self

from ratelimit.charge import GLOBAL, NEVER, Charge, Kind
from ratelimit.errors import ConfigurationError
from ratelimit.periods import Period
from ratelimit.rate import MAX_LIMIT

Triple = tuple[int, int, int]
"""What a store tells of one charge: remaining units, and in milliseconds reset and wait."""

Told = tuple[Sequence[Charge], Sequence[Triple], int]
"""What a store was asked and what it told, and when (epoch microseconds)."""

DRAINING: Final = 1000
"""The wait, in milliseconds, for a level that others bring down, at a moment that nobody knows."""


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
        reset = self.reset_after - seconds
        reset = reset if reset > 0 else 0.0
        return tuple.__new__(ServiceLimit, (*self[:7], wait, *self[8:11], reset, *self[12:]))

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


def service_limits(charges: Sequence[Charge], numbers: Sequence[Triple], now: int) -> list[ServiceLimit]:
    """Render what a store told of each charge at `now` (epoch microseconds)."""
    return [service_limit(charge, *told, now) for charge, told in zip(charges, numbers, strict=True)]


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


class _Unknown:
    """Says that something was not worked out yet."""


_UNKNOWN: Final = _Unknown()


class Decision:
    """Say whether a request goes on, and by which service limits.

    `status` is 200, 429, 403 or 503; `retry_after` is in seconds, 0.0 when allowed and infinite where waiting cannot
    help. `limits` are what all policies have left, `violated` those that refused, `binding` the one that speaks in the
    headers (`None`: no limit applies). `degraded` says that the store did not answer and the policies' failure modes
    decided. `receipts` are what it took from the stores. A value: nobody changes one.
    """

    # Most requests are admitted, and of them nobody asks for more than the binding limit: the others are rendered
    # when they are asked for.
    __slots__ = ("_binding", "_limits", "_told", "allowed", "degraded", "receipts", "retry_after", "status", "violated")

    def __init__(  # noqa: PLR0917
        self,
        allowed: bool,  # noqa: FBT001 - `Decision(True)` reads as what it is
        status: int = 200,
        retry_after: float = 0.0,
        limits: Sequence[ServiceLimit] = (),
        violated: tuple[ServiceLimit, ...] = (),
        binding: ServiceLimit | None = None,
        degraded: bool = False,  # noqa: FBT001, FBT002
        receipts: tuple[Receipt, ...] = (),
    ) -> None:
        self.allowed, self.status, self.retry_after = allowed, status, retry_after
        self.violated, self.degraded, self.receipts = violated, degraded, receipts
        self._told: Told | None = None
        self._limits: tuple[ServiceLimit, ...] | None = tuple(limits)
        self._binding: ServiceLimit | _Unknown | None = binding

    @classmethod
    def of(cls, limits: Sequence[ServiceLimit], *, degraded: bool = False, receipts: tuple[Receipt, ...] = ()) -> Self:
        """Fold service limits, in the order in which their policies were declared, into the decision."""
        violated = tuple([limit for limit in limits if limit.retry_after and not limit.shadow])
        if not violated:
            return cls(True, 200, 0.0, limits, (), _tightest(limits), degraded, receipts)
        binding = violated[0] if len(violated) == 1 else max(violated, key=lambda limit: limit.retry_after)
        # What is refused has taken nothing, and there is nothing to settle.
        return cls(False, binding.status, binding.retry_after, limits, violated, binding, degraded)

    @classmethod
    def told(cls, charges: Sequence[Charge], numbers: Sequence[Triple], now: int, *, degraded: bool = False) -> Self:
        """Return the decision of a store that told `numbers` of `charges` at `now`, as `service_limit` reads them."""
        for _, _, wait in numbers:
            if wait > 0:
                return cls.of(service_limits(charges, numbers, now), degraded=degraded)
        decision = cls(True, degraded=degraded)
        decision._told, decision._limits, decision._binding = (charges, numbers, now), None, _UNKNOWN
        return decision

    @property
    def limits(self) -> tuple[ServiceLimit, ...]:
        """What every policy that applies has left, in the order in which they were declared."""
        if self._limits is None:
            self._limits = tuple(service_limits(*self._told)) if self._told else ()
        return self._limits

    @property
    def binding(self) -> ServiceLimit | None:
        """The limit that speaks in the headers: of those that refused the longest, else the tightest."""
        if isinstance(self._binding, _Unknown):
            self._binding = _tightest_told(*self._told) if self._told else None
        return self._binding

    @property
    def refused_in_shadow(self) -> Sequence[ServiceLimit]:
        """The limits that would have refused, if they were not shadows."""
        return () if self._told else [limit for limit in self.limits if limit.shadow and limit.retry_after]

    def __eq__(self, other: object) -> bool:
        return self._said == other._said if isinstance(other, Decision) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._said)

    def __repr__(self) -> str:
        return f"Decision(allowed={self.allowed}, status={self.status}, retry_after={self.retry_after}, limits={self.limits})"

    @property
    def _said(self) -> tuple[object, ...]:
        return self.allowed, self.status, self.retry_after, self.limits, self.violated, self.binding, self.degraded

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
    tightest, fewest = None, 0
    for limit in limits:
        if limit.kind == "limit" and not limit.shadow:
            left = limit.remaining // (limit.cost or 1) + (_PLENTY if limit.scope == GLOBAL else 0)
            # A tie goes to the first, unless only a later one is exhausted.
            if tightest is None or left < fewest or (left == fewest and limit.exhausted and not tightest.exhausted):
                tightest, fewest = limit, left
    return tightest


def _tightest_told(charges: Sequence[Charge], numbers: Sequence[Triple], now: int) -> ServiceLimit | None:
    """Do as `_tightest`, and render none but that: most requests end here."""
    tightest, fewest, spent = None, 0, False
    for pair in zip(charges, numbers, strict=True):
        (terms, _, cost), (remaining, _, wait) = pair
        if terms.speaks:
            left = remaining // (cost or 1) + (_PLENTY if terms.scope == GLOBAL else 0)
            exhausted = not remaining and wait != 0
            if tightest is None or left < fewest or (left == fewest and exhausted and not spent):
                tightest, fewest, spent = pair, left, exhausted
    return None if tightest is None else service_limit(tightest[0], *tightest[1], now)


_PLENTY: Final = 2**54
"""More requests than any limit has left."""
