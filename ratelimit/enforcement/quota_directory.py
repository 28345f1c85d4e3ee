"""Quota directory: which callers have used a quota in this period, and how much they may, for all workers together."""

from collections.abc import Mapping
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.clock import Clock
from ratelimit.errors import StoreError
from ratelimit.model.calendar_period import DAY, NOMINAL, Period, start_of
from ratelimit.stores.base import Store

CAPACITY: Final = 20_000
"""Callers of one quota and period that are known; beyond that those with the smallest limits are not."""

_MAX_NOTED: Final = 100_000
_LEVELS_KEPT_S: Final = 90 * 86_400


class QuotaDirectory:
    """Keeps the counters of each quota with the limit under which they were charged last, in the store.

    A worker writes a counter once a day and period, and when its limit has changed. How much was used is not here: the counter knows.
    """

    def __init__(self, store: Store, clock: Clock, prefix: str) -> None:
        self._store, self._clock, self._prefix = store, clock, prefix
        self._noted: BoundedCache[tuple[str, str], tuple[int, int, int]] = BoundedCache(_MAX_NOTED)

    async def add(self, found: Mapping[tuple[str, Period | None], Mapping[str, int]]) -> None:
        """Note the counters (by their keys) of quotas, with their limits; raises `StoreError`."""
        for (policy, period), limits in found.items():
            start, today = self._start(period), self._clock() // 1000 // DAY
            new = {
                key: limit for key, limit in limits.items() if self._noted.get((policy, key)) != (limit, start, today)
            }
            if new:
                seconds = _LEVELS_KEPT_S if period is None else 2 * NOMINAL[period] + 2 * 86_400
                self._noted.merge({(policy, key): (limit, start, today) for key, limit in new.items()})
                try:
                    ranks = {self._name(policy, start): new}
                    await self._store.add_ranks(ranks, keep=CAPACITY, seconds=seconds, replace=True)
                except StoreError:
                    self._noted.clear()
                    raise

    async def counters(self, policy: str, period: Period | None) -> Mapping[str, int]:
        """Return the keys of the counters that were used in this period or the one before, each with its limit.

        Raises `StoreError`.
        """
        start = self._start(period)
        before = [] if period is None else [start_of(period, start - 1)]
        names = [self._name(policy, each) for each in (*before, start)]
        found: dict[str, int] = {}
        for limits in await self._store.read_ranks(names):
            found |= limits
        return found

    def _name(self, policy: str, start: int) -> str:
        return f"{self._prefix}:quota:{policy}:{start}"

    def _start(self, period: Period | None) -> int:
        return 0 if period is None else start_of(period, self._clock() // 1000)
