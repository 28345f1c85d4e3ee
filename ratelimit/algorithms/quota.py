"""Quotas, twin of `quota.lua`: an amount per calendar period in UTC, or a level that never turns over.

The state of a key is what was used in one period, and in the one just before it. A period begins with the first charge
in it: until then the state is that of an earlier one, and is read as such.
"""

from dataclasses import dataclass
from typing import Final

from ratelimit.charge import NEVER, Terms
from ratelimit.periods import DAY, end_of, start_of

FOREVER: Final = 2**62
"""An instant (ms) that does not come."""


@dataclass(slots=True)
class Tally:
    """The state of one key: `start` is the first millisecond of the period, 0 for a level; the others are units."""

    start: int = 0
    used: int = 0
    before: int = 0

    def expires(self, terms: Terms) -> int:
        """Return an instant (ms) from which nobody asks for this: a day after the following period has ended."""
        if terms.period is None:
            return FOREVER
        return end_of(terms.period, end_of(terms.period, self.start)) + DAY


class View:
    """A tally seen at one instant (ms) under one policy's numbers; the interface is that of the sliding window's."""

    __slots__ = ("before", "end", "now", "room", "start", "state", "terms", "used")

    def __init__(self, tally: Tally, terms: Terms, now: int) -> None:
        self.state, self.terms, self.now = tally, terms, now
        period = terms.period
        self.start = start_of(period, now) if period else 0
        if tally.start >= self.start:  # A clock that was set back does not turn back a period.
            self.start, self.used, self.before = tally.start, tally.used, tally.before
        else:
            self.used = 0
            self.before = tally.used if period and end_of(period, tally.start) == self.start else 0
        self.end = end_of(period, self.start) if period else now
        self.room = terms.cap - self.used

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - only slots have holders
        """Count `cost` units and say whether the tally expires later; whether there is room is for the caller."""
        self.used = min(NEVER, self.used + cost)
        return self._write()

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Change what was charged at `at` (ms) by `delta` units, in the period of that moment.

        What lies before the last period is counted in this one; credits there are void.
        """
        period = self.terms.period
        if period is None or at >= self.start:
            self.used = max(0, min(NEVER, self.used + delta))
        elif end_of(period, start_of(period, at)) == self.start:
            self.before = max(0, min(NEVER, self.before + delta))
        elif delta > 0:
            self.used = min(NEVER, self.used + delta)
        return self._write()

    def give_back(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take `amount` units off; the caller has made sure that so many were taken."""
        self.used -= amount
        return self._write()

    @property
    def empty(self) -> bool:
        """Whether the state means the same as none."""
        return not self.used and not self.before

    @property
    def taken(self) -> int:
        """How many units may be given back."""
        return self.used

    def usage(self) -> tuple[int, int, int]:
        """Return (used, milliseconds until the period ends, used in the period before)."""
        return self.used, self.end - self.now, self.before

    def answer(self, cost: int) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) as they stand, `wait` being that of a further `cost`; durations in ms."""
        remaining, reset = max(0, self.terms.usable - self.used), self.end - self.now
        if self.room >= cost:
            return remaining, reset, 0
        return remaining, reset, NEVER if self.terms.period is None or cost > self.terms.cap else reset

    def answer_charged(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a charge: `wait` below zero where nothing at all is left."""
        remaining, reset, wait = self.answer(1)
        return remaining, reset, -wait

    def _write(self) -> bool:
        tally = self.state
        tally.start, tally.used, tally.before = self.start, self.used, self.before
        self.room = self.terms.cap - self.used
        return True
