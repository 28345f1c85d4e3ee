"""The embedded store: counters of this process."""

import heapq
import logging
from collections.abc import Sequence
from threading import Lock
from typing import Final

from ratelimit.algorithms.sliding_window import View, Window
from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Charge, ServiceLimit, service_limit

logger = logging.getLogger("ratelimit")

_SWEEP: Final = 8
"""Expired keys looked at per call: more than one can add, so that the heap shrinks when it can."""


class MemoryStore:
    """Count in this process's memory, exactly as the Redis store does; workers do not see each other's counters.

    `clock` returns integer microseconds (default: the system's). At most `max_keys` keys are held: beyond that the
    key that would expire first is forgotten, with one warning in the log.
    """

    def __init__(self, *, clock: Clock | None = None, max_keys: int = 1_000_000) -> None:
        self._clock = clock or system_clock
        self._max_keys = max_keys
        self._windows: dict[str, Window] = {}
        self._expiries: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._overflowed = False
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<MemoryStore keys={len(self)}>"

    def __len__(self) -> int:
        return len(self._windows)

    async def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> Sequence[ServiceLimit]:
        """Decide the charges of one request; never waits and never fails."""
        return self.decide(charges, peek=peek)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to give back."""

    def decide(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        """Decide the charges of one request, for callers that cannot wait; any thread may call it."""
        with self._lock:
            return self._decide(charges, peek=peek)

    def _decide(self, charges: Sequence[Charge], *, peek: bool) -> list[ServiceLimit]:
        now = self._clock()
        ms = now // 1000
        if self._heap and self._heap[0][0] <= ms:
            self._sweep(ms)
        admitted, views = not peek, []
        for charge in charges:
            view = View(self._windows.get(charge.key, _EMPTY), charge.terms, ms)
            views.append(view)
            if view.room < charge.cost and not charge.terms.shadow:
                admitted = False
        return [
            service_limit(charge, *self._answer(charge, view, admitted=admitted), now)
            for charge, view in zip(charges, views, strict=True)
        ]

    def _answer(self, charge: Charge, view: View, *, admitted: bool) -> tuple[int, int, int]:
        if not admitted or view.room < charge.cost:
            return view.answer(charge.cost)
        if view.window is _EMPTY:
            view.window = self._windows[charge.key] = Window()
        if view.charge(charge.cost):
            self._expire(charge.key, view.window.expires(charge.terms))
        return view.answer_charged()

    def _expire(self, key: str, at: int) -> None:
        known = key in self._expiries
        self._expiries[key] = at
        if not known:
            heapq.heappush(self._heap, (at, key))
            if len(self._windows) > self._max_keys:
                self._forget_one()

    def _sweep(self, ms: int) -> None:
        for _ in range(_SWEEP):
            if not self._heap or self._heap[0][0] > ms:
                return
            _, key = self._heap[0]
            if (at := self._expiries[key]) > ms:
                heapq.heapreplace(self._heap, (at, key))
            else:
                heapq.heappop(self._heap)
                self._drop(key)

    def _forget_one(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            logger.warning("memory store holds max_keys=%d keys; forgetting those that expire first", self._max_keys)
        while True:
            at, key = self._heap[0]
            if (later := self._expiries.get(key, at)) > at:
                heapq.heapreplace(self._heap, (later, key))
                continue
            heapq.heappop(self._heap)
            return self._drop(key)

    def _drop(self, key: str) -> None:
        self._windows.pop(key, None)
        self._expiries.pop(key, None)


_EMPTY: Final = Window()
"""What a key that is not there looks like; never charged."""
