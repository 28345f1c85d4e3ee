"""Measure the latency of one decision at a time, against a bare EVALSHA of an empty script with the same keys."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

import redis.asyncio

from benchmarks.harness import compared, result
from benchmarks.harness import redis as redis_server
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore
from ratelimit.stores.redis.codec import encode_command
from ratelimit.stores.redis.connection import PipelinedConnection

ROUNDS, CALLS = 15, 300
ARGUMENT = b"0123456789012345678901234567890123456789"
BARE = "EVALSHA of an empty script"
OWN_BARE = "the same, over a connection of this package"
OURS = "a decision of three windows"


def run() -> Result:
    """Measure and return microseconds per call."""
    limits = [
        Limit(name="token", rate="1000000/minute", per="token", burst=0.25),
        Limit(name="org", rate="1000000/minute", per="org"),
        Limit(name="endpoint", rate="1000000/minute", per=["endpoint", "token"]),
    ]
    with redis_server() as server:
        times = asyncio.run(measure(server.url, RateLimitSettings(limits=limits)))
    seen = compared(times, BARE)
    return result(
        "redis_latency",
        "Latency of one decision at a time, against an empty script",
        goal="≤ 1.1×; ≤ 2.6× over this package's own connection",
        measured=f"{seen[OURS]:.2f}×; {compared(times, OWN_BARE)[OURS]:.1f}×",
        unit="µs",
        times=times,
        first=BARE,
    )


async def measure(url: str, settings: RateLimitSettings) -> dict[str, list[float]]:
    """Return the rounds of all three, which take turns."""
    client = redis.asyncio.Redis.from_url(url)
    sha = await client.script_load("return ''")
    caller = Identity(token="t", org="o")
    connection = PipelinedConnection(client.connection_pool.make_connection())  # type: ignore[no-untyped-call]
    await connection.connect()
    times: dict[str, list[float]] = {BARE: [], OWN_BARE: [], OURS: []}
    async with Limiter(settings, RedisStore(url, timeout=10)) as limiter:
        policies = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/x"))
        keys = [charge.key for charge in policies.charges(caller)]
        command = encode_command(b"EVALSHA", sha.encode(), b"%d" % len(keys), *map(str.encode, keys), ARGUMENT)
        measures: dict[str, Callable[[], Awaitable[object]]] = {
            BARE: lambda: client.evalsha(sha, len(keys), *keys, ARGUMENT),
            OWN_BARE: lambda: _called(connection, command),
            OURS: lambda: limiter.check(caller, endpoint="/x"),
        }
        for _ in range(ROUNDS):
            for name, measured in measures.items():
                began = perf_counter()
                for _ in range(CALLS):
                    await measured()
                times[name].append((perf_counter() - began) / CALLS * 1e6)
    await connection.aclose()
    await client.aclose()
    return times


async def _called(connection: PipelinedConnection, command: bytes) -> object:
    loop = asyncio.get_running_loop()
    reply = loop.create_future()
    connection.call(command, reply.set_result, loop.time() + 10)
    return await reply
