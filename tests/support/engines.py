"""Both engines behind one synchronous door, for tests that replay histories."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Protocol

from ratelimit import MemoryStore, RedisStore, ServiceLimit
from ratelimit.decision import Charge, Terms
from ratelimit.rate import Rate
from ratelimit.stores.wire import Request
from tests.support.clock import ManualClock

_numbers = count()


def fresh_key() -> str:
    """Return a key that no other example has used."""
    return f"rl:{{test}}:{next(_numbers)}"


def terms(
    limit: int,
    period: int = 60,
    allowance: int = 0,
    *,
    policy: str = "p",
    shadow: bool = False,
) -> Terms:
    return Terms("limit", policy, "token", Rate(limit, period), allowance, shadow)


class Engine(Protocol):
    clock: ManualClock

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]: ...


class MemoryEngine:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self._store = MemoryStore(clock=self.clock)

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return self._store.decide(charges, peek=peek)


class RedisEngine:
    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self._store = RedisStore(url, clock=self.clock, timeout=10)
        self._runner = asyncio.Runner()

    def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> list[ServiceLimit]:
        return list(self._runner.run(self._store.charge(charges, peek=peek)))

    def batch(self, requests: Sequence[Request]) -> list[list[ServiceLimit]]:
        """Send all requests at the same moment, so that they travel together."""

        async def together() -> list[list[ServiceLimit]]:
            answers = await asyncio.gather(*(self._store.charge(r.charges, peek=r.peek) for r in requests))
            return [list(answer) for answer in answers]

        return self._runner.run(together())

    def close(self) -> None:
        self._runner.run(self._store.aclose())
        self._runner.close()


def admitted(limits: Sequence[ServiceLimit]) -> bool:
    return all(limit.retry_after == 0 or limit.shadow for limit in limits)
