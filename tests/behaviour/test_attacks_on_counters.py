"""The promise: whoever may write to the Redis gets nobody admitted without bound by garbage under the keys of the counters.

The attacker is another program that may write. It can empty a counter or fill it, as SECURITY.md says; garbage counts as empty
once, or as full until the window ends, requests of other callers are decided as ever, and no answer is a 5xx.
"""

import asyncio
import time

import pytest

from ratelimit import Identity, Limit
from tests.support.surfaces import put, surfaces

BYTES = [
    b"",
    b"\x00",
    b"\x04",
    b"\xff" * 29,
    b"\x00" * 29,
    b"\x04" + b"\x00" * 28,
    b"\x04" + b"\xff" * 28,
    b"\x07" + b"\xff" * 40,
]
BYTES += [
    b"\x14" + b"\xff" * 42,
    b"\x04" + b"\xff" * 42,
    b"\xff" * 20,
    b"\x00" * 20,
    b'{"json": 1}',
    b"\x93\x01\x02\x03",
]


@pytest.mark.parametrize("value", BYTES, ids=range(len(BYTES)))
async def test_a_garbage_counter_admits_nobody_without_bound(redis_url: str, value: bytes) -> None:
    """Garbage counts as an empty counter or as a full one: within a window no more is admitted than the limit, once more."""
    async with surfaces(redis_url) as attacked:
        await attacked.ask(token="tk")
        for key in attacked.redis.keys("rl:{acme}:*"):
            attacked.redis.set(key, value)
        statuses = [await attacked.ask(token="tk") for _ in range(20)]
        assert set(statuses) <= {200, 403, 429}
        assert statuses.count(200) <= 3
        assert await attacked.bad_pages() == {}


@pytest.mark.parametrize("kind", ["list", "set", "hash", "zset", "stream"])
async def test_a_counter_of_another_type_is_begun_anew(redis_url: str, kind: str) -> None:
    """It counts as empty; from then on the limit holds."""
    async with surfaces(redis_url) as attacked:
        await attacked.ask(token="tk")
        for key in attacked.redis.keys("rl:{acme}:*"):
            put(attacked.redis, key, kind)
        statuses = [await attacked.ask(token="tk") for _ in range(20)]
        assert statuses[-1] == 429
        assert statuses.count(200) <= 3
        assert await attacked.bad_pages() == {}


async def test_one_broken_counter_leaves_other_callers_alone(redis_url: str) -> None:
    """A batch holds requests of several callers: those beside a broken one are decided as ever."""
    async with surfaces(redis_url) as attacked:
        await attacked.ask(token="tk")
        for key in attacked.redis.keys("rl:{acme}:*"):
            put(attacked.redis, key, "list")
        asked = [
            attacked.ask(token="tk") if each % 2 else attacked.ask(token=f"t{each}", org=f"o{each}")
            for each in range(20)
        ]
        statuses = await asyncio.gather(*asked)
        assert statuses[::2] == [200] * 10
        assert list(statuses[1::2]).count(200) <= 3


@pytest.mark.parametrize("head", [b"\x04", b"\x14"])
async def test_a_counter_of_fifty_megabytes_is_survived(redis_url: str, head: bytes) -> None:
    """A huge value under a counter's key costs the server moments, once, and no worker an error."""
    limits = [Limit(name="agents", rate="3/hour", per="token")]
    async with surfaces(redis_url, limits=limits, quotas=[], concurrency=[]) as attacked:
        await attacked.ask(token="tk")
        (key,) = attacked.redis.keys("rl:{acme}:agents:*")
        attacked.redis.set(key, head + b"\x00" * 28 + b"\x00" * 14 * 3_500_000)
        began = time.monotonic()
        statuses = [await attacked.ask(token="tk") for _ in range(10)]
        assert statuses.count(200) <= 3
        assert set(statuses) <= {200, 429}
        assert time.monotonic() - began < 3
        assert attacked.redis.strlen(key) < 10_000


async def test_a_level_that_is_garbage_can_be_reset(redis_url: str) -> None:
    """A level has no end by itself: an operator empties one that is garbage, as any other."""
    async with surfaces(redis_url) as attacked:
        who = Identity(org="acme")
        await attacked.limiter.consume("stored", who, 1)
        (key,) = attacked.redis.keys("rl:{acme}:stored:*")
        attacked.redis.set(key, b"\xff" * 20)
        assert not (await attacked.limiter.check(who, policies=["stored"])).allowed
        assert await attacked.bad_pages() == {}
        await attacked.limiter.reset(who, "stored")
        assert (await attacked.limiter.check(who, policies=["stored"])).allowed
