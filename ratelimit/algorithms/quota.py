"""Quotas, twin of `quota.lua`: an amount per calendar period in UTC, or a level that never turns over.

The state of a key is what was used in one period, and in the one just before it. A period begins with the first charge
in it: until then the state is that of an earlier period, and is read as such.
"""

from dataclasses import dataclass
from typing import Final

from ratelimit.model.calendar_period import DAY, end_of, start_of
from ratelimit.model.effective_limit import EffectiveQuota
from ratelimit.model.kinds import NEVER

NO_EXPIRY: Final = 2**62
"""An instant (ms) that is never reached."""


@dataclass(slots=True)
class QuotaState:
    """The state of one key: `start` is the first millisecond of the period, 0 for a level; the others are units."""

    start: int = 0
    used: int = 0
    used_before: int = 0

    @property
    def units(self) -> int:
        """The units of the period."""
        return self.used

    def merged(self, other: "QuotaState") -> "QuotaState":
        """Return a state under which no more is admitted than under either."""
        first, last = sorted((self, other), key=lambda state: state.start)
        if first.start == last.start:
            return QuotaState(last.start, max(first.used, last.used), max(first.used_before, last.used_before))
        return QuotaState(last.start, last.used, max(last.used_before, first.used))

    def expires(self, limit: EffectiveQuota) -> int:
        """Return an instant (ms) from which this is not needed: a day after the following period has ended."""
        if limit.period is None:
            return NO_EXPIRY
        return end_of(limit.period, end_of(limit.period, self.start)) + DAY


class QuotaView:
    """A quota as it stands at one instant (ms) under one effective limit; see `StateView`."""

    __slots__ = ("available", "end", "limit", "now", "start", "state", "used", "used_before")

    def __init__(self, state: QuotaState, limit: EffectiveQuota, now: int) -> None:
        self.state, self.limit, self.now = state, limit, now
        period = limit.period
        self.start = start_of(period, now) if period else 0
        if period and state.start > end_of(period, self.start):
            # A wrong clock charged a period that lies further ahead than the next one: the units count now.
            self.used, self.used_before = state.used, 0
        elif state.start >= self.start:  # A clock that steps back does not reopen a past period.
            self.start, self.used, self.used_before = state.start, state.used, state.used_before
        else:
            self.used = 0
            self.used_before = state.used if period and end_of(period, state.start) == self.start else 0
        self.end = end_of(period, self.start) if period else now
        self.available = limit.caller_capacity - self.used

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - only permits have holders
        """Count `cost` units now and say whether the state expires later than before."""
        self.used = min(NEVER, self.used + cost)
        return self._write()

    def repair(self) -> bool:
        """Write the period in which the units count, where a wrong clock charged them in one far ahead."""
        return self._write() if self.start < self.state.start else False

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Change what was charged at `at` (ms) by `delta` units, in the period of that instant.

        If that instant lies before the previous period, a positive `delta` is counted in this period and a negative
        one is void.
        """
        period = self.limit.period
        if period is None or at >= self.start:
            self.used = max(0, min(NEVER, self.used + delta))
        elif end_of(period, start_of(period, at)) == self.start:
            self.used_before = max(0, min(NEVER, self.used_before + delta))
        elif delta > 0:
            self.used = min(NEVER, self.used + delta)
        return self._write()

    def release(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take `amount` units off; the caller has checked that they are `releasable`."""
        self.used -= amount
        return self._write()

    @property
    def empty(self) -> bool:
        """Whether the state means the same as none."""
        return not self.used and not self.used_before

    @property
    def releasable(self) -> int:
        """How many units may be released."""
        return self.used

    def usage(self) -> tuple[int, int, int]:
        """Return (units used, milliseconds until the period ends, units used in the previous period)."""
        return self.used, self.end - self.now, self.used_before

    def status(self, cost: int) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) as they stand, `wait` being that of a further `cost`; durations in ms."""
        remaining, reset = max(0, self.limit.advertised_limit - self.used), self.end - self.now
        if self.available >= cost:
            return remaining, reset, 0
        never = self.limit.period is None or cost > self.limit.caller_capacity
        return remaining, reset, NEVER if never else reset

    def status_after_charge(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a charge: `wait` is negative where nothing at all is left."""
        remaining, reset, wait = self.status(1)
        return remaining, reset, -wait

    def _write(self) -> bool:
        state = self.state
        state.start, state.used, state.used_before = self.start, self.used, self.used_before
        self.available = self.limit.caller_capacity - self.used
        return True
