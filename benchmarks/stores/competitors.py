"""Requests of three layers (token, organization, endpoint), decided by this package and by other libraries.

`python -m benchmarks.stores.competitors NAME URL CONCURRENCY SECONDS` runs one competitor and prints its figures as JSON.
Imports are local: the other libraries are installed in another virtual environment.
"""
# ruff: noqa: PLC0415

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from statistics import median
from time import perf_counter, process_time
from typing import Any

Decide = Callable[[int], Awaitable[object]]
"""Decides the request of this number."""

TOKENS, ORGS, PLENTY = 1000, 50, 10**9
_WARM_UP = 200

GCRA = """
local interval, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), redis.call('TIME')
now = now[1] * 1000000 + now[2]
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then tat = now end
local new = tat + interval
if new - burst > now then return {0, 0, string.format('%.0f', new - burst - now)} end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return {1, math.floor((burst - (new - now)) / interval), '0'}
"""


async def ours(url: str) -> Decide:
    """Charge sliding windows in one step, with all numbers for headers: this package."""
    from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore

    limits = [
        Limit(name="token", rate=f"{PLENTY}/minute", per="token", burst=0.25),
        Limit(name="org", rate=f"{PLENTY}/minute", per="org"),
        Limit(name="endpoint", rate=f"{PLENTY}/minute", per=["endpoint", "token"]),
    ]
    limiter = Limiter(RateLimitSettings(limits=limits), RedisStore(url, timeout=10))

    async def decide(n: int) -> object:
        decision = await limiter.check(Identity(token=f"t{n % TOKENS}", org=f"o{n % ORGS}"), endpoint="/x")
        return decision.binding

    return decide


async def ours_without_batches(url: str) -> Decide:
    """Make a call for each request: this package without batching."""
    from ratelimit.stores.redis import batching

    vars(batching).update(MAX_BATCH_REQUESTS=1, MAX_IN_FLIGHT=7)
    return await ours(url)


async def ours_on_uvloop(url: str) -> Decide:
    """Run this package on uvloop's event loop (see `_run`)."""
    return await ours(url)


async def _limits(url: str, strategy: str) -> Decide:
    from limits import RateLimitItemPerMinute
    from limits.aio import strategies
    from limits.aio.storage import RedisStorage

    limiter = getattr(strategies, strategy)(RedisStorage(f"async+{url}", implementation="redispy"))
    items = [RateLimitItemPerMinute(PLENTY, namespace=name) for name in ("token", "org", "endpoint")]

    async def decide(n: int) -> object:
        names = (f"t{n % TOKENS}", f"o{n % ORGS}", f"x:t{n % TOKENS}")
        for item, name in zip(items, names, strict=True):
            await limiter.hit(item, name)
        return [await limiter.get_window_stats(item, name) for item, name in zip(items, names, strict=True)]

    return decide


async def limits_sliding_window(url: str) -> Decide:
    """`limits`, sliding-window counter, with the numbers for headers: one layer after the other."""
    return await _limits(url, "SlidingWindowCounterRateLimiter")


async def limits_moving_window(url: str) -> Decide:
    """`limits`, moving window, with the numbers for headers."""
    return await _limits(url, "MovingWindowRateLimiter")


async def throttled(url: str) -> Decide:
    """`throttled-py`, GCRA: one layer after the other."""
    from throttled.asyncio import RateLimiterType, Throttled, rate_limiter
    from throttled.asyncio.store import RedisStore

    store = RedisStore(server=url)
    one = Throttled(using=RateLimiterType.GCRA.value, quota=rate_limiter.per_min(10**7), store=store)

    async def decide(n: int) -> object:
        return [await one.limit(name) for name in (f"t{n % TOKENS}", f"o{n % ORGS}", f"x:t{n % TOKENS}")]

    return decide


async def fastapi_redis_sdk(url: str) -> Decide:
    """`fastapi-redis-sdk`, fixed-window counter with numbers: one layer after the other."""
    from redis.asyncio import Redis
    from redis_fastapi.ratelimit_backend import RateLimitBackend

    backend = RateLimitBackend(Redis.from_url(url))

    async def decide(n: int) -> object:
        names = (f"t{n % TOKENS}", f"o{n % ORGS}", f"x:t{n % TOKENS}")
        return [await backend.hit(name, limit=PLENTY, window=60) for name in names]

    return decide


async def gcra_by_hand(url: str) -> Decide:
    """Send three calls of a GCRA script in one pipeline, as one would write it by hand with redis-py; all numbers."""
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    sha = await client.script_load(GCRA)

    async def decide(n: int) -> object:
        async with client.pipeline(transaction=False) as pipe:
            for name in (f"t{n % TOKENS}", f"o{n % ORGS}", f"x:t{n % TOKENS}"):
                pipe.evalsha(sha, 1, f"gcra:{name}", 60, 60_000_000)
            return await pipe.execute()

    return decide


