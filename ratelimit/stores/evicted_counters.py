"""What evicted counters had used, so that no caller gets more by being forgotten."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from ratelimit._utils.bounded_cache import LruCache

MIN_GROUPS: Final = 1024
"""Groups of each policy at least."""

_KEYS_PER_GROUP: Final = 8


class EvictedCounters:
    """Keeps evicted counters in a bounded memory: a counter that is made again begins with what its group has used.

    So the bound of each caller holds also where more counters are used than are kept. Evicted counters of one group are kept
    as one, which has used as much as any of them, so a caller may begin with what another one has used: little, since the
    least used counters are evicted first, until their window or period has passed. Each policy has a group for every eight of
    `max_keys`, and 1024 at least. Keys are hashes, so which of them share a group differs in each process.
    """

    def __init__(self, max_keys: int) -> None:
        self._number = max(MIN_GROUPS, max_keys // _KEYS_PER_GROUP)
        self._groups: dict[tuple[str, int], tuple[Any, int]] = {}
        self._policies: set[str] = set()
        self._emptied: LruCache[int, None] = LruCache(self._number)

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, policy: str, key: int, state: Any, until: int) -> None:
        """Keep the state of an evicted counter until an instant (ms)."""
        self._emptied.pop(key, None)
        self._policies.add(policy)
        group = policy, key % self._number
        known, known_until = self._groups.get(group, (None, 0))
        if type(known) is type(state):
            state, until = state.merged(known), max(until, known_until)
        self._groups[group] = state, until

    def state_for(self, policy: str, key: int, now: int, empty: Callable[[], Any]) -> Any:
        """Return the state with which a counter begins at `now` (ms)."""
        group = policy, key % self._number
        state, until = self._groups.get(group, (None, 0))
        if until <= now:
            self._groups.pop(group, None)
            return empty()
        return empty() if key in self._emptied else deepcopy(state)

    def empty(self, key: int) -> None:
        """Let a counter that was evicted begin with nothing: an operator has emptied it. Others of its group do not."""
        if any((policy, key % self._number) in self._groups for policy in self._policies):
            self._emptied.put(key, None)
