"""Statistics: how often each policy was within, near or over its limit, minute by minute, for all workers together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ratelimit._utils.fork import call_after_fork
from ratelimit.clock import Clock
from ratelimit.enforcement.quota_directory import QuotaDirectory
from ratelimit.enforcement.rankings import CallerNames, CallerRankings, TopCaller
from ratelimit.enforcement.refusal_stream import RefusalStream
from ratelimit.enforcement.tallies import STATES, Tallies
from ratelimit.enforcement.top_callers import By, TopCallers
from ratelimit.errors import StoreError, StoreTimeout
from ratelimit.stores.base import Store

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_COUNTED: Final = (*STATES, "charged")
_MAX_SPANS: Final = 10_000


@dataclass(slots=True, frozen=True, kw_only=True)
class PolicyCounts:
    """The checks of one policy in one span of time, by how it stood, and the units that were charged."""

    within: int = 0
    near: int = 0
    over: int = 0
    shadow_over: int = 0
    charged: int = 0

    @property
    def checks(self) -> int:
        """All checks."""
        return self.within + self.near + self.over + self.shadow_over


@dataclass(slots=True, frozen=True, kw_only=True)
class SpanCounts:
    """The counts of one minute or hour, by policy; those without a check are left out."""

    start: datetime
    policies: Mapping[str, PolicyCounts]


class Statistics:
    """Adds what this worker has decided to counts that all workers share: once a second, in one call.

    `names` says how callers are called. `rankings`, `quotas` and `refusals`
    know callers. Nothing of it is on the path of a request. Minutes and hours are kept for as many seconds as the settings say. What
    could not be written is added with the next call, and then counts in the minute of that call. What was sent without a
    reply in time is not sent again; that, and what a killed worker has counted since its last call, may be missing.
    """

    def __init__(
        self,
        store: Store,
        tallies: Tallies,
        clock: Clock,
        prefix: str,
        *,
        minutes_kept: int,
        hours_kept: int,
        names: CallerNames,
    ) -> None:
        self._store, self._tallies, self._clock = store, tallies, clock
        self._prefix = f"{prefix}:{{statistics}}"
        self._kept = {_MINUTE_S: minutes_kept, _HOUR_S: hours_kept}
        self._written: dict[str, int] = {}
        tallies.callers = TopCallers()
        self.names = names
        self.rankings = CallerRankings(store, clock, self._prefix, minutes_kept, names)
        self.quotas = QuotaDirectory(store, clock, self._prefix)
        self.refusals = RefusalStream(store, f"{self._prefix}:refusals", clock, minutes_kept, names.label)
        call_after_fork(self.leave_to_parent)

    def leave_to_parent(self) -> None:
        """Leave to the parent of a fork what it has counted and not written yet."""
        self._written = self._counted()
        self._tallies.callers = TopCallers()
        self.refusals.clear()

    async def flush_all(self) -> None:
        """Write counts, rankings and refusals; raises `StoreError`."""
        failure: StoreError | None = None
        for flush in (self.flush, self.flush_callers, self.refusals.flush):
            try:
                await flush()
            except StoreError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def top(
        self, by: By = "refused", *, seconds: int = 3600, policy: str | None = None, count: int = 20
    ) -> Sequence[TopCaller]:
        """Return the callers that were refused most (or used most, or came near) in the last seconds; raises `StoreError`.

        Each policy's 200 most frequent callers are known, in spans of five minutes, as long as minutes are kept.
        """
        await self.flush_callers()
        return await self.rankings.top(by, seconds=seconds, policy=policy, count=count)

    async def flush_callers(self) -> None:
        """Write which callers were counted since the last time; raises `StoreError`, and they are lost then."""
        callers = self._tallies.callers
        if callers is not None:
            counts, limits = callers.take(), callers.take_quotas()
            await self.rankings.add(counts)
            await self.quotas.add(limits)

    async def flush(self) -> None:
        """Write what was counted since the last time; raises `StoreError`, and writes it the next time then."""
        counted = self._counted()
        changes = {name: number - self._written.get(name, 0) for name, number in counted.items()}
        changes = {name: change for name, change in changes.items() if change}
        if not changes:
            return
        now = self._clock() // 1_000_000
        self._written = counted  # Another flush that begins meanwhile leaves these alone.
        try:
            await self._store.add_counts([(self._key(step, now), kept) for step, kept in self._kept.items()], changes)
        except StoreTimeout:  # They may have been written: better missing than doubled.
            raise
        except StoreError:
            self._written = {name: number - changes.get(name, 0) for name, number in self._written.items()}
            raise

    async def minutes(self, last: int = 60) -> Sequence[SpanCounts]:
        """Return the counts of the last minutes, this one included, the oldest first; raises `StoreError`."""
        return await self._spans(_MINUTE_S, last)

    async def hours(self, last: int = 24) -> Sequence[SpanCounts]:
        """Return the counts of the last hours, this one included, the oldest first; raises `StoreError`."""
        return await self._spans(_HOUR_S, last)

    async def _spans(self, step: int, last: int) -> Sequence[SpanCounts]:
        await self.flush()
        now = self._clock() // 1_000_000
        starts = [now - now % step - step * number for number in reversed(range(min(last, _MAX_SPANS)))]
        found = await self._store.read_counts([self._key(step, start) for start in starts])
        return [
            SpanCounts(start=datetime.fromtimestamp(0, UTC) + timedelta(seconds=start), policies=_by_policy(counts))
            for start, counts in zip(starts, found, strict=True)
        ]

    def _key(self, step: int, now: int) -> str:
        return f"{self._prefix}:{step}:{now - now % step}"

    def _counted(self) -> dict[str, int]:
        policies = list(self._tallies.policies.items())
        return {f"{state}:{policy}": getattr(tally, state) for policy, tally in policies for state in _COUNTED}


def _by_policy(counts: Mapping[str, int]) -> dict[str, PolicyCounts]:
    found: dict[str, dict[str, int]] = {}
    for name, number in counts.items():
        state, _, policy = name.partition(":")
        if state in _COUNTED:
            found.setdefault(policy, {})[state] = number
    return {policy: PolicyCounts(**states) for policy, states in sorted(found.items())}
