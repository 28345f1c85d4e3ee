"""Compiled policies: which rate of a policy holds for a caller, and what a request is charged under it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import starmap
from typing import Any, Final, Literal

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.fields import share_of
from ratelimit.config.policies import Concurrency, Limit, Policy, Quota
from ratelimit.model.calendar_period import NOMINAL
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import (
    EffectiveConcurrency,
    EffectiveLimit,
    EffectiveQuota,
    EffectiveRate,
    OtherWindow,
)
from ratelimit.model.identity import Identity
from ratelimit.model.kinds import GLOBAL, NEVER
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate
from ratelimit.resolver.counted_periods import CountedPeriod, CountedPeriods
from ratelimit.resolver.keys import KeyBuilder, escape

RateOrCount = Rate | int
"""How much a policy admits: a rate for limits, a number for quotas and concurrency."""

SHARED_KEY: Final = "*"
"""The value that names the one counter of a policy without dimensions."""

EVERYBODY: Final = "=all"
"""Names the override of all callers; no counter's name has a `=`."""

MAX_EFFECTIVE_LIMITS: Final = 4096
"""Effective limits that are kept for each policy: granted rates may be as many as tokens."""

RateSource = Literal["grant", "override", "schedule", "plan", "rate"]
"""Where a rate comes from."""

Mode = Literal["enforced", "shadow", "paused"]
"""Whether a policy refuses, only reports, or does not count at all."""

_LimitKey = tuple[RateOrCount, float | None, int, tuple[CountedPeriod, ...]]
"""A rate or number, a share, until when (ms) its period is new, and the other periods in which it is counted."""

_MINUTE_US: Final = 60_000_000
_ATTRIBUTES: Final = ("token", "org", "ip", "plan")
_KEY_PERIODS: Final = {"quota": "level", "concurrency": "slots"}


