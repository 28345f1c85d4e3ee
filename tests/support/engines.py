"""Both engines behind one synchronous door, for tests that replay histories."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Protocol

from ratelimit import MemoryStore, RedisStore, ServiceLimit
from ratelimit.charge import NEVER, Charge, Terms
from ratelimit.periods import NOMINAL, Period
from ratelimit.stores import Answer, Op, Request
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
    share: int | None = None,
) -> Terms:
    return Terms(
        kind="limit",
        policy=policy,
        scope="token",
        limit=limit,
        window=period,
        allowance=allowance,
        shadow=shadow,
        share=share,
    )


def quota(
    limit: int, period: Period | None, *, policy: str = "q", shadow: bool = False, share: int | None = None
) -> Terms:
    window = NOMINAL[period] if period else 0
    numbers = {"limit": limit, "window": window, "share": share}
    return Terms(kind="quota", policy=policy, scope="org", period=period, shadow=shadow, status=403, **numbers)  # type: ignore[arg-type]


def slots(
    limit: int, lease: int = 60_000, *, policy: str = "s", shadow: bool = False, share: int | None = None
) -> Terms:
    return Terms(kind="concurrency", policy=policy, scope="org", limit=limit, lease=lease, shadow=shadow, share=share)


def pace(limit: int, period: int = 1, patience: int = NEVER, *, policy: str = "t") -> Terms:
    return Terms(kind="pace", policy=policy, scope="global", limit=limit, window=period, patience=patience)


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
