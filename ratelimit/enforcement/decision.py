"""Decisions: whether a request goes on, and by which limits."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, Self

from ratelimit._utils.validation import is_int_between
from ratelimit.enforcement.settlement import CorrectionTarget, Settlement
from ratelimit.errors import ConfigurationError
from ratelimit.model.charge import Charge
from ratelimit.model.kinds import GLOBAL
from ratelimit.model.rate import MAX_LIMIT
from ratelimit.model.service_limit import Reading, ServiceLimit, service_limit, service_limits
from ratelimit.stores.messages import StoreReply, StoreRequest

_Unrendered = tuple[Sequence[Charge], Sequence[Reading], int]
"""The charges, the store's readings of them, and when they were read (epoch microseconds)."""

Settling = tuple[CorrectionTarget, StoreRequest, StoreReply]
"""What a settlement is made of: most decisions are never settled."""

_LAST: Final = 2**54
"""More requests than any limit has left: added to a limit that comes after all others."""


class Decision:
    """Whether a request goes on, and by which service limits.

    `status` is 200, 429, 403 or 503. `retry_after` is in seconds: 0.0 when allowed, infinite where waiting does not help.
    `limits` are the service limits of all policies that apply, in the order in which they were declared, `violated`
    those that refused, and `binding` the one that the headers report (`None`: no limit applies). `degraded` says that
    the store did not answer and the policies' failure modes decided. `granted` is how many requests `check(at_most=True)`
    was given, else `None`. `is_blocked` says that the caller is blocked, whatever its limits. `source`
    says what decided: the store, a cached rejection, prefetched units, or this worker alone. `unrendered` holds the charges,
    the store's readings and their instant, where all of them were admitted and nothing was rendered before. `settlements` are what each
    limiter has charged, to be settled and released. A value: treat it as immutable.
    """

    # Most requests are admitted, and of them only the binding limit is needed: `limits` is rendered when it is read.
    __slots__ = (
        "_binding",
        "_limits",
        "_settlements",
        "_settling",
        "allowed",
        "degraded",
        "granted",
        "is_blocked",
        "retry_after",
        "source",
        "status",
        "unrendered",
        "violated",
    )

    def __init__(  # noqa: PLR0917
        self,
        allowed: bool,  # noqa: FBT001 - `Decision(True)` reads well
        status: int = 200,
        retry_after: float = 0.0,
        limits: Sequence[ServiceLimit] = (),
        violated: tuple[ServiceLimit, ...] = (),
        binding: ServiceLimit | None = None,
        degraded: bool = False,  # noqa: FBT001, FBT002
        settlements: tuple[Settlement, ...] = (),
        _unrendered: _Unrendered | None = None,
    ) -> None:
        self.allowed, self.status, self.retry_after = allowed, status, retry_after
        self.violated, self.degraded, self._settlements = violated, degraded, settlements
        self._settling: Settling | None = None
        self.granted: int | None = None
        self.is_blocked = False
        self.source: Literal["store", "cache", "prefetch", "local"] = "local" if degraded else "store"
        self.unrendered, self._limits, self._binding = _unrendered, tuple(limits), binding

    @classmethod
    def from_limits(
        cls,
        limits: Sequence[ServiceLimit],
        *,
        degraded: bool = False,
        settlements: tuple[Settlement, ...] = (),
    ) -> Self:
        """Fold service limits, in the order in which their policies were declared, into the decision."""
        violated = tuple([limit for limit in limits if limit.retry_after and not limit.shadow])
        if not violated:
            return cls(True, 200, 0.0, limits, (), _tightest(limits), degraded, settlements)
        binding = violated[0] if len(violated) == 1 else max(violated, key=lambda limit: limit.retry_after)
        # A refused request has charged nothing, so there is nothing to settle.
        return cls(False, binding.status, binding.retry_after, limits, violated, binding, degraded)

    @classmethod
    def from_readings(
        cls,
        charges: Sequence[Charge],
        readings: Sequence[Reading],
        now: int,
        *,
        degraded: bool = False,
        settling: Settling | None = None,
    ) -> Self:
        """Return the decision of a store whose readings of `charges` were made at `now` (epoch microseconds).

        `settling` is what its settlement is made of.
        """
        for _, _, wait_ms in readings:
            if wait_ms > 0:
                decision = cls.from_limits(service_limits(charges, readings, now), degraded=degraded)
                break
        else:
            decision = cls(True, 200, 0.0, (), (), None, degraded, (), (charges, readings, now))
        if decision.allowed:  # A refused request has charged nothing.
            decision._settling = settling
        return decision

    @classmethod
    def unavailable(cls, retry_after: float = 1.0) -> Self:
        """Refuse because the store is unavailable and a policy says `deny`."""
        return cls(False, 503, retry_after, degraded=True)

    @classmethod
    def blocked(cls, seconds: float = math.inf) -> Self:
        """Refuse because the caller is blocked, for so many seconds more."""
        decision = cls(False, 403, seconds)
        decision.is_blocked = True
        return decision

    @classmethod
    def cached(cls, rejected: Sequence[ServiceLimit]) -> Self:
        """Refuse by what the store has said a moment ago."""
        decision = cls.from_limits(rejected)
        decision.source = "cache"
        return decision

    @property
    def settlements(self) -> tuple[Settlement, ...]:
        """What each limiter has charged, to be settled and released."""
        settling = self._settling
        if settling is not None:
            with settling[0].lock:  # Several threads may be the first to ask.
                if self._settling is not None:
                    self._settlements, self._settling = (Settlement(*settling),), None
        return self._settlements

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """The settlements that have recorded something which the store does not know yet."""
        return [each for each in self._settlements if each.has_unsettled]

    @property
    def limits(self) -> tuple[ServiceLimit, ...]:
        """The service limits of all policies that apply, in the order in which they were declared."""
        if self.unrendered is not None and not self._limits:
            charges, readings, now = self.unrendered
            self._limits = tuple(service_limits(charges, readings, now))
        return self._limits

    @property
    def binding(self) -> ServiceLimit | None:
        """The limit that the headers report: of those that refused the one with the longest wait, else the tightest."""
        if self.unrendered is not None and self._binding is None:
            charges, readings, now = self.unrendered
            self._binding = _tightest_reading(charges, readings, now)
        return self._binding

    @property
    def refused_in_shadow(self) -> Sequence[ServiceLimit]:
        """The shadow limits that would have refused."""
        return () if self.unrendered else [limit for limit in self.limits if limit.shadow and limit.retry_after]

    def spend(self, costs: Mapping[str, int]) -> None:
        """Record units that the request has really used, by unit or policy (`{"tokens": 12}`), adding up.

        The sum replaces what was reserved when the request ends, whether it was served, failed or cut off. Any thread
        may call this; it does not wait. An amount that is not an integer ≥ 0, or a name that is neither a unit nor a
        policy of the settings, raises `ConfigurationError` and records nothing.
        """
        self._check(costs)
        for settlement in self.settlements:
            settlement.record(costs)

    async def settle(self, costs: Mapping[str, int]) -> None:
        """Change what this decision charged to the actual cost, by unit or policy (`{"tokens": 812}`).

        One step for all policies of that name or unit, in the windows and periods that were charged; units above their
        limit are counted all the same. The numbers are totals: repeating them changes nothing, later ones correct
        earlier ones. The change is made even where the caller is cancelled meanwhile, and never fails because of a
        store. Policies that did not apply to this caller are skipped; errors are those of `spend`.
        """
        self._check(costs)
        for settled in [settlement.settle(costs) for settlement in self.settlements]:
            await settled

    async def release(self) -> None:
        """Release the permits and settle what was recorded; repeating it has no effect; never fails."""
        for released in [settlement.release() for settlement in self.settlements]:
            await released

    def void(self) -> None:
        """Give everything back, for a caller that does not get to know the decision."""
        for settlement in self.settlements:
            settlement.void()

    def _check(self, costs: Mapping[str, object]) -> None:
        known = set[str]().union(*(settlement.settleable for settlement in self.settlements))
        for name, amount in costs.items():
            if not is_int_between(amount, 0, MAX_LIMIT):
                raise ConfigurationError(
                    f"{name}: must be an integer between 0 and {MAX_LIMIT}, got {amount!r} [RL301]"
                )
            if self.settlements and name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise ConfigurationError(f"{name}: is not a policy or unit of the settings; these are {names} [RL312]")

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Decision) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"Decision(allowed={self.allowed}, status={self.status}, retry_after={self.retry_after}, limits={self.limits})"

    @property
    def _values(self) -> tuple[object, ...]:
        return (
            self.allowed,
            self.status,
            self.retry_after,
            self.limits,
            self.violated,
            self.binding,
            self.degraded,
            self.is_blocked,
        )


