"""A pace, twin of `pace.lua`: turns that are evenly spaced, given in the order in which they are asked for.

The state of a key is when the next turn is free, exactly: microseconds, and a remainder in parts of the limit, so that
`limit` turns in a row take one period to the microsecond. A turn that is given back is free again where it was the last
one, with all those just before it that were given back; others, which somebody has a later turn than, are lost: nobody is
overtaken.
"""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.charge import NEVER, Terms

_SLACK: Final = 1000
"""Milliseconds that a state is kept beyond its end, for a clock that steps back a little."""

_MOST_RUNS: Final = 64
"""Runs of turns given back that are remembered."""

Run = tuple[int, int]
"""Turns beside each other that were given back: from when to when (µs)."""


@dataclass(slots=True)
class Queue:
    """The state of one key: `next` in microseconds since the epoch, `rest` in parts of the limit."""

    next: int = 0
    rest: int = 0
    runs: list[Run] = field(default_factory=list)

    def expires(self, terms: Terms) -> int:  # noqa: ARG002 - the next turn says it
        """Return an instant (ms) from which this state means the same as none."""
        return self.next // 1000 + 1 + _SLACK


class View:
    """A queue seen at one instant (ms) under one policy's numbers; the interface is that of the sliding window's.

    Answers are (the turn, the wait for it, 0) or, where the wait is longer than `Terms.patience`, (the turn that would
    be the next, the wait for it, milliseconds until that is near enough). Turns are their instants; both are µs.
    """

    __slots__ = ("changed", "now", "room", "state", "step", "terms", "turn")

    def __init__(self, queue: Queue, terms: Terms, now: int) -> None:
        self.state, self.terms, self.now = queue, terms, now * 1000
        self.step = terms.window * 1_000_000 // terms.limit
        self.changed = False
        self._look()

    def _look(self) -> None:
        self.turn = max(self.state.next, self.now)
        self.room = int(self.turn - self.now <= self.terms.patience * 1000)

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - one turn at a time
        """Give the next turn away, and say that the state expires later."""
        queue, limit = self.state, self.terms.limit
        if self.now > queue.next:
            queue.rest, queue.runs = 0, []
        more, queue.rest = divmod(queue.rest + self.terms.window * 1_000_000 % limit, limit)
        queue.next = self.turn + self.step + more
        return True

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take back the turn `holder`, where `delta` is below zero."""
        queue = self.state
        if delta >= 0 or holder >= queue.next:
            return False
        if _meet(holder + self.step, queue.next):
            self._shorten(holder)
        else:
            self._remember((holder, holder + self.step))
        self.changed = True
        self._look()
        return True

    def _shorten(self, start: int) -> None:
        queue = self.state
        queue.next, queue.rest = start, 0
        while queue.runs and _meet(queue.runs[-1][1], queue.next):
            queue.next = queue.runs.pop()[0]

    def _remember(self, run: Run) -> None:
        runs = self.state.runs
        at = sum(each[0] < run[0] for each in runs)
        if at < len(runs) and _meet(run[1], runs[at][0]):
            run = run[0], runs.pop(at)[1]
        if at > 0 and _meet(runs[at - 1][1], run[0]):
            at -= 1
            run = runs.pop(at)[0], run[1]
        runs.insert(at, run)
        if len(runs) > _MOST_RUNS:
            del runs[0]

    @property
    def empty(self) -> bool:
        """Whether the state was changed, and means the same as none."""
        return self.changed and self.state.next <= self.now

    @property
    def taken(self) -> int:
        """How many units may be released: turns are given back one by one."""
        return 0

    def usage(self) -> tuple[int, int, int]:
        """Return (0, milliseconds until the next turn is free, 0)."""
        return 0, -(-(self.turn - self.now) // 1000), 0

    def answer(self, cost: int) -> tuple[int, int, int]:  # noqa: ARG002
        """Return the next turn, the wait for it, and how long it is too far away."""
        wait = self.turn - self.now
        return self.turn, wait, min(NEVER, max(0, -((self.terms.patience * 1000 - wait) // 1000)))

    def answer_charged(self) -> tuple[int, int, int]:
        """Return the turn that was given, or the next one after another change: who was given one was patient enough."""
        turn, wait, over = self.answer(1)
        return turn, wait, -over


def _meet(end: int, start: int) -> bool:
    """Say whether one turn begins where the other ends; either may have been rounded."""
    return -1 <= end - start <= 1
