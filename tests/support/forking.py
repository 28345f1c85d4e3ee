"""Forks while a limiter counts: `python -m tests.support.forking STORY URL` prints what was admitted and what was counted.

A process of its own, because pytest's has threads and event loops that must not be forked.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings

WHO = Identity(token="t", org="acme")
CHECKS = 20


def limiter_for(url: str, **options: Any) -> Limiter:
    limits = [Limit(name="token", rate="1000000/hour", per="token", **options)]
    quotas = [Quota(name="served", limit=10**9, period="month", per="org")]
    return Limiter(RateLimitSettings(store=url, store_timeout=2, limits=limits, quotas=quotas))


async def check(limiter: Limiter, count: int = CHECKS) -> int:
    """Return how many of the checks were admitted."""
    return sum([(await limiter.check(WHO)).allowed for _ in range(count)])


async def check_and_close(limiter: Limiter) -> int:
    try:
        return await check(limiter)
    finally:
        await limiter.aclose()


def in_child(work: Callable[[], int]) -> int:
    """Return what `work` returns in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return int(json.loads(text or "-1"))


def preloaded(url: str, _: int) -> int:
    """Build the app, and fork the workers before an event loop runs, as gunicorn does with `--preload`."""
    limiter = limiter_for(url)
    return sum(in_child(lambda: asyncio.run(check_and_close(limiter))) for _ in range(3))


def after_use(url: str, _: int) -> int:
    """Fork after the parent has counted; it goes on afterwards."""
    limiter = limiter_for(url, prefetch=16)
    with asyncio.Runner() as runner:
        admitted = runner.run(check(limiter))
        admitted += sum(in_child(lambda: asyncio.run(check_and_close(limiter))) for _ in range(2))
        return admitted + runner.run(check_and_close(limiter))


def in_a_running_loop(url: str, _: int) -> int:
    """Fork inside a coroutine, as `multiprocessing` does it in an async app."""
    limiter = limiter_for(url)

    async def fork() -> int:
        admitted = await check(limiter)
        admitted += in_child(lambda: asyncio.run(check_and_close(limiter)))
        return admitted + await check_and_close(limiter)

    return asyncio.run(fork())


def in_an_outage(url: str, server: int) -> int:
    """Fork when the parent has decided locally and not reported it yet; the child finds the store available again."""
    limiter = limiter_for(url)
    with asyncio.Runner() as runner:
        admitted = runner.run(check(limiter))
        os.kill(server, signal.SIGSTOP)
        try:
            admitted += runner.run(check(limiter, 8))
        finally:
            os.kill(server, signal.SIGCONT)
        admitted += in_child(lambda: asyncio.run(recovered(limiter)))
        return admitted + runner.run(recovered(limiter))


async def recovered(limiter: Limiter) -> int:
    """Check until the store decides again, and return what was admitted."""
    admitted = await check(limiter)
    async with asyncio.timeout(20):
        while limiter.enforcer.circuit_breaker.is_open:
            admitted += await check(limiter, 1)
            await asyncio.sleep(0.01)
    return admitted + await check_and_close(limiter)


STORIES = {story.__name__: story for story in (preloaded, after_use, in_a_running_loop, in_an_outage)}


async def counted(url: str) -> int:
    async with limiter_for(url) as limiter:
        return (await limiter.usage(WHO))[0].used


if __name__ == "__main__":
    name, url, server = sys.argv[1:]
    admitted = STORIES[name](url, int(server))
    print(json.dumps([admitted, asyncio.run(counted(url))]))  # noqa: T201 - its answer
