"""Stores for tests: both behind one synchronous interface, and stores that stand for one in another process."""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from ratelimit import MemoryStore, RedisStore, ServiceLimit, StoreError
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, SharedMap, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, fresh_key, pace_limit, quota_limit, window_limit


class SyncStore(Protocol):
    """A store whose calls return when they are done, for tests that replay histories."""

    clock: ManualClock

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]: ...

    def run(self, request: StoreRequest) -> StoreReply: ...


class SyncMemoryStore:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self._store = MemoryStore(clock=self.clock)

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return self.run(StoreRequest(charges, Operation.PEEK if peek else Operation.CHARGE)).service_limits(charges)

    def run(self, request: StoreRequest) -> StoreReply:
        return self._store.run(request)


class SyncRedisStore:
    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self._store = RedisStore(url, clock=self.clock, timeout=10)
        self._runner = asyncio.Runner()

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return list(self._runner.run(self._store.charge(charges, peek=peek)))

    def run(self, request: StoreRequest) -> StoreReply:
        return self._runner.run(self._store.submit(request))

    def batch(self, requests: Sequence[StoreRequest]) -> list[StoreReply]:
        """Send all requests at the same moment, so that they travel together."""

        async def together() -> list[StoreReply]:
            return list(await asyncio.gather(*(self._store.submit(request) for request in requests)))

        return self._runner.run(together())

    def close(self) -> None:
        self._runner.run(self._store.aclose())
        self._runner.close()


class RemoteStore(Store):
    """A memory store that stands for one in another process, and keeps the requests that it got.

    It never answers in-process. While `is_down`, every call raises `StoreError`. `clock` is the clock of this process,
    by which replies are dated; the store's own clock is `ahead_us` microseconds ahead of it.
    """

    def __init__(self, clock: ManualClock, *, ahead_us: int = 0) -> None:
        self.memory = MemoryStore(clock=lambda: clock() + ahead_us)
        self.requests: list[StoreRequest] = []
        self.is_down = False
        self._clock = clock

    @property
    def calls(self) -> int:
        """The number of requests so far, failed ones included."""
        return len(self.requests)

    def used(self, charge: Charge) -> int:
        """Return what the store has counted, whether or not it is down."""
        used, _, _ = self.memory.run(StoreRequest([charge], Operation.USAGE)).readings[0]
        return used

    async def submit(self, request: StoreRequest) -> StoreReply:
        self.requests.append(request)
        if self.is_down:
            raise StoreError("down")
        return self.memory.run(request)._replace(now=self._clock())

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        return await self.memory.read_map(name, seen)

    async def put_entry(self, name: str, entry: str, value: bytes | None) -> None:
        await self.memory.put_entry(name, entry, value)

    async def aclose(self) -> None:
        pass


def admitted(limits: Sequence[ServiceLimit]) -> bool:
    return all(limit.retry_after == 0 or limit.shadow for limit in limits)


def most_in_windows(spent: list[tuple[int, int]], length: int) -> int:
    """Return the most that any span of `length` ms holds of (ms, cost); the worst span begins at one of them."""
    times = [at for at, _ in spent]
    totals = [0, *accumulate(cost for _, cost in spent)]
    return max((totals[bisect_left(times, at + length)] - totals[i] for i, at in enumerate(times)), default=0)


__all__ = [
    "RemoteStore",
    "SyncMemoryStore",
    "SyncRedisStore",
    "SyncStore",
    "admitted",
    "concurrency_limit",
    "fresh_key",
    "most_in_windows",
    "pace_limit",
    "quota_limit",
    "window_limit",
]
