"""What was learned of one server's limits, and who may go by it.

Instants are seconds of a clock that only goes forward. Nothing here waits: who does is told for how long.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final, NamedTuple, TypeVar

from ratelimit.client.advice import Advice
from ratelimit.client.gate import Gate

_MOST_PLACES: Final = 1000
"""Endpoints for which something is remembered."""

_MOST_SHARED: Final = 100
"""Limits of other scopes that are remembered."""

_ENDPOINT: Final = (None, "endpoint")
"""Scopes of limits that are taken for one place's."""

K = TypeVar("K")


class Place(NamedTuple):
    """Where a request goes: its method, and its path without what looks like an id."""

    method: str
    path: str


class Waiter:
    """One request that wants to go; `wake` is called, once it `may`, and where it has to look again."""

    def __init__(self, place: Place, wake: Callable[[], None]) -> None:
        self.place, self.ticket, self.wake = place, -1, wake
        self.passed: list[tuple[Gate, int]] = []
        self.may = False


class Gates:
    """All limits of one server that were learned for one caller, and the requests that wait for them, in their order.

    A limit whose scope is the endpoint's, or is not told, is that of one place; others hold for all places whose methods
    they were seen with. Below `slow_below` of a limit requests are spread, by `longest` seconds at most.
    """

    def __init__(self, slow_below: float, longest: float) -> None:
        self._make = partial(Gate, slow_below, longest)
        self._shared: OrderedDict[tuple[str | None, int | None], Gate] = OrderedDict()
        self._own: OrderedDict[Place, Gate] = OrderedDict()
        self._waiting: dict[Place, deque[Waiter]] = {}
        self._away: dict[int, Waiter] = {}
        self._tickets = count()

    def enter(self, waiter: Waiter, now: float) -> None:
        """Let a request stand in line, and go if it may."""
        waiter.ticket = next(self._tickets)
        self._waiting.setdefault(waiter.place, deque()).append(waiter)
        self.look(now)

    def look(self, now: float) -> None:
        """Let all go that may, the first first; who is the first of a line then is woken, to learn for how long."""
        heads = [(line[0].ticket, place) for place, line in self._waiting.items() if line]
        heapq.heapify(heads)
        first = {ticket for ticket, _ in heads}
        while heads:
            _, place = heapq.heappop(heads)
            line = self._waiting[place]
            if self._wait(place, now) > 0:
                if line[0].ticket not in first:
                    line[0].wake()
                continue
            self._go(line[0], now)
            line.popleft()
            if line:
                heapq.heappush(heads, (line[0].ticket, place))
            else:
                del self._waiting[place]

    def is_first(self, waiter: Waiter) -> bool:
        """Say whether a request is the first of its line."""
        line = self._waiting.get(waiter.place)
        return bool(line) and line[0] is waiter  # type: ignore[index]

    def wait(self, waiter: Waiter, now: float) -> float:
        """Return the seconds after which to look again, infinite where it will be woken."""
        return self._wait(waiter.place, now) if self.is_first(waiter) else math.inf

    def insist(self, waiter: Waiter, now: float) -> None:
        """Let a request go that does not want to wait."""
        self._leave(waiter)
        self._go(waiter, now)

    def lost(self, waiter: Waiter, now: float) -> None:
        """Take note that a request was given up, in the line or under way."""
        self._leave(waiter)
        for gate, number in waiter.passed:
            gate.lost(number)
        self._look_again(now)

    def answered(self, waiter: Waiter, advice: Advice, now: float, *, refused: bool) -> None:
        """Take note of an answer."""
        self._leave(waiter)
        if not refused and advice.remaining is None:
            for gate, number in waiter.passed:
                gate.lost(number)
                gate.silent(now)
        else:
            self._learn(waiter, advice, now, refused=refused)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        self.look(now)
        for line in self._waiting.values():
            if line:  # An interrupt may have left an empty one.
                line[0].wake()

    def hold(self, place: Place, advice: Advice, seconds: float, now: float) -> None:
        """Let nobody go for so many seconds after a refusal that did not say for how long."""
        self._gate(place, advice).hold(seconds, now)

    def _learn(self, waiter: Waiter, advice: Advice, now: float, *, refused: bool) -> None:
        speaking, remaining = self._gate(waiter.place, advice), advice.remaining
        self._join(waiter, speaking, everywhere=advice.scope not in _ENDPOINT)
        passed = dict(waiter.passed)
        number = passed.pop(speaking)
        if refused:
            # One that has something left was refused for another reason, and its reset is not when that is over.
            speaking.refused(number, advice.retry_after if remaining else advice.opens, now)
        else:
            speaking.admitted(number, advice, now)
        for gate, other in passed.items():
            if refused or remaining is None:
                gate.lost(other)
            else:
                gate.has_more(other, remaining, now)

    def _gate(self, place: Place, advice: Advice) -> Gate:
        """Return the gate of the limit that an answer speaks of."""
        if advice.scope in _ENDPOINT:
            return _latest(self._own, place, self._make, _MOST_PLACES)
        return self._of_scope(place.method, advice)

    def _join(self, waiter: Waiter, gate: Gate, *, everywhere: bool) -> None:
        """Count what is under way as if it had passed a gate that was not there yet."""
        method, place = waiter.place.method, waiter.place
        for other in (*self._away.values(), waiter):
            concerned = other.place.method == method if everywhere else other.place == place
            if concerned and all(passed is not gate for passed, _ in other.passed):
                other.passed.append((gate, gate.join()))

    def _of_scope(self, method: str, advice: Advice) -> Gate:
        # Two limits of one scope, such as those of reads and of writes, differ in their numbers.
        for (scope, limit), other in list(self._shared.items()):
            if scope == advice.scope and advice.limit not in (limit, None):
                other.methods.discard(method)
                if not other.methods:
                    del self._shared[scope, limit]
        gate = _latest(self._shared, (advice.scope, advice.limit), self._make, _MOST_SHARED)
        gate.methods.add(method)
        return gate

    def _gates(self, place: Place) -> list[Gate]:
        gates = [gate for gate in self._shared.values() if place.method in gate.methods]
        own = self._own.get(place)
        return gates if own is None else [*gates, own]

    def _wait(self, place: Place, now: float) -> float:
        return max((gate.wait(now) for gate in self._gates(place)), default=0.0)

    def _go(self, waiter: Waiter, now: float) -> None:
        waiter.passed = [(gate, gate.go(now)) for gate in self._gates(waiter.place)]
        waiter.may = True
        self._away[waiter.ticket] = waiter
        waiter.wake()

    def _leave(self, waiter: Waiter) -> None:
        """Take a request out of the line, and out of those under way."""
        self._away.pop(waiter.ticket, None)
        line = self._waiting.get(waiter.place)
        if line and waiter in line:
            line.remove(waiter)
            if line:
                line[0].wake()  # It is the first now, and has to learn for how long.
            else:
                del self._waiting[waiter.place]


def _latest(gates: OrderedDict[K, Gate], key: K, make: Callable[[], Gate], most: int) -> Gate:
    """Return the gate of a key, a new one where there is none; of too many, the one used longest ago is forgotten."""
    gate = gates.get(key)
    if gate is None:
        gate = gates[key] = make()
        if len(gates) > most:
            gates.popitem(last=False)
    gates.move_to_end(key)
    return gate