def _tightest(limits: Iterable[ServiceLimit]) -> ServiceLimit | None:
    """Return the limit with the fewest requests left; of equals an exhausted one, before one that has burst left.

    The capacity of the service, whose numbers are private, counts only where there is no other limit.
    """
    tightest, fewest = None, 0
    for limit in limits:
        if limit.kind == "limit" and not limit.shadow:
            left = limit.remaining // (limit.cost or 1) + (_LAST if limit.scope == GLOBAL else 0)
            # A tie goes to the first, unless only a later one is exhausted.
            if tightest is None or left < fewest or (left == fewest and limit.exhausted and not tightest.exhausted):
                tightest, fewest = limit, left
    return tightest


def _tightest_reading(charges: Sequence[Charge], readings: Sequence[Reading], now: int) -> ServiceLimit | None:
    """Do as `_tightest`, and render only that limit: most requests end here."""
    tightest, fewest, exhausted = None, 0, False
    for pair in zip(charges, readings, strict=True):
        (limit, _, cost), (remaining, _, wait_ms) = pair
        if limit.is_advertised:
            left = remaining // (cost or 1) + (_LAST if limit.scope == GLOBAL else 0)
            is_exhausted = not remaining and wait_ms != 0
            if tightest is None or left < fewest or (left == fewest and is_exhausted and not exhausted):
                tightest, fewest, exhausted = pair, left, is_exhausted
    if tightest is None:
        return None
    charge, (remaining, reset_ms, wait_ms) = tightest
    return service_limit(charge, remaining, reset_ms, wait_ms, now)
