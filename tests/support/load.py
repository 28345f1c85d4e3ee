"""Steady load on a store or a limiter, and what became of each charge afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import redis

from ratelimit import Decision, Identity, Limit, Limiter, RateLimitSettings, RedisStore, StoreError
from ratelimit.charge import Charge
from ratelimit.stores import Op, Request
from tests.support.engines import terms

MANY = terms(10**6, 3600)

_names = count()


def fresh_tag() -> str:
    """Return a hash tag that nobody has used."""
    return f"load{next(_names)}"


async def until(condition: Callable[[], Any], seconds: float = 30) -> float:
    """Ask a real server again and again, and return the seconds until it says yes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(_holds, condition):  # noqa: ASYNC110 - what it waits for is a real server
            await asyncio.sleep(0.02)
    return loop.time() - began


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except redis.ConnectionError:  # It is gone, or a Sentinel hangs up on everybody.
        return False


class Load:
    """Charges one after the other in each of a few tasks, all in one slot of a Cluster, and tolerates `StoreError`.

    Each charge takes one of a counter that all share, and one of a counter of its own: so it is known afterwards of
    each whether it was lost, made, or made twice.
    """

    def __init__(self, store: RedisStore, tag: str, tasks: int = 6) -> None:
        self._store, self._tasks = store, tasks
        self.key = f"rl:{{{tag}}}:load"
        self.sent = 0
        self.acknowledged: dict[int, float] = {}
        """Which charges, and when (the event loop's time)."""
        self.errors: list[StoreError] = []
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Charge for as long as the block takes; what is no `StoreError` ends it."""
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

    async def answered(self, more: int = 30, seconds: float = 15) -> float:
        """Wait until so many charges that set out from now on are acknowledged; return how long the first took."""
        loop, first = asyncio.get_running_loop(), self.sent
        began = loop.time()
        await until(lambda: sum(number >= first for number in list(self.acknowledged)) >= more, seconds)
        return min(at for number, at in self.acknowledged.items() if number >= first) - began

    async def made(self, store: RedisStore | None = None) -> list[int]:
        """Return how often each charge stands in the store."""
        made: list[int] = []
        while len(made) < self.sent:
            some = range(len(made), min(self.sent, len(made) + 1000))
            asked = Request([Charge(MANY, f"{self.key}:{number}") for number in some], Op.USAGE)
            made += [told[0] for told in (await (store or self._store).submit(asked)).numbers]
        return made

    async def total(self) -> int:
        """Return what the shared counter says."""
        return (await self._store.submit(Request([Charge(MANY, self.key)], Op.USAGE))).numbers[0][0]


class Checks:
    """The same with a limiter, which is to raise nothing at all."""

    def __init__(self, limiter: Limiter, who: Identity, tasks: int = 4) -> None:
        self.limiter, self._who, self._tasks = limiter, who, tasks
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
            self.decisions.append(await self.limiter.check(self._who))
            self.was_away |= self.limiter._guard.absence.away
            await asyncio.sleep(0.005)

    async def degraded(self, seconds: float = 15) -> None:
        """Wait until decisions are degraded."""
        began = len(self.decisions)
        await until(lambda: any(each.degraded for each in self.decisions[began:]), seconds)

    async def shared(self, seconds: float = 15, more: int = 30) -> float:
        """Wait until the store decides again, for so many requests in a row; return how long that took."""

        def well() -> bool:
            last = self.decisions[began:][-more:]
            return len(last) == more and not any(each.degraded for each in last)

        began = len(self.decisions)
        return await until(well, seconds)


def settings(url: str, *, timeout: float = 0.5) -> RateLimitSettings:
    """Return settings with one limit by token, whose organization is the hash tag."""
    limits = [Limit(name="token", rate="1000000/hour", per="token")]
    return RateLimitSettings(store=url, store_timeout=timeout, limits=limits)
