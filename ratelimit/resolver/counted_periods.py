"""Counted periods: in which windows a `Limit` counts its requests, beside the one whose rate holds."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ratelimit._utils.bounded_cache import LruCache
from ratelimit.config.policies import Limit
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate

MAX_COUNTERS: Final = 4096
"""Counters of a policy whose earlier periods are remembered."""

MAX_REMEMBERED: Final = 4
"""Earlier periods of one counter, and of all callers, that are remembered; beyond that the oldest is forgotten."""

ALL: Final = ""
"""Stands for the counters of all callers."""


class CountedPeriod(NamedTuple):
    """A period that is counted: a rate that has it, and the end (ms since the epoch) of the time in which it is new."""

    rate: Rate
    new_until_ms: int = 0


_Periods = Mapping[int, CountedPeriod]


class CountedPeriods:
    """Knows the periods of all rates that one `Limit` may have: its own, and those of plans, schedules, overrides and grants.

    Each period has a counter of its own. Every request is counted in all of them, and the one of the rate that holds
    refuses: a rate of another period would otherwise find a counter that knows of nothing. `declared` are the periods of
    the settings, `held` those of overrides that there are, by counter; `earlier` are a few that overrides, settings and grants
    have had, since a rate may come back. `on_change` is called when a period is added. `has_several` says whether there
    are several periods at all; `dimensions` are the policy's.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._plans: dict[str, Rate] = {}
        self._comes_with_its_grant = False
        self.declared: dict[int, CountedPeriod] = {}
        self.held: dict[str, dict[int, CountedPeriod]] = {}
        self.earlier: LruCache[str, _Periods] = LruCache(MAX_COUNTERS)
        self.dimensions: object = None
        self.has_several = False

    def declare(self, policy: Limit) -> None:
        """Count the periods that the settings give a policy."""
        self.dimensions, self._comes_with_its_grant = (policy.per, policy.key is None), "token" in policy.per
        self._plans.update({plan: rate for plan, rate in policy.plans.items() if rate is not None})
        scheduled = [hours.rate for hours in policy.schedule if hours.rate is not None]
        for rate in (policy.rate, *self._plans.values(), *scheduled):
            self.declared.setdefault(rate.period, CountedPeriod(rate))
        self._count_periods()

    def hold(self, overrides: Mapping[str, Override]) -> None:
        """Count the periods of all overrides that there are now; one of a plan or of all callers is counted for everybody.

        A period is new for its own length from when its override was set.
        """
        before, self.held = self.held, {}
        for counter, override in overrides.items():
            rate, name = override.rate, ALL if counter.startswith("=") else counter
            if isinstance(rate, Rate) and rate.period not in self.declared:
                new_until = override.set_at_ms + rate.period * 1000 if override.set_at_ms else 0
                found = before.get(name, {}).get(rate.period) or self.earlier.get(name, {}).get(rate.period)
                self.held.setdefault(name, {})[rate.period] = found or CountedPeriod(rate, new_until)
        for name, periods in before.items():
            self._remember(name, {period: each for period, each in periods.items() if period not in self._held(name)})
        if self.held != before:
            self._count_periods()
            self._on_change()

    def adopt(self, former: "CountedPeriods", now_ms: int) -> None:
        """Go on with the counters of former settings: their periods stay, and those that they had not are new."""
        if self.dimensions != former.dimensions:
            return
        known = {**former.earlier.get(ALL, {}), **former.held.get(ALL, {}), **former.declared}
        for period, (rate, _) in self.declared.items():
            before = known.get(period)
            new_until = now_ms + period * 1000 if before is None else before.new_until_ms
            self.declared[period] = CountedPeriod(rate, new_until)
        for name, periods in (*former.earlier.items(), *former.held.items(), (ALL, former.declared)):
            self._remember(name, periods)

    def counted(self, counter: str, rate: Rate, identity: Identity) -> tuple[int, tuple[CountedPeriod, ...]]:
        """Return the end (ms) of the time in which the period of `rate` is new, and the other periods that are counted."""
        if rate.period not in self.declared:
            if identity.rates and not self._comes_with_its_grant and rate.period not in self._others(counter):
                self._remember(counter, {rate.period: CountedPeriod(rate)})
                self._on_change()
        elif not self.has_several:
            return 0, ()
        found = {**self._others(counter), **self.declared}
        plan = self._plans.get(identity.plan) if identity.plan is not None else None
        if plan is not None:  # What is above this rate is the caller's burst, if it ever holds.
            found[plan.period] = found[plan.period]._replace(rate=plan)
        own = found.pop(rate.period, CountedPeriod(rate))
        return own.new_until_ms, tuple(found.values())

    def rates(self, counter: str) -> list[Rate]:
        """Return a rate of each period in which the requests of a counter are counted."""
        return [each.rate for each in ({**self._others(counter), **self.declared}).values()]

    def _others(self, counter: str) -> dict[int, CountedPeriod]:
        """Return the periods of a counter beside those of the settings."""
        earlier, held = self.earlier, self.held
        return {**earlier.get(ALL, {}), **earlier.get(counter, {}), **held.get(ALL, {}), **held.get(counter, {})}

    def _held(self, name: str) -> _Periods:
        return self.held.get(name, {})

    def _remember(self, name: str, periods: _Periods) -> None:
        new = {period: each for period, each in periods.items() if period not in self.declared}
        if new:
            remembered = {**self.earlier.get(name, {}), **new}
            self.earlier.put(name, dict([*remembered.items()][-MAX_REMEMBERED:]))
            self._count_periods()

    def _count_periods(self) -> None:
        self.has_several = len(self.declared) + len(self.held) + len(self.earlier) > 1