class CompiledPolicy:
    """One policy with everything precomputed that depends neither on the caller nor on the endpoint.

    `overrides` holds the overrides of this policy by counter name, and `periods` those of its rates; the owner changes them while this is in use.
    `mode` says whether it refuses, `has_dynamic_cost` says that a function of the request tells its cost, `turns_over` that time alone gives back units,
    `is_of_a_caller` that not all callers, or all of a plan, share its counters.
    """

    def __init__(
        self, policy: Policy, keys: KeyBuilder, overrides: Mapping[str, Override], periods: CountedPeriods
    ) -> None:
        self.policy, self._periods = policy, periods
        if isinstance(policy, Limit):
            periods.declare(policy)
        self.per = policy.per if policy.key is None else (*policy.per, policy.name)
        if policy.key is not None:  # It may be a credential.
            keys.hashed_dimensions.add(policy.name)
        self.has_dynamic_cost = callable(policy.cost)
        self._cost = policy.cost if isinstance(policy.cost, int) else 1
        self._takes_units = policy.kind != "concurrency"
        self._key_head, self._tagged = f"{keys.prefix}:{{", keys.tagged
        # All keys of an organization live in one hash slot of a Cluster. A token belongs to one organization, so its
        # counters may live there too. An address or an endpoint is shared by many, and has one counter for all of them.
        self._by_org = "org" in self.per or "token" in self.per
        self.is_of_a_caller = bool({*self.per} - {"endpoint", "method", "plan"})
        self.turns_over = policy.kind == "limit" or (isinstance(policy, Quota) and policy.period is not None)
        self._overrides = overrides
        self._is_uniform = not (policy.by_plan or policy.shares or policy.schedule)
        self._scheduled_minute, self._scheduled = -1, None if policy.schedule else policy.amount
        self._limits: BoundedCache[_LimitKey, tuple[EffectiveLimit, str]]
        self._limits = BoundedCache(MAX_EFFECTIVE_LIMITS)
        self.mode: Mode = "enforced"
        self._usual: tuple[EffectiveLimit, str] | None = self._limit_of(policy.amount, None)

    def set_mode(self, mode: Mode) -> None:
        """Refuse, only report, or count nothing from now on; charges that were made before stay as they are."""
        self.mode = mode
        self._limits.clear()
        self._usual = None if mode == "paused" else self._limit_of(self.policy.amount, None)

    @property
    def dimensions(self) -> set[str]:
        """The dimensions whose values `charge` needs."""
        return {*self.per, "org"} if self._by_org else set(self.per)

    @property
    def effective_limit_count(self) -> int:
        """The number of effective limits that are kept."""
        return len(self._limits)

    def rate_for(self, identity: Identity, counter: str, now: int) -> RateOrCount | None:
        """Return the rate or number that holds for a caller at `now` (epoch µs); `None`: no limit.

        The first that there is: the grant of the caller's token, an override (of this counter, of the caller's plan, of
        all callers), the schedule, the caller's plan, the policy's own rate.
        """
        return next(self.rate_chain(identity, counter, now))[1]

    def rate_chain(self, identity: Identity, counter: str, now: int) -> Iterator[tuple[RateSource, RateOrCount | None]]:
        """Yield what each source of a rate says of a caller at `now` (epoch µs), the one that holds first.

        `None`: no limit. A source that says nothing is left out; the policy's own rate is always the last.
        """
        policy = self.policy
        if (granted := identity.granted(policy.name)) is not None:
            yield "grant", self.coerce_rate(granted)
        if self._overrides and (override := self._override_for(identity, counter, now)) is not None:
            yield "override", None if override.rate is None else self.coerce_rate(override.rate)
        if policy.schedule and (scheduled := self._scheduled_rate(now)) is not None:
            yield "schedule", scheduled
        if identity.plan is not None and identity.plan in policy.by_plan:
            yield "plan", policy.by_plan[identity.plan]
        yield "rate", policy.amount

    def charge(
        self, identity: Identity, cost: int, values: Mapping[str, str], now: int, dynamic_costs: Mapping[str, int]
    ) -> Charge | None:
        """Return what this policy charges `identity` at `now` (epoch µs), or `None` where it does not apply.

        `values` are those of all `dimensions`, ready for keys, and empty where unknown. `dynamic_costs` are the
        results of cost functions for this request, by policy.
        """
        counter = self.counter_name(values)
        if not counter:
            return None
        usual = self._is_uniform and not self._overrides and not identity.rates and not self._periods.has_several
        found = self._usual if usual else self._limit_for(identity, counter, now)
        if found is None:
            return None
        limit, key_middle = found
        if self.has_dynamic_cost:
            cost *= dynamic_costs.get(self.policy.name, 1)
        cost = min(NEVER, cost * self._cost) if self._takes_units else 1
        return Charge(limit, f"{self._key_head}{self._partition(values)}{key_middle}{counter}", cost)

    def effective_limit(self, amount: RateOrCount) -> EffectiveLimit:
        """Return this policy as it holds with a rate or number."""
        return self._limit_of(amount, None)[0]

    def any_charge(self, identity: Identity, values: Mapping[str, str], now: int) -> Charge | None:
        """Return a charge of one unit, also where the policy is paused or unlimited now; `None` where a dimension is missing."""
        counter = self.counter_name(values)
        if not counter:
            return None
        limit, middle = self._limit_for(identity, counter, now) or self._limit_of(self.policy.amount, None)
        return Charge(limit, f"{self._key_head}{self._partition(values)}{middle}{counter}", 1)

    def keys(self, identity: Identity, values: Mapping[str, str]) -> list[str]:
        """Return the keys of an identity's counter, one for each period that its rate may have, the longest first."""
        counter, policy = self.counter_name(values), self.policy
        if not counter:
            return []
        granted = identity.granted(policy.name)
        rates = [
            policy.amount,
            *self._periods.rates(counter),
            *(() if granted is None else (self.coerce_rate(granted),)),
        ]
        windows = {middle: limit.window for limit, middle in (self._limit_of(rate, None) for rate in rates)}
        middles = sorted(windows, key=windows.__getitem__, reverse=True)
        return [f"{self._key_head}{self._partition(values)}{middle}{counter}" for middle in middles]

    def counter_name(self, values: Mapping[str, str]) -> str:
        """Return the values of this policy's dimensions as keys hold them; empty where one is unknown."""
        per = self.per
        if len(per) == 1:
            return values[per[0]]
        several = [values[dimension] for dimension in per]
        return "" if "" in several else ":".join(several) or SHARED_KEY

    def _partition(self, values: Mapping[str, str]) -> str:
        own = (values["org"] if self._by_org else "") or (values[self.per[0]] if self.per else SHARED_KEY)
        return self._tagged(own)

    def coerce_rate(self, amount: RateOrCount) -> RateOrCount:
        """Return a rate or number in this policy's terms: for a limit, a number is a rate in the policy's own period."""
        if isinstance(self.policy, Limit):
            return amount if isinstance(amount, Rate) else Rate(amount, self.policy.rate.period)
        return amount.limit if isinstance(amount, Rate) else amount

    def _override_for(self, identity: Identity, counter: str, now: int) -> Override | None:
        """Return the override that holds: that of this counter, else of the caller's plan, else of all callers."""
        plan = () if identity.plan is None else (plan_counter(identity.plan),)
        found = (self._overrides.get(name) for name in (counter, *plan, EVERYBODY))
        return next((each for each in found if each is not None and not each.is_over(now)), None)

    def _limit_for(self, identity: Identity, counter: str, now: int) -> tuple[EffectiveLimit, str] | None:
        amount = None if self.mode == "paused" else self.rate_for(identity, counter, now)
        if amount is None:
            return None
        share = self.policy.shares.get(identity.priority) if identity.priority is not None else None
        counted: tuple[int, tuple[CountedPeriod, ...]] = (0, ())
        if isinstance(amount, Rate):
            counted = self._periods.counted(counter, amount, identity)
        return self._limits.get((amount, share, *counted)) or self._limit_of(amount, share, *counted)

    def _scheduled_rate(self, now: int) -> RateOrCount | None:
        """Return what the schedule says; hours begin on the minute, so it is computed once a minute."""
        if now // _MINUTE_US != self._scheduled_minute:
            holding = (hours.amount for hours in self.policy.schedule if hours.contains(now))
            self._scheduled_minute, self._scheduled = now // _MINUTE_US, next(holding, None)
        return self._scheduled

    def _limit_of(
        self, amount: RateOrCount, share: float | None, new_until_ms: int = 0, others: tuple[CountedPeriod, ...] = ()
    ) -> tuple[EffectiveLimit, str]:
        limit = _effective_limit(self.policy, amount, share, shadow=self.policy.shadow or self.mode == "shadow")
        period = limit.window if limit.kind == "limit" else limit.period or _KEY_PERIODS[limit.kind]
        middle = f"}}:{escape(self.policy.name)}:{period}:"
        if isinstance(limit, EffectiveRate) and (new_until_ms or others):
            windows = [(*self._limit_of(other.rate, None, other.new_until_ms), middle) for other in others]
            # Units that are taken ahead are counted in all windows at once, but spent while the own bucket is open.
            prefetch = 0 if others else limit.prefetch
            others_counted = tuple(starmap(OtherWindow, windows))
            limit = replace(limit, new_until_ms=new_until_ms, other_windows=others_counted, prefetch=prefetch)
        found = self._limits[amount, share, new_until_ms, others] = limit, middle
        return found


