"""When keys expire, and which is forgotten first where there are too many."""

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Final

from ratelimit.algorithms.quota import FOREVER

_SWEEP: Final = 8
"""Expired keys looked at per call: more than one can add, so that the heaps shrink when they can."""


class Expiries:
    """Knows when each key expires (ms), by policy.

    Where there are more than `most` keys, the policy that has most of them gives up the one that would expire first, of
    several the one that was used longest ago: so those of one policy do not push out those of another.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._due: dict[str, tuple[int, int]] = {}
        self._heaps: dict[str, list[tuple[tuple[int, int], str]]] = {}
        self._eternal: dict[str, None] = {}
        self._uses = count()
        self.next = FOREVER
        """No key expires before this instant."""

    def __len__(self) -> int:
        return len(self._due) + len(self._eternal)

    def note(self, key: str, at: int, policy: str) -> str | None:
        """Note that `key` was used and expires at `at`, and return another one that has to be forgotten, if any."""
        if at == FOREVER:
            new = key not in self._eternal
            self._eternal.pop(key, None)
            self._eternal[key] = None  # At the end: the first is the one that was used longest ago.
        else:
            new = key not in self._due
            due = self._due[key] = at, next(self._uses)
            if new:
                heapq.heappush(self._heaps.setdefault(policy, []), (due, key))
                self.next = min(self.next, at)
        return self._give_up() if new and len(self) > self._most else None

    def drop(self, key: str) -> None:
        """Forget that `key` never expires; of others that is remembered until they would have."""
        self._eternal.pop(key, None)

    def expired(self, now: int) -> Iterator[str]:
        """Yield a few keys that have expired, and forget them."""
        for heap in self._heaps.values():
            for _ in range(_SWEEP):
                if not heap or heap[0][0][0] > now:
                    break
                due, key = heap[0]
                if self._due[key][0] > due[0]:
                    heapq.heapreplace(heap, (self._due[key], key))
                else:
                    yield self._pop(heap)
        self.next = min((heap[0][0][0] for heap in self._heaps.values() if heap), default=FOREVER)

    def _give_up(self) -> str:
        heap = max(self._heaps.values(), key=len, default=[])
        if len(self._eternal) > len(heap):
            key = next(iter(self._eternal))
            del self._eternal[key]
            return key
        while self._due[heap[0][1]] > heap[0][0]:
            heapq.heapreplace(heap, (self._due[heap[0][1]], heap[0][1]))
        return self._pop(heap)

    def _pop(self, heap: list[tuple[tuple[int, int], str]]) -> str:
        _, key = heapq.heappop(heap)
        del self._due[key]
        return key
