"""Counted periods: in which windows a `Limit` counts its requests, beside the one whose rate holds."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.policies import Limit
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate

MAX_COUNTERS: Final = 4096
"""Counters of a policy whose own periods are known: those of callers with an override or a grant."""

MAX_NOTED: Final = 4
"""Periods that are known beside those of the settings, of all callers and of each counter; beyond that the oldest is forgotten."""


class CountedPeriod(NamedTuple):
    """A period that is counted: a rate that has it, and until when (ms since the epoch) it is new."""

    rate: Rate
    new_until_ms: int = 0


class CountedPeriods:
    """Knows the periods of all rates that one `Limit` may have: its own, and those of plans, schedules, overrides and grants.

    Each period has a counter of its own. Every request is counted in all of them, and the one of the rate that holds
    refuses: a rate of another period would otherwise find a counter that knows of nothing. A period that was known once
    is counted until the process ends, because its rate may come back. `on_change` is called where a caller's requests
    are counted in another window than before. `has_several` says whether there are several periods at all; `declared` are
    those of the settings, `noted` others of all callers, and `of_counters` those of single counters. `dimensions` are the
    policy's.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._plans: dict[str, Rate] = {}
        self.declared: dict[int, CountedPeriod] = {}
        self.noted: dict[int, CountedPeriod] = {}
        self.of_counters: BoundedCache[str, dict[int, CountedPeriod]] = BoundedCache(MAX_COUNTERS)
        self.dimensions: object = None
        self.has_several = False

    def declare(self, policy: Limit) -> None:
        """Count the periods that the settings give a policy."""
        self.dimensions = policy.per, policy.key is None
        self._plans.update({plan: rate for plan, rate in policy.plans.items() if rate is not None})
        scheduled = [hours.rate for hours in policy.schedule if hours.rate is not None]
        for rate in (policy.rate, *self._plans.values(), *scheduled):
            self.declared.setdefault(rate.period, CountedPeriod(rate))
        self._note_several()

    def note_overrides(self, overrides: Mapping[str, Override], now_ms: int) -> None:
        """Count the periods of overrides from now on; one of a plan or of all callers is counted for everybody.

        `now_ms` is 0 where they are older than this process.
        """
        for counter, override in overrides.items():
            if isinstance(override.rate, Rate):
                new_until = now_ms + override.rate.period * 1000 if now_ms else 0
                self._note(CountedPeriod(override.rate, new_until), "" if counter.startswith("=") else counter)

    def adopt(self, earlier: "CountedPeriods", now_ms: int) -> None:
        """Go on with the counters of earlier settings: their periods stay, and those that they had not are new."""
        if self.dimensions != earlier.dimensions:
            return
        known = {**earlier.declared, **earlier.noted}
        for period, (rate, _) in self.declared.items():
            before = known.get(period)
            new_until = now_ms + period * 1000 if before is None else before.new_until_ms
            self.declared[period] = CountedPeriod(rate, new_until)
        for counted in known.values():
            self._note(counted, "")
        self.of_counters.merge(earlier.of_counters)
        self._note_several()

    def counted(self, counter: str, rate: Rate, identity: Identity) -> tuple[int, tuple[CountedPeriod, ...]]:
        """Return until when (ms) the period of `rate` is new, and the other periods in which a caller's requests are counted."""
        if identity.rates and rate.period not in self.declared:
            self._note(CountedPeriod(rate), counter)
        if not self.has_several:
            return 0, ()
        found = {**self.noted, **self.of_counters.get(counter, {}), **self.declared}
        plan = self._plans.get(identity.plan) if identity.plan is not None else None
        if plan is not None:  # What is above this rate is the caller's burst, if it ever holds.
            found[plan.period] = found[plan.period]._replace(rate=plan)
        own = found.pop(rate.period, CountedPeriod(rate))
        return own.new_until_ms, tuple(found.values())

    def rates(self, counter: str) -> list[Rate]:
        """Return a rate of each period in which the requests of a counter are counted."""
        return [each.rate for each in (*self.declared.values(), *self.noted.values(), *self._own(counter).values())]

    def _own(self, counter: str) -> Mapping[int, CountedPeriod]:
        return self.of_counters.get(counter, {})

    def _note(self, counted: CountedPeriod, counter: str) -> None:
        period = counted.rate.period
        if period in self.declared or period in self.noted or period in self._own(counter):
            return
        noted = {**(self._own(counter) if counter else self.noted), period: counted}
        if len(noted) > MAX_NOTED:
            del noted[next(iter(noted))]
        if counter:
            self.of_counters[counter] = noted
        else:
            self.noted = noted
        self._note_several()
        self._on_change()

    def _note_several(self) -> None:
        self.has_several = len(self.declared) + len(self.noted) + len(self.of_counters) > 1
