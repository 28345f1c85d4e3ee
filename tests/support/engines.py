"""Both engines behind one synchronous door, for tests that replay histories."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from ratelimit import MemoryStore, RedisStore, ServiceLimit
from ratelimit.charge import Charge
from ratelimit.stores import Answer, Op, Request
from ratelimit.testing import ManualClock
from ratelimit.testing.charges import fresh_key, pace, quota, slots, terms


class Engine(Protocol):
    clock: ManualClock

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]: ...

    def run(self, request: Request) -> Answer: ...


class MemoryEngine:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self._store = MemoryStore(clock=self.clock)

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return self.run(Request(charges, Op.PEEK if peek else Op.CHARGE)).limits(charges)

    def run(self, request: Request) -> Answer:
        return self._store.run(request)


class RedisEngine:
    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self._store = RedisStore(url, clock=self.clock, timeout=10)
        self._runner = asyncio.Runner()

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return list(self._runner.run(self._store.charge(charges, peek=peek)))

    def run(self, request: Request) -> Answer:
        return self._runner.run(self._store.submit(request))

    def batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all requests at the same moment, so that they travel together."""

        async def together() -> list[Answer]:
            return list(await asyncio.gather(*(self._store.submit(request) for request in requests)))

        return self._runner.run(together())

    def close(self) -> None:
        self._runner.run(self._store.aclose())
        self._runner.close()


def admitted(limits: Sequence[ServiceLimit]) -> bool:
    return all(limit.retry_after == 0 or limit.shadow for limit in limits)


__all__ = ["Engine", "MemoryEngine", "RedisEngine", "admitted", "fresh_key", "pace", "quota", "slots", "terms"]
