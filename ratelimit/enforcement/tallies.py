"""Tallies: what one limiter has decided, in plain integers that cost a request little and are exact when they are read."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ratelimit._utils.histogram import Histogram
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED, NEAR, CorrectionEvent, Result, Source
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

    __slots__ = ("near", "over", "retry_after", "shadow_over", "units", "utilization", "within")

    def __init__(self) -> None:
        self.within = self.near = self.over = self.shadow_over = 0
        self.units = {"charged": 0, "settled": 0, "refunded": 0, "released": 0, "forced": 0}
        self.utilization = Histogram(UTILIZATION_BUCKETS)
        self.retry_after = Histogram(RETRY_AFTER_BUCKETS)


class Tallies:
    """The counts of one limiter, by policy; `near` is the share of a limit from which on its use is near.

    `requests` counts by result, refusing policy and source, `durations` the decisions by source, `store_calls` by operation
    and outcome, `errors` by where they were.
    """

    def __init__(self, near: float = NEAR) -> None:
        self._near = near
        self.requests: dict[tuple[Result, str, Source], int] = {}
        self.policies: dict[str, PolicyTally] = {}
        self.durations: dict[Source, Histogram] = {}
        self.store_calls: dict[tuple[str, str], Histogram] = {}
        self.outages, self.is_store_available = 0, True
        self.errors: dict[str, int] = {}

    def of(self, policy: str) -> PolicyTally:
        """Return the counts of a policy, made when it is asked for first."""
        tally = self.policies.get(policy)
        return self.policies.setdefault(self._name(policy), PolicyTally()) if tally is None else tally

    def decided(self, decision: Decision, charges: Sequence[Charge], result: Result, seconds: float) -> None:
        """Count one decision."""
        source = decision.source
        policy = "" if decision.allowed else BLOCKED if decision.is_blocked else self._name(_refusing(decision))
        key = result, policy, source
        self.requests[key] = self.requests.get(key, 0) + 1
        duration = self.durations.get(source)
        if duration is None:
            duration = self.durations[source] = Histogram(DURATION_BUCKETS)
        duration.observe(seconds)
        if (unrendered := decision.unrendered) is not None:
            self._count_readings(*unrendered)
        else:
            self._count_limits(decision, {charge.limit.policy: charge.cost for charge in charges})

    def corrected(self, event: CorrectionEvent) -> None:
        """Count a correction."""
        self.of(event.policy).units[event.action] += event.units

    def counted(self, result: Result) -> None:
        """Count a request that needed no decision."""
        key: tuple[Result, str, Source] = (result, "", "local")
        self.requests[key] = self.requests.get(key, 0) + 1

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

    def _name(self, policy: str) -> str:
        is_known = not policy or policy in self.policies or len(self.policies) < MAX_POLICIES
        return policy if is_known else OTHER

    def _count_readings(self, charges: Sequence[Charge], readings: Sequence[tuple[int, int, int]]) -> None:
        """Count an admitted request by the store's own numbers: most requests end here."""
        policies, near = self.policies, self._near
        for (limit, _, cost), (remaining, _, _) in zip(charges, readings, strict=True):
            tally = policies.get(limit.policy) or self.of(limit.policy)
            full = limit.advertised_limit
            used = 1 - remaining / full if full else 1.0
            if used < near:
                tally.within += 1
            else:
                tally.near += 1
            tally.units["charged"] += cost
            utilization = tally.utilization
            utilization.counts[bisect_left(UTILIZATION_BUCKETS, used)] += 1
            utilization.total += used

    def _count_limits(self, decision: Decision, costs: dict[str, int]) -> None:
        for limit in decision.limits:
            tally = self.of(limit.policy)
            used = 1 - limit.remaining / limit.limit if limit.limit else 1.0
            tally.utilization.observe(used)
            if limit.retry_after:
                tally.shadow_over += limit.shadow
                tally.over += not limit.shadow
                tally.retry_after.observe(limit.retry_after)
            else:
                tally.near += used >= self._near
                tally.within += used < self._near
                if decision.allowed:
                    tally.units["charged"] += costs.get(limit.policy, 0)


def _refusing(decision: Decision) -> str:
    return decision.binding.policy if decision.binding is not None else ""