def plan_counter(plan: str) -> str:
    """Return the name of the override of all callers of a plan."""
    return f"=plan:{escape(plan)}"


def dimension_values(identity: Identity, dimensions: Iterable[str], keys: KeyBuilder) -> dict[str, str]:
    """Return the values of an identity's dimensions, ready for keys, and empty where unknown."""
    return {dimension: _value(identity, dimension, keys) for dimension in dimensions}


def _value(identity: Identity, dimension: str, keys: KeyBuilder) -> str:
    built_in = dimension in _ATTRIBUTES
    value = getattr(identity, dimension) if built_in else identity.dimensions.get(dimension)
    return "" if value is None or value == "" else keys.value(dimension, value)


def _effective_limit(policy: Policy, amount: RateOrCount, share: float | None, *, shadow: bool) -> EffectiveLimit:
    number = amount.limit if isinstance(amount, Rate) else amount
    common: dict[str, Any] = {
        "policy": policy.name,
        "scope": policy.scope,
        "limit": number,
        "share": None if share is None else share_of(number, share),
        "shadow": shadow,
        "on_store_failure": policy.on_store_failure,
        "code": policy.code,
        "detail": policy.detail,
        "refund_on": policy.refund_on,
    }
    if isinstance(policy, Limit) and isinstance(amount, Rate):
        prefetch = 0 if shadow else policy.prefetch
        burst = share_of(number, policy.burst)
        return EffectiveRate(**common, window=amount.period, burst=burst, prefetch=prefetch, unit=policy.unit)
    if isinstance(policy, Quota):
        window = NOMINAL[policy.period] if policy.period else 0
        # A quota of the whole service is its capacity, and no caller's own quota.
        status = 429 if policy.scope == GLOBAL else policy.status
        return EffectiveQuota(**common, window=window, period=policy.period, unit=policy.unit, status=status)
    if isinstance(policy, Concurrency):
        lease_ms = max(1, round(policy.lease * 1000))
        return EffectiveConcurrency(**common, unit="concurrent-requests", lease_ms=lease_ms, hold=policy.hold)
    raise TypeError(f"{type(policy).__name__} is not a kind of policy")
