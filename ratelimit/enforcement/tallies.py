"""Tallies: what one limiter has decided, in plain integers that cost a request little and are exact when they are read."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ratelimit._utils.histogram import Histogram
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED, NEAR, CorrectionEvent, Result, Source, result_of
from ratelimit.enforcement.top_callers import TopCallers
from ratelimit.model.charge import Charge

UTILIZATION_BUCKETS: Final = (0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99, 1.0, 1.25)
RETRY_AFTER_BUCKETS: Final = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)
"""Seconds."""
DURATION_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
"""Seconds."""

MAX_POLICIES: Final = 200
"""Policies that are counted apart; all others are counted as `OTHER`."""

OTHER: Final = "_other"
STATES: Final = ("within", "near", "over", "shadow_over")


class PolicyTally:
    """The counts of one policy: checks by state, units by action, and how full it was."""

    __slots__ = ("charged", "corrected", "counts", "near", "over", "retry_after", "shadow_over", "used", "within")

    def __init__(self) -> None:
        self.within = self.near = self.over = self.shadow_over = self.charged = 0
        self.corrected = {"settled": 0, "refunded": 0, "released": 0, "forced": 0}
        self.counts, self.used = [0] * (len(UTILIZATION_BUCKETS) + 1), 0.0
        self.retry_after = Histogram(RETRY_AFTER_BUCKETS)

    @property
    def utilization(self) -> Histogram:
        """How full it was at each check."""
        found = Histogram(UTILIZATION_BUCKETS)
        found.counts, found.total = self.counts, self.used
        return found

    @property
    def units(self) -> dict[str, int]:
        """The units by what was done with them."""
        return {"charged": self.charged, **self.corrected}


class Tallies:
    """The counts of one limiter, by policy; `near` is the share of a limit from which on its use is near.

    `requests` counts by result, refusing policy and source, `durations` the decisions by source, `store_calls` by operation
    and outcome, `errors` by where they were, `reloads` by what came of them. Where it `measures`, it has the histograms too: they cost a request more.
    """

    def __init__(self, near: float = NEAR, *, measures: bool = True) -> None:
        self._near, self.measures = near, measures
        self._admitted: dict[Source, int] = {"store": 0, "cache": 0, "prefetch": 0, "local": 0}
        self._others: dict[tuple[Result, str, Source], int] = {}
        self.policies: dict[str, PolicyTally] = {}
        self.durations: dict[Source, Histogram] = {}
        self.store_calls: dict[tuple[str, str], Histogram] = {}
        self.outages, self.is_store_available = 0, True
        self.errors: dict[str, int] = {}
        self.callers: TopCallers | None = None
        """Who has used most, where that is counted."""
        self.reloads = {"applied": 0, "unchanged": 0, "rejected": 0}

    def of(self, policy: str) -> PolicyTally:
        """Return the counts of a policy, made when it is asked for first."""
        tally = self.policies.get(policy)
        return self.policies.setdefault(self._name(policy), PolicyTally()) if tally is None else tally

    def decided(self, decision: Decision, charges: Sequence[Charge], seconds: float) -> None:
        """Count one decision; `seconds` are how long it took, where that is measured."""
        source, unrendered = decision.source, decision.unrendered
        if self.measures:
            duration = self.durations.get(source) or self.durations.setdefault(source, Histogram(DURATION_BUCKETS))
            duration.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
            duration.total += seconds
        if unrendered is None:
            self._count_limits(decision, charges)
            return
        # Most requests are admitted, and are counted by the store's own numbers.
        self._admitted[source] += 1
        if self.callers is not None:
            self.callers.seen.append(unrendered[0])
        policies, near, measures = self.policies, self._near, self.measures
        for (limit, key, cost), (remaining, _, _) in zip(unrendered[0], unrendered[1]):  # noqa: B905
            tally = policies.get(limit.policy) or self.of(limit.policy)
            full = limit.advertised_limit
            tally.charged += cost
            if full - remaining >= near * full:
                tally.near += 1
                if self.callers is not None:
                    self.callers.add("near", limit.policy, key)
            else:
                tally.within += 1
            if measures:
                used = 1 - remaining / full if full else 1.0
                tally.used += used
                tally.counts[bisect_left(UTILIZATION_BUCKETS, used)] += 1

    @property
    def requests(self) -> dict[tuple[Result, str, Source], int]:
        """The requests by result, refusing policy and source."""
        admitted: dict[tuple[Result, str, Source], int]
        admitted = {("admitted", "", source): number for source, number in self._admitted.items() if number}
        others = list(self._others.items())
        return {**admitted, **{key: number + admitted.get(key, 0) for key, number in others}}

    def corrected(self, event: CorrectionEvent) -> None:
        """Count a correction."""
        self.of(event.policy).corrected[event.action] += event.units

    def counted(self, result: Result) -> None:
        """Count a request that needed no decision."""
        key: tuple[Result, str, Source] = (result, "", "local")
        self._others[key] = self._others.get(key, 0) + 1

    def called(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one call to the store: its operation, `ok`, `timeout` or `error`, and how long its caller waited."""
        key = operation, outcome
        duration = self.store_calls.get(key)
        if duration is None:
            duration = self.store_calls[key] = Histogram(DURATION_BUCKETS)
        duration.observe(seconds)

    def failed(self, where: str) -> None:
        """Count an error that changed no answer."""
        self.errors[where] = self.errors.get(where, 0) + 1

    def store_changed(self, *, is_available: bool) -> None:
        """Count an outage when it begins."""
        self.outages += not is_available
        self.is_store_available = is_available

    def _rank(self, decision: Decision, charges: Sequence[Charge]) -> None:
        """Count the callers of a decision that was refused, or that a shadow would have refused."""
        if self.callers is None:
            return
        refusing = {limit.policy for limit in decision.limits if limit.retry_after}
        for charge in charges:
            if charge.limit.policy in refusing:
                self.callers.add("shadow" if charge.limit.shadow else "refused", charge.limit.policy, charge.key)
            if decision.allowed and charge.limit.policy not in refusing:
                self.callers.add("used", charge.limit.policy, charge.key, charge.cost)

    def _name(self, policy: str) -> str:
        is_known = not policy or policy in self.policies or len(self.policies) < MAX_POLICIES
        return policy if is_known else OTHER

    def _count_limits(self, decision: Decision, charges: Sequence[Charge]) -> None:
        """Count a decision that was refused, that a shadow would have refused, or that was made of rendered limits."""
        policy = "" if decision.allowed else BLOCKED if decision.is_blocked else self._name(_refusing(decision))
        key = result_of(decision, charges), policy, decision.source
        self._others[key] = self._others.get(key, 0) + 1
        costs = {charge.limit.policy: charge.cost for charge in charges}
        self._rank(decision, charges)
        for limit in decision.limits:
            tally = self.of(limit.policy)
            used = 1 - limit.remaining / limit.limit if limit.limit else 1.0
            tally.used += used
            tally.counts[bisect_left(UTILIZATION_BUCKETS, used)] += 1
            if limit.retry_after:
                tally.shadow_over += limit.shadow
                tally.over += not limit.shadow
                if math.isfinite(limit.retry_after):
                    tally.retry_after.observe(limit.retry_after)
            else:
                is_near = limit.limit - limit.remaining >= self._near * limit.limit
                tally.near += is_near
                tally.within += not is_near
                if decision.allowed:
                    tally.charged += costs.get(limit.policy, 0)


def _refusing(decision: Decision) -> str:
    return decision.binding.policy if decision.binding is not None else ""
