"""When the keys of a memory store expire, and which one is evicted where there are too many."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import Final, NamedTuple

from ratelimit.algorithms.quota import NO_EXPIRY

_SWEEP: Final = 8
"""The largest number of expired keys that one call drops for a policy: more than one call adds, so the heaps shrink."""


class Evicted(NamedTuple):
    """A key that has to go, its policy, and when (ms) it would have expired."""

    policy: str
    key: str
    until: int


def _none_is(policy: str, key: str) -> bool:
    del policy, key
    return False


class ExpiryIndex:
    """Tells when each key expires (ms), by policy.

    Where there are more than `max_keys` keys, the policy that has most of them loses the key that would expire first, or
    of several the one used longest ago; one that `is_spared(policy, key)` goes after all others. So the keys of one policy do not evict
    those of another, and invented callers do not evict a counter that is used up.
    """

    def __init__(self, max_keys: int, is_spared: Callable[[str, str], bool] = _none_is) -> None:
        self._max_keys, self._is_spared = max_keys, is_spared
        self._due: dict[str, tuple[int, int]] = {}
        self._heaps: dict[str, list[tuple[tuple[int, int], str]]] = {}
        self._spared: dict[str, list[tuple[tuple[int, int], str]]] = {}
        self._eternal: dict[str, str] = {}
        self._uses = count()
        self.next = NO_EXPIRY
        """No key expires before this instant."""

    def __len__(self) -> int:
        return len(self._due) + len(self._eternal)

    @property
    def entries(self) -> int:
        """The number of entries that all heaps hold together: each key that expires has one."""
        return sum(map(len, self._all_heaps()))

    def _all_heaps(self) -> Iterable[list[tuple[tuple[int, int], str]]]:
        return chain(self._heaps.values(), self._spared.values())

    def touch(self, key: str, at: int, policy: str) -> Evicted | None:
        """Record that `key` was used and expires at `at`; return what has to be evicted for it, if anything."""
        if at == NO_EXPIRY:
            new = key not in self._eternal
            self._eternal.pop(key, None)
            self._eternal[key] = policy  # At the end: the first one is the one used longest ago.
        else:
            before = self._due.get(key)
            new = before is None
            due = self._due[key] = at, next(self._uses)
            if before is None or at < before[0]:  # Earlier only after the clock has stepped back.
                heapq.heappush(self._heaps.setdefault(policy, []), (due, key))
                self.next = min(self.next, at)
        return self._evict() if new and len(self) > self._max_keys else None

    def discard(self, key: str) -> None:
        """Forget a key that never expires. A key that does expire stays listed until then."""
        self._eternal.pop(key, None)

    def expired(self, now: int) -> Iterator[str]:
        """Yield a few keys that have expired, and forget them."""
        for heap in self._all_heaps():
            for _ in range(_SWEEP):
                if not heap:
                    break
                (due, _), _ = heap[0]
                if due > now:
                    break
                if self._is_current(heap):
                    yield self._pop(heap)
        self.next = min((heap[0][0][0] for heap in self._all_heaps() if heap), default=NO_EXPIRY)

    def _evict(self) -> Evicted:
        sizes = {policy: len(heap) + len(self._spared.get(policy, ())) for policy, heap in self._heaps.items()}
        policy = max(sizes, key=sizes.__getitem__, default="")
        if len(self._eternal) > sizes.get(policy, 0):
            return self._evict_eternal()
        heap, spared = self._heaps[policy], self._spared.setdefault(policy, [])
        while heap:
            if self._is_current(heap, by_use=True):
                if not self._is_spared(policy, heap[0][1]):
                    return Evicted(policy, until=heap[0][0][0], key=self._pop(heap))
                heapq.heappush(spared, heapq.heappop(heap))
        while not self._is_current(spared, by_use=True):
            pass
        return Evicted(policy, until=spared[0][0][0], key=self._pop(spared))

    def _evict_eternal(self) -> Evicted:
        for _ in range(_SWEEP):
            key, policy = next(iter(self._eternal.items()))
            if not self._is_spared(policy, key):
                break
            self._eternal[key] = self._eternal.pop(key)  # At the end.
        key = next(iter(self._eternal))
        return Evicted(self._eternal.pop(key), key, NO_EXPIRY)

    def _is_current(self, heap: list[tuple[tuple[int, int], str]], *, by_use: bool = False) -> bool:
        """Say whether the first entry may go; one that is out of date is moved to its place, or dropped."""
        due, key = heap[0]
        latest = self._due.get(key)
        if latest is None:
            heapq.heappop(heap)
            return False
        if latest > due if by_use else latest[0] > due[0]:
            heapq.heapreplace(heap, (latest, key))
            return False
        return True

    def _pop(self, heap: list[tuple[tuple[int, int], str]]) -> str:
        _, key = heapq.heappop(heap)
        del self._due[key]
        return key
