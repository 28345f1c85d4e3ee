"""When the keys of a memory store expire, and which one is evicted where there are too many."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import Final, NamedTuple

from ratelimit.algorithms.quota import NO_EXPIRY

KEY_BITS: Final = 60
"""Bits of the hash that stands for a key: an integer of so many takes 32 bytes, and two of a million are equal once in a million times."""

_USE_BITS: Final = 40
"""Bits of the number of a use: a million million of them."""

_SWEEP: Final = 8
"""The largest number of expired keys that one call drops for a policy: more than one call adds, so the heaps shrink."""


class Evicted(NamedTuple):
    """A key that has to go, its policy, and when (ms) it would have expired."""

    policy: str
    key: int
    until: int


def _none_is(policy: str, key: int) -> bool:
    del policy, key
    return False


class ExpiryIndex:
    """Tells when each key expires (ms), by policy. Keys are integers of `KEY_BITS`.

    Where there are more than `max_keys` keys, the policy that has most of them loses the key that would expire first, or
    of several the one used longest ago; one that `is_spared(policy, key)` goes after all others. So the keys of one policy do not evict
    those of another, and invented callers do not evict a counter that is used up.

    An entry of a heap is one integer: when the key expires, the number of its use, and the key. So a key that is used once
    takes some 50 bytes here; what it is used for later is kept beside, and its entry is moved when it comes up.
    """

    def __init__(self, max_keys: int, is_spared: Callable[[str, int], bool] = _none_is) -> None:
        self._max_keys, self._is_spared = max_keys, is_spared
        self._later: dict[int, int] = {}
        self._heaps: dict[str, list[int]] = {}
        self._spared: dict[str, list[int]] = {}
        self._eternal: dict[int, str] = {}
        self._uses = count()
        self.next = NO_EXPIRY
        """No key expires before this instant."""

    def __len__(self) -> int:
        return self.entries + len(self._eternal)

    @property
    def entries(self) -> int:
        """The number of entries that all heaps hold together: each key that expires has one."""
        return sum(map(len, self._all_heaps()))

    def _all_heaps(self) -> Iterable[list[int]]:
        return chain(self._heaps.values(), self._spared.values())

    def touch(self, key: int, at: int, policy: str, *, is_new: bool) -> Evicted | None:
        """Record that `key` was used and expires at `at`; return what has to be evicted for it, if anything.

        `is_new` says that the store had no such key. An expiry that is earlier than before has no effect.
        """
        if at == NO_EXPIRY:
            is_new = key not in self._eternal
            self._eternal.pop(key, None)
            self._eternal[key] = policy  # At the end: the first one is the one used longest ago.
        else:
            due = at << _USE_BITS | next(self._uses)
            if is_new and key not in self._later:
                heapq.heappush(self._heaps.setdefault(policy, []), due << KEY_BITS | key)
                self.next = min(self.next, at)
            else:
                is_new = False
                self._later[key] = max(due, self._later.get(key, 0))
        return self._evict() if is_new and len(self) > self._max_keys else None

    def discard(self, key: int) -> None:
        """Forget a key that the store has dropped. One that expires stays listed until then."""
        if self._eternal.pop(key, None) is None:
            self._later[key] = 0

    def expired(self, now: int) -> Iterator[int]:
        """Yield a few keys that have expired, and forget them."""
        for heap in self._all_heaps():
            for _ in range(_SWEEP):
                if not heap or _at(heap[0]) > now:
                    break
                if self._is_current(heap):
                    yield self._pop(heap)
        self.next = min((_at(heap[0]) for heap in self._all_heaps() if heap), default=NO_EXPIRY)

    def _evict(self) -> Evicted:
        sizes = {policy: len(heap) + len(self._spared.get(policy, ())) for policy, heap in self._heaps.items()}
        policy = max(sizes, key=sizes.__getitem__, default="")
        if len(self._eternal) > sizes.get(policy, 0):
            return self._evict_eternal()
        heap, spared = self._heaps[policy], self._spared.setdefault(policy, [])
        while heap:
            if self._is_current(heap, by_use=True):
                if not self._is_spared(policy, _key(heap[0])):
                    return Evicted(policy, until=_at(heap[0]), key=self._pop(heap))
                heapq.heappush(spared, heapq.heappop(heap))
        while not self._is_current(spared, by_use=True):
            pass
        return Evicted(policy, until=_at(spared[0]), key=self._pop(spared))

    def _evict_eternal(self) -> Evicted:
        for _ in range(_SWEEP):
            key, policy = next(iter(self._eternal.items()))
            if not self._is_spared(policy, key):
                break
            self._eternal[key] = self._eternal.pop(key)  # At the end.
        key = next(iter(self._eternal))
        return Evicted(self._eternal.pop(key), key, NO_EXPIRY)

    def _is_current(self, heap: list[int], *, by_use: bool = False) -> bool:
        """Say whether the first entry may go; one whose key was used later is moved to its place."""
        due, key = heap[0] >> KEY_BITS, _key(heap[0])
        later = self._later.get(key, 0)
        if later > due if by_use else later >> _USE_BITS > due >> _USE_BITS:
            heapq.heapreplace(heap, later << KEY_BITS | key)
            del self._later[key]
            return False
        return True

    def _pop(self, heap: list[int]) -> int:
        key = _key(heapq.heappop(heap))
        self._later.pop(key, None)
        return key


def _at(entry: int) -> int:
    return entry >> _USE_BITS + KEY_BITS


def _key(entry: int) -> int:
    return entry & (1 << KEY_BITS) - 1
