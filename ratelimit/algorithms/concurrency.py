"""Concurrency, twin of `concurrency.lua`: so many holders at once, each with a lease that ends unless it is renewed.

A holder is a number that whoever asks has drawn by lot. What has ended does not count, whether or not it is still
written there.
"""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.charge import NEVER, Terms

SOON: Final = 1000
"""The longest wait, in milliseconds, that a refusal names: a slot may come free at any moment."""


@dataclass(slots=True)
class Slots:
    """The state of one key: until when (ms) each holder has its slot, and a moment before which no lease ends."""

    holders: dict[int, int] = field(default_factory=dict)
    soonest: int = 0

    def expires(self, terms: Terms) -> int:  # noqa: ARG002 - leases say it themselves
        """Return an instant (ms) from which this state means the same as none."""
        # A little more than needed, so that a clock that steps back a little finds what it left.
        return max(self.holders.values(), default=0) + SOON


class View:
    """Slots seen at one instant (ms) under one policy's numbers; the interface is that of the sliding window's."""

    __slots__ = ("held", "now", "room", "state", "terms")

    def __init__(self, slots: Slots, terms: Terms, now: int) -> None:
        self.state, self.terms, self.now = slots, terms, now
        self._count()

    def _count(self) -> None:
        slots = self.state
        self.held = len(slots.holders) if slots.soonest > self.now else len(self._ends())
        self.room = self.terms.cap - self.held

    def _ends(self) -> list[int]:
        return [end for end in self.state.holders.values() if end > self.now]

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - a holder takes one slot
        """Give `holder` a slot and say that the state expires later; whether there is room is for the caller."""
        slots, end = self.state, self.now + self.terms.lease
        slots.holders[holder] = end
        if slots.soonest <= self.now:
            slots.holders = {each: until for each, until in slots.holders.items() if until > self.now}
            slots.soonest = min(slots.holders.values())
        slots.soonest = min(slots.soonest, end)
        self._count()
        return True

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take the holder's slot away, or give it one, room or none, where `delta` is above zero."""
        return self.charge(1, holder) if delta > 0 else self.give_back(1, holder)

    def give_back(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take the holder's slot away, if it has one."""
        self.state.holders.pop(holder, None)
        self._count()
        return False

    def renew(self, holder: int) -> bool:
        """Let the lease of `holder` begin anew; one whose lease has ended gets none."""
        return self.state.holders.get(holder, 0) > self.now and self.charge(1, holder)

    @property
    def empty(self) -> bool:
        """Whether the state means the same as none, also to a clock that is set back."""
        return not self.state.holders

    @property
    def taken(self) -> int:
        """How many slots are held."""
        return self.held

    def usage(self) -> tuple[int, int, int]:
        """Return (slots held, 0, 0)."""
        return self.held, 0, 0

    def answer(self, cost: int) -> tuple[int, int, int]:  # noqa: ARG002
        """Return (remaining, reset, wait) as they stand; durations in ms."""
        if self.room >= 1:
            return self.terms.usable - self.held, 0, 0
        if self.terms.cap < 1:
            return 0, 0, NEVER
        wait = min(SOON, min(self._ends()) - self.now)
        return 0, wait, wait

    def answer_charged(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a slot was given: `wait` below zero where none is left."""
        remaining, reset, wait = self.answer(1)
        return remaining, reset, -wait
