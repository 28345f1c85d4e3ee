"""What was learned of one server's limits, and who may go by it.

Instants are seconds of a clock that only goes forward. Nothing here waits: who does is told for how long.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, NamedTuple

from ratelimit.client.advice import Advice

_MOST_PLACES: Final = 1000
"""Endpoints for which something is remembered."""

_UNKNOWN: Final = 2**62


class Gate:
    """One limit of a server: how much of it is left for certain, and when there is more.

    What is left is what the last answers said, less what was sent since, or is still under way and may have come
    after. Where nothing is left, one request goes ahead when the limit is renewed, and its answer says how many may
    follow.
    """

    def __init__(self, slow_below: float) -> None:
        self.slow_below = slow_below
        self.limit: int | None = None
        self.left: int | None = None
        self.opens = self.renewed = self.last = -math.inf
        self.methods: set[str] = set()
        self._sent = self._newest = self._probe = 0
        self._flying: dict[int, int] = {}

    def wait(self, now: float) -> float:
        """Return the seconds until a request may go, infinite where an answer has to come first."""
        if self.left is None:
            return 0.0
        if self.left <= 0:
            return self._wait_for_more(now)
        if self.limit is None or self.left >= self.slow_below * self.limit or now >= self.renewed:
            return 0.0
        return max(0.0, self.last + (self.renewed - self.last) / (self.left + 1) - now)

    def _wait_for_more(self, now: float) -> float:
        if now < self.opens:
            return self.opens - now
        # Renewed, as it was told: one looks ahead. Else what is under way will say.
        coming = self._probe in self._flying if self.opens > -math.inf else self._flying
        return math.inf if coming else 0.0

    def go(self, now: float) -> int:
        """Let a request go, and return its number."""
        self._sent += 1
        self._flying[self._sent] = _UNKNOWN
        self.last = now
        if self.left is not None:
            self._probe = self._sent if self.left <= 0 else self._probe
            self.left -= 1
        return self._sent

    def lost(self, number: int) -> None:
        """Take note that there is no answer."""
        self._flying.pop(number, None)

    def refused(self, number: int, seconds: float | None, now: float) -> None:
        """Take note that a request was refused, for so many seconds."""
        self._flying.pop(number, None)
        self._newest = max(self._newest, number)
        self.left, self.opens = 0, max(self.opens, now + (seconds or 0.0))

    def admitted(self, number: int, advice: Advice, now: float) -> int:
        """Take note of an answer that says what remains; return how many may follow for certain."""
        remaining = advice.remaining or 0
        # Of two that were under way together nobody knows which was counted first: the lower number has both.
        lowest = min(remaining, self._flying.pop(number, _UNKNOWN))
        for other, low in self._flying.items():
            self._flying[other] = min(low, remaining)
        older = sum(other < number for other in self._flying)
        certain = lowest - (self._sent - number) - older
        if number > self._newest:
            self._newest, self.limit = number, advice.limit
            self.renewed = now + (advice.reset or 0.0)
            self.left = certain if self.left is None else min(lowest, max(self.left, certain))
            if lowest > 0:
                self.opens = -math.inf
        else:
            self.left = max(self.left or 0, certain)
        if not remaining:
            self.opens = max(self.opens, now + (advice.opens or 0.0))
        return certain

    def at_least(self, certain: int) -> None:
        """Take note that another limit, of which less is left than of this one, lets so many follow."""
        if self.left is not None:
            self.left = max(self.left, certain)

    def silent(self, now: float) -> None:
        """Take note of an answer that says nothing of limits: where this one should be open, it is."""
        if self.left is not None and self.left <= 0 and now >= self.opens:
            self.left = None


class Place(NamedTuple):
    """Where a request goes: its method, and its path without what looks like an id."""

    method: str
    path: str


class Waiter:
    """One request that wants to go; `wake` is called, once it `may`, and where it has to look again."""

    def __init__(self, place: Place, ticket: int, wake: Callable[[], None]) -> None:
        self.place, self.ticket, self.wake = place, ticket, wake
        self.passed: list[tuple[Gate, int]] = []
        self.may = False


class Gates:
    """All limits of one server that were learned for one caller, and the requests that wait for them, in their order.

    A limit whose scope is the endpoint's, or is not told, is that of one place; others hold for all places whose methods
    they were seen with.
    """

    def __init__(self, slow_below: float) -> None:
        self._slow_below = slow_below
        self._shared: dict[tuple[str | None, int | None], Gate] = {}
        self._own: OrderedDict[Place, Gate] = OrderedDict()
        self._waiting: dict[Place, deque[Waiter]] = {}
        self._away: dict[int, Waiter] = {}
        self._tickets = count()

    def __iter__(self) -> Iterator[tuple[str, Gate]]:
        yield from ((str(scope), gate) for (scope, _), gate in self._shared.items())
        yield from ((" ".join(place), gate) for place, gate in self._own.items())

    def enter(self, place: Place, wake: Callable[[], None], now: float) -> Waiter:
        """Let a request stand in line, and go if it may."""
        waiter = Waiter(place, next(self._tickets), wake)
        self._waiting.setdefault(place, deque()).append(waiter)
        self.look(now)
        return waiter

    def look(self, now: float) -> None:
        """Let all go that may, the first first; who is the first of a line then is woken, to learn for how long."""
        heads = [(line[0].ticket, place) for place, line in self._waiting.items()]
        heapq.heapify(heads)
        first = {ticket for ticket, _ in heads}
        while heads:
            _, place = heapq.heappop(heads)
            line = self._waiting[place]
            if self._wait(place, now) > 0:
                if line[0].ticket not in first:
                    line[0].wake()
                continue
            self._go(line.popleft(), now)
            if line:
                heapq.heappush(heads, (line[0].ticket, place))
            else:
                del self._waiting[place]

    def wait(self, waiter: Waiter, now: float) -> float:
        """Return the seconds after which to look again, infinite where it will be woken."""
        line = self._waiting.get(waiter.place)
        return self._wait(waiter.place, now) if line and line[0] is waiter else math.inf

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
            line[0].wake()

    def _learn(self, waiter: Waiter, advice: Advice, now: float, *, refused: bool) -> None:
        speaking, passed = self._speaking(waiter, advice, now), dict(waiter.passed)
        number = passed.pop(speaking)
        certain = 0
        if refused:
            speaking.refused(number, advice.opens, now)
        else:
            certain = speaking.admitted(number, advice, now)
        for gate, other in passed.items():
            gate.lost(other)
            if not refused:
                gate.at_least(certain)

    def _speaking(self, waiter: Waiter, advice: Advice, now: float) -> Gate:
        """Return the gate of the limit that an answer speaks of; what is under way has passed it, if it was there."""
        place = waiter.place
        if advice.scope in (None, "endpoint"):
            gate = self._own.setdefault(place, Gate(self._slow_below))
            self._own.move_to_end(place)
            if len(self._own) > _MOST_PLACES:
                self._own.popitem(last=False)
            under_way = [other for other in self._away.values() if other.place == place]
        else:
            gate = self._of_scope(place.method, advice)
            under_way = [other for other in self._away.values() if other.place.method == place.method]
        for other in (*under_way, waiter):
            if all(passed is not gate for passed, _ in other.passed):
                other.passed.append((gate, gate.go(now)))
        return gate

    def _of_scope(self, method: str, advice: Advice) -> Gate:
        # Two limits of one scope, such as those of reads and of writes, differ in their numbers.
        for (scope, limit), other in list(self._shared.items()):
            if scope == advice.scope and advice.limit not in (limit, None):
                other.methods.discard(method)
                if not other.methods:
                    del self._shared[scope, limit]
        gate = self._shared.setdefault((advice.scope, advice.limit), Gate(self._slow_below))
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
        """Take a request out of the line, or out of those under way."""
        if self._away.pop(waiter.ticket, None):
            return
        line = self._waiting.get(waiter.place)
        if line and waiter in line:
            line.remove(waiter)
            if line:
                line[0].wake()  # It is the first now, and has to learn for how long.
            else:
                del self._waiting[waiter.place]
