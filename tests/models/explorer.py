"""An explicit-state model checker: visits every reachable state, and shows the shortest way to one that breaks a rule."""

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Exploration:
    """What was found: the size of the state space, and a shortest trace to a broken rule, where there is one.

    `broken` names the rule that `trace` (the steps from the initial state) leads to; "" for none. `stuck` is a shortest
    trace to a state from which no quiescent state can be reached; `None` for none.
    """

    states: int
    transitions: int
    depth: int
    quiescent: int
    seconds: float
    broken: str = ""
    trace: Sequence[str] = ()
    stuck: Sequence[str] | None = None

    @property
    def is_sound(self) -> bool:
        """Whether every rule holds in every state, and none is stuck."""
        return not self.broken and self.stuck is None

    def __str__(self) -> str:
        size = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, {self.seconds:.1f} s"
        if self.is_sound:
            return f"{size}, {self.quiescent:,} quiescent states: all rules hold"
        found = self.broken or "no quiescent state can be reached"
        steps = self.trace if self.broken else self.stuck or ()
        return "\n".join([f"{size}: {found}", *(f"  {number}. {step}" for number, step in enumerate(steps, 1))])


class Explorer(Generic[S]):
    """Visits all states breadth first, so that the first broken rule has a shortest trace.

    `successors` yields each enabled step with the state after it; `canonical` maps states that differ in names alone to
    one of them. `broken` names the rule that a state breaks (""), and `is_quiescent` tells where nothing is under way.
    """

    def __init__(
        self,
        successors: Callable[[S], Iterable[tuple[str, S]]],
        canonical: Callable[[S], S],
        broken: Callable[[S], str],
        is_quiescent: Callable[[S], bool],
    ) -> None:
        self._successors, self._canonical = successors, canonical
        self._broken, self._is_quiescent = broken, is_quiescent
        self._numbers: dict[S, int] = {}
        self._states: list[S] = []
        self._parents: list[tuple[int, int]] = []
        """For each state the number of the one before, and the depth."""
        self._before: list[list[int]] = []
        self._transitions = 0

    def run(self, initial: S) -> Exploration:
        """Visit every state that can be reached from `initial`, or as many as it takes to find a broken rule."""
        began = time.monotonic()
        self._initial = initial
        self._number(initial, -1)
        number, broken = 0, ""
        while number < len(self._states) and not (broken := self._broken(self._states[number])):
            self._expand(number)
            number += 1
        depth = self._parents[-1][1]
        quiescent = [each for each, state in enumerate(self._states) if self._is_quiescent(state)]
        stuck = None if broken else self._first_stuck(quiescent)
        return Exploration(
            len(self._states),
            self._transitions,
            depth,
            len(quiescent),
            time.monotonic() - began,
            broken,
            self._trace(number) if broken else (),
            None if stuck is None else self._trace(stuck),
        )

    def _expand(self, number: int) -> None:
        for _, state in self._successors(self._states[number]):
            self._transitions += 1
            self._before[self._number(state, number)].append(number)

    def _number(self, state: S, parent: int) -> int:
        state = self._canonical(state)
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._states)
            self._states.append(state)
            self._parents.append((parent, self._parents[parent][1] + 1 if parent >= 0 else 0))
            self._before.append([])
        return number

    def _first_stuck(self, quiescent: list[int]) -> int | None:
        """Return the first state from which no quiescent one can be reached, by going backwards from those."""
        seen, waiting = bytearray(len(self._states)), list(quiescent)
        for each in quiescent:
            seen[each] = True
        while waiting:
            for before in self._before[waiting.pop()]:
                if not seen[before]:
                    seen[before] = True
                    waiting.append(before)
        first = seen.find(0)
        return None if first < 0 else first

    def _trace(self, number: int) -> list[str]:
        """Return the steps to a state, replayed from the initial one, so that each name stays what it was."""
        path, steps = [], []
        while number > 0:
            path.append(self._states[number])
            number = self._parents[number][0]
        state = self._initial
        for wanted in reversed(path):
            step, state = next(each for each in self._successors(state) if self._canonical(each[1]) == wanted)
            steps.append(step)
        return steps
