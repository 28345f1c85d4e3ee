"""Steady load on a store or a limiter, and whether each charge was lost, made, or made twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import redis

from ratelimit import Decision, Identity, Limit, Limiter, RateLimitSettings, RedisStore, StoreError
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.stores import window_limit

MANY = window_limit(10**6, 3600)

_names = count()


def fresh_tag() -> str:
    """Return a hash tag that no other test has used."""
    return f"load{next(_names)}"


async def until(condition: Callable[[], Any], seconds: float = 90) -> float:
    """Check a condition on a real server again and again, and return the seconds until it holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(_holds, condition):  # noqa: ASYNC110 - what it waits for is a real server
            await asyncio.sleep(0.02)
    return loop.time() - began


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except redis.ConnectionError:  # The server is down, or a Sentinel closes all connections.
        return False


class Load:
    """Charges one after the other in each of a few tasks, all in one hash slot, and tolerates `StoreError`.

    Each charge takes one unit of a counter that all share, and one of a counter of its own: these show afterwards
    whether it was lost, made, or made twice.
    """

    def __init__(self, store: RedisStore, tag: str, tasks: int = 6) -> None:
        self._store, self._tasks = store, tasks
        self.key = f"rl:{{{tag}}}:load"
        self.sent = 0
        self.acknowledged: dict[int, float] = {}
        """When each acknowledged charge was acknowledged (the event loop's time), by its number."""
        self.errors: list[StoreError] = []
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Charge for as long as the block takes; any other error ends it."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._tasks):
                group.create_task(self._ask())
            try:
                yield
            finally:
                self._over = True

    async def _ask(self) -> None:
        while not self._over:
            number, self.sent = self.sent, self.sent + 1
            try:
                await self._store.charge([Charge(MANY, self.key), Charge(MANY, f"{self.key}:{number}")])
            except StoreError as error:
                self.errors.append(error)
            else:
                self.acknowledged[number] = asyncio.get_running_loop().time()
            await asyncio.sleep(0.005)

    async def answered(self, more: int = 30, seconds: float = 90) -> float:
        """Wait until `more` charges that are sent from now on are acknowledged; return how long the first took."""
        loop, first = asyncio.get_running_loop(), self.sent
        began = loop.time()
        await until(lambda: sum(number >= first for number in list(self.acknowledged)) >= more, seconds)
        return min(at for number, at in self.acknowledged.items() if number >= first) - began

    async def made(self, store: RedisStore | None = None) -> list[int]:
        """Return how often the store has counted each charge."""
        made: list[int] = []
        while len(made) < self.sent:
            some = range(len(made), min(self.sent, len(made) + 1000))
            asked = StoreRequest([Charge(MANY, f"{self.key}:{number}") for number in some], Operation.USAGE)
            made += [units for units, _, _ in (await (store or self._store).submit(asked)).readings]
        return made

    async def total(self) -> int:
        """Return the units of the shared counter."""
        return (await self._store.submit(StoreRequest([Charge(MANY, self.key)], Operation.USAGE))).readings[0][0]


class Checks:
    """Steady load on a limiter, which must raise nothing at all."""

    def __init__(self, limiter: Limiter, identity: Identity, tasks: int = 4) -> None:
        self.limiter, self._identity, self._tasks = limiter, identity, tasks
        self.decisions: list[Decision] = []
        self.was_away = False
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._tasks):
                group.create_task(self._ask())
            try:
                yield
            finally:
                self._over = True

    async def _ask(self) -> None:
        while not self._over:
            self.decisions.append(await self.limiter.check(self._identity))
            self.was_away |= self.limiter.enforcer.circuit_breaker.is_open
            await asyncio.sleep(0.005)

    async def degraded(self, seconds: float = 90) -> None:
        """Wait until decisions are degraded."""
        began = len(self.decisions)
        await until(lambda: any(each.degraded for each in self.decisions[began:]), seconds)

    async def shared(self, seconds: float = 90, more: int = 30) -> float:
        """Wait until the store decides again, for `more` requests in a row; return how long that took."""

        def well() -> bool:
            last = self.decisions[began:][-more:]
            return len(last) == more and not any(each.degraded for each in last)

        began = len(self.decisions)
        return await until(well, seconds)


def settings(url: str, *, timeout: float = 0.5) -> RateLimitSettings:
    """Return settings with one limit by token, whose organization is the hash tag."""
    limits = [Limit(name="token", rate="1000000/hour", per="token")]
    return RateLimitSettings(store=url, store_timeout=timeout, limits=limits)
