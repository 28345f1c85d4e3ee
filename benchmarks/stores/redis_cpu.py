"""Measure the CPU time of Redis for a decision of three windows, against three pipelined calls of a GCRA script.

Where some are refused, that is what reaches the store: a limiter answers most repeated refusals from its own memory.
`INFO commandstats` returns the microseconds that the server spent on the calls. "Hot keys" are those of a single caller;
"spread keys" are those of a thousand tokens in turn.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import median
from typing import Any

import redis as redis_py

from benchmarks.harness import compared, in_turns, redis, result
from benchmarks.report import Result
from benchmarks.stores.competitors import GCRA
from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.redis_server import RedisServer

ROUNDS, DECISIONS, PLENTY = 7, 4000, 10**9

LOG = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = redis.call('LINDEX', KEYS[1], limit - 1)
if oldest and tonumber(oldest) > now - window then return 0 end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('LTRIM', KEYS[1], 0, limit - 1)
redis.call('PEXPIRE', KEYS[1], window / 1000)
return 1
"""


def run() -> Result:
    """Measure and return microseconds of Redis per decision."""
    limits = [
        Limit(name="token", rate=f"{PLENTY}/minute", per="token", burst=0.25),
        Limit(name="org", rate=f"{PLENTY}/minute", per="org"),
        Limit(name="endpoint", rate=f"{PLENTY}/minute", per=["endpoint", "token"]),
    ]
    settings = RateLimitSettings(limits=limits)
    with redis() as server:
        measures: dict[str, Callable[[], float]] = {
            "GCRA, three calls in a pipeline": partial(script, server, GCRA, 60, 60_000_000),
            "a log in a list, three calls in a pipeline": partial(script, server, LOG, 1000, 60_000_000),
            "ours, hot keys, batches": partial(ours, server, settings, 1, 128),
            "ours, spread keys, batches": partial(ours, server, settings, 1000, 128),
            "ours, spread keys, one at a time": partial(ours, server, settings, 1000, 1),
            "ours, one of 1,000,000 keys, batches": Cold(server, settings),
            "ours, batches, 1 % refused": partial(refusing, server, settings, 0.01),
            "ours, batches, 10 % refused": partial(refusing, server, settings, 0.1),
            "ours, batches, 50 % refused": partial(refusing, server, settings, 0.5),
        }
        times = in_turns(measures, ROUNDS)
    first = next(iter(measures))
    ratios = compared(times, first)
    compared_to_gcra = ", ".join(f"{name.removeprefix('ours, ')} {ratios[name]:.2f}×" for name in list(times)[2:])
    return result(
        "redis_cpu",
        "Redis CPU per decision of three windows, against GCRA",
        goal="in batches ≤ 0.4×, with 10 % refused ≤ 0.55×, one at a time ≤ 1.0×",
        measured=f"{compared_to_gcra} ({median(times['ours, spread keys, batches']):.0f} µs in batches)",
        unit="µs of Redis",
        times=times,
        first=first,
    )


def spent(client: redis_py.Redis) -> float:
    """Return the microseconds that the server has spent on scripts since the last reset."""
    stats: Any = client.info("commandstats")
    return sum(float(stats[name]["usec"]) for name in stats if name in ("cmdstat_evalsha", "cmdstat_eval"))


def script(server: RedisServer, text: str, *arguments: int) -> float:
    """Return the cost of a decision by a script that decides one key per call."""
    with server.client() as client:
        client.flushdb()
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        client.script_load(text)
        client.config_resetstat()
        for n in range(DECISIONS):
            with client.pipeline(transaction=False) as pipe:
                for key in (f"t{n % 1000}", f"o{n % 50}", f"x:t{n % 1000}"):
                    pipe.evalsha(sha, 1, key, *arguments)
                pipe.execute()
        return spent(client) / DECISIONS


class Cold:
    """Measures decisions at random keys of a million, in another database, which is filled once."""

    TOKENS = 500_000
    """Each has two keys."""

    def __init__(self, server: RedisServer, settings: RateLimitSettings) -> None:
        self._url, self._server, self._settings = f"{server.url.rpartition('/')[0]}/1", server, settings
        self._is_filled = False

    def __call__(self) -> float:
        """Return the cost of a decision."""
        return asyncio.run(self._measure())

    async def _measure(self) -> float:
        async with Limiter(self._settings, RedisStore(self._url, timeout=10)) as limiter:
            if not self._is_filled:
                print("\r  making 1,000,000 keys", end="", flush=True)
                await self._decide(limiter, range(self.TOKENS))
            self._is_filled = True
            numbers = Random().sample(range(self.TOKENS), DECISIONS)
            await limiter.check(Identity(token="t0", org="o0"), endpoint="/x")
            with self._server.client() as client:
                client.config_resetstat()
                await self._decide(limiter, numbers)
                return spent(client) / DECISIONS

    async def _decide(self, limiter: Limiter, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), 128):
            callers = [Identity(token=f"t{n}", org=f"o{n % 50}") for n in numbers[start : start + 128]]
            await asyncio.gather(*(limiter.check(caller, endpoint="/x") for caller in callers))


def refusing(server: RedisServer, settings: RateLimitSettings, share: float) -> float:
    """Return the cost of a decision where a share of them is refused by the token's window, in random order."""
    chance = Random(7)
    used_up = EffectiveRate(policy="token", scope="token", limit=9, window=60, burst=2)
    policies = PolicyResolver(settings).policies_at(Endpoint("GET", "/x"))

    def request(number: int) -> StoreRequest:
        charges = policies.charges(Identity(token=f"t{number % 1000}", org=f"o{number % 50}"), 1)
        if chance.random() < share:
            charges = [Charge(used_up, f"{charges[0].key}:full", 1), *charges[1:]]
        return StoreRequest(charges)

    async def decide() -> None:
        store = RedisStore(server.url, timeout=10)
        full = [charge for number in range(1000) for charge in request(number).charges if charge.limit is used_up]
        for at in range(0, len(full), 100):  # Up to the last unit of the burst, in two buckets.
            await store.submit(
                StoreRequest([charge._replace(cost=5) for charge in full[at : at + 100]], Operation.ADJUST)
            )
        await asyncio.sleep(1)
        for at in range(0, len(full), 100):
            await store.submit(
                StoreRequest([charge._replace(cost=6) for charge in full[at : at + 100]], Operation.ADJUST)
            )
        with server.client() as client:
            client.config_resetstat()
        for start in range(0, DECISIONS, 128):
            await asyncio.gather(*(store.submit(request(n)) for n in range(start, start + 128)))
        await store.aclose()

    with server.client() as client:
        client.flushdb()
        asyncio.run(decide())
        return spent(client) / DECISIONS


def ours(server: RedisServer, settings: RateLimitSettings, tokens: int, at_once: int) -> float:
    """Return the cost of a decision by this package."""

    async def decide() -> None:
        async with Limiter(settings, RedisStore(server.url, timeout=10)) as limiter:
            await limiter.check(Identity(token="t0", org="o0"), endpoint="/x")
            with server.client() as client:
                client.config_resetstat()
            for start in range(0, DECISIONS, at_once):
                callers = [
                    Identity(token=f"t{n % tokens}", org=f"o{n % min(50, tokens)}")
                    for n in range(start, start + at_once)
                ]
                await asyncio.gather(*(limiter.check(caller, endpoint="/x") for caller in callers))

    with server.client() as client:
        client.flushdb()
        asyncio.run(decide())
        return spent(client) / DECISIONS