async def fastapi_limiter(url: str) -> Decide:
    """`fastapi-limiter` (pyrate-limiter), its log in a sorted set: one layer after the other, no numbers."""
    from pyrate_limiter import BucketFactory, Duration, Limiter, Rate, RateItem, RedisBucket
    from redis.asyncio import Redis

    client, rates, buckets = Redis.from_url(url), [Rate(10**7, Duration.MINUTE)], dict[str, Any]()
    names = [f"{kind}{n}" for kind, most in (("t", TOKENS), ("o", ORGS), ("x", TOKENS)) for n in range(most)]
    for name in names:
        made: Any = RedisBucket.init(rates, client, f"pyrate:{name}")
        buckets[name] = await made

    class Factory(BucketFactory):
        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return RateItem(name, int(perf_counter() * 1000), weight=weight)

        def get(self, item: Any) -> Any:
            return buckets[item.name]

    limiter = Limiter(Factory())

    async def decide(n: int) -> object:
        layers = (f"t{n % TOKENS}", f"o{n % ORGS}", f"x{n % TOKENS}")
        return [await limiter.try_acquire_async(name, blocking=False) for name in layers]

    return decide


async def slowapi(url: str) -> Decide:
    """`slowapi` as in its documentation: three decorators on a FastAPI endpoint, headers on, blocking Redis calls."""
    from fastapi import FastAPI, Request, Response
    from slowapi import Limiter

    limiter = Limiter(key_func=lambda request: "", storage_uri=url, headers_enabled=True)
    app = FastAPI()
    app.state.limiter = limiter

    async def endpoint(request: Request, response: Response) -> str:
        return "ok"

    for name in ("x-token", "x-org", "x-endpoint"):

        def key(request: Request, name: str = name) -> str:
            return name + request.headers[name]

        endpoint = limiter.limit(f"{10**7}/minute", key_func=key)(endpoint)
    app.get("/x")(endpoint)

    async def decide(n: int) -> object:
        values = {"x-token": f"t{n % TOKENS}", "x-org": f"o{n % ORGS}", "x-endpoint": f"t{n % TOKENS}"}
        return await _call(app, [(name.encode(), value.encode()) for name, value in values.items()])

    return decide


async def _call(app: Any, headers: list[tuple[bytes, bytes]]) -> int:
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("1.1.1.1", 1),
        "server": ("x", 80),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await app(scope, receive, send)
    if statuses != [200]:
        raise RuntimeError(statuses)
    return statuses[0]


COMPETITORS = {
    "ours": ours,
    "ours, on uvloop": ours_on_uvloop,
    "ours, a call each": ours_without_batches,
    "limits, sliding-window counter": limits_sliding_window,
    "limits, moving window": limits_moving_window,
    "throttled-py, GCRA": throttled,
    "fastapi-redis-sdk, fixed window": fastapi_redis_sdk,
    "fastapi-limiter, log": fastapi_limiter,
    "GCRA by hand, in a pipeline": gcra_by_hand,
    "slowapi, fixed window": slowapi,
}
OURS = ("ours", "ours, on uvloop", "ours, a call each")


def interpreter(name: str, peers: str) -> str:
    """Return the interpreter that runs a competitor: `peers` is that of the other libraries, where uvloop is, too."""
    return sys.executable if name in OURS and not name.endswith("uvloop") else peers


async def measure(
    make: Callable[[str], Awaitable[Decide]], url: str, concurrency: int, seconds: float
) -> dict[str, float]:
    """Keep `concurrency` requests in flight for `seconds`, and return decisions per second, the median latency and CPU."""
    decide, numbers, waits = await make(url), count(), list[float]()
    for n in range(_WARM_UP):
        await decide(n)
    ends = perf_counter() + seconds

    async def worker() -> None:
        while (began := perf_counter()) < ends:
            await decide(next(numbers))
            waits.append(perf_counter() - began)

    began, cpu = perf_counter(), process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return {
        "per_second": len(waits) / (perf_counter() - began),
        "p50_ms": median(waits) * 1000,
        "cpu_us": (process_time() - cpu) / len(waits) * 1e6,
        "decisions": len(waits),
        "warm_up": _WARM_UP,
    }


def _run(name: str, figures: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    if not name.endswith("uvloop"):
        return asyncio.run(figures)
    import uvloop

    measured: dict[str, float] = uvloop.run(figures)
    return measured


if __name__ == "__main__":
    name, address, concurrency, seconds = sys.argv[1:]
    url = f"{address}?max_connections=1000"  # No competitor runs out of connections.
    print(json.dumps(_run(name, measure(COMPETITORS[name], url, int(concurrency), float(seconds)))))
