"""Whether a recorded history could have come from one sequential object (Wing & Gong 1993, with Lowe's memoization)."""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)

NEVER = float("inf")


class Event(NamedTuple):
    """One call: when it began, and when it had ended by the same clock.

    `output` is what it returned; `None` where that is not known. A call that has no reply ends `NEVER`: it may take effect
    at any later time, or never. One that ends and has no output has taken effect by then.
    """

    called: float
    returned: float
    input: tuple[str, Hashable]
    output: object = None


class Specification(NamedTuple, Generic[S]):
    """A sequential object: its first state, and the state after a call; `None` where it cannot return that output."""

    initial: S
    after: Callable[[S, tuple[str, Hashable], object], S | None]


def unexplained(history: Sequence[Event], specification: Specification[S]) -> Sequence[Event]:
    """Return the events that no order of the calls explains, at the point up to which most can be; none: linearizable.

    An order explains a history if every call takes effect at one instant between its beginning and its end.
    """
    return _Search(history, specification).run()


class _Search(Generic[S]):
    """Tries orders depth first, and no set of calls with the same state twice.

    Beginnings and ends are a list in the order of time, linked in both directions, from which a call is taken that an
    order has placed. Numbers below `len(history)` are beginnings, those from there on are ends.
    """

    def __init__(self, history: Sequence[Event], specification: Specification[S]) -> None:
        self._history, self._specification = history, specification
        size = self._size = len(history)
        instants = [(event.called, 0, number) for number, event in enumerate(history)]
        instants += [
            (event.returned, 1, size + number) for number, event in enumerate(history) if event.returned < NEVER
        ]
        order = [number for _, _, number in sorted(instants)]
        self._head, self._end = 2 * size, 2 * size + 1
        self._next, self._previous = [self._end] * (2 * size + 2), [self._head] * (2 * size + 2)
        for before, number in zip([self._head, *order], [*order, self._end], strict=True):
            self._next[before], self._previous[number] = number, before

    def run(self) -> Sequence[Event]:
        state, placed, best = self._specification.initial, 0, 0
        seen: set[tuple[int, S]] = set()
        stack: list[tuple[int, S]] = []
        due = sum(event.returned < NEVER for event in self._history)
        at = self._next[self._head]
        while due:
            if at < self._size:
                event = self._history[at]
                after = self._specification.after(state, event.input, event.output)
                key = placed | 1 << at, after
                if after is None or key in seen:
                    at = self._next[at]
                    continue
                seen.add((placed | 1 << at, after))
                stack.append((at, state))
                state, placed, due = after, placed | 1 << at, due - (event.returned < NEVER)
                best = max(best, placed, key=int.bit_count)
                at = self._take(at)
            elif stack:  # This call has ended, and was not placed before.
                last, state = stack.pop()
                placed, due = placed & ~(1 << last), due + (self._history[last].returned < NEVER)
                at = self._put_back(last)
            else:
                return [event for number, event in enumerate(self._history) if not best >> number & 1]
        return []

    def _take(self, number: int) -> int:
        """Take a call from the list, and return where to go on: from the beginning."""
        for each in self._entries(number):
            self._next[self._previous[each]], self._previous[self._next[each]] = self._next[each], self._previous[each]
        return self._next[self._head]

    def _put_back(self, number: int) -> int:
        """Put a call back, in the opposite order, and return where to go on: behind its beginning."""
        for each in reversed(self._entries(number)):
            self._next[self._previous[each]] = self._previous[self._next[each]] = each
        return self._next[number]

    def _entries(self, number: int) -> Sequence[int]:
        return (number, number + self._size) if self._history[number].returned < NEVER else (number,)
