"""The promise: the script's usual way gives the replies of its general way, and leaves the same states."""

import random
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import pytest
import redis

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis.codec import SCRIPT, encode
from tests.fuzz.inputs import EXAMPLES
from tests.support.stores import concurrency_limit, quota_limit, window_limit

_SWITCH: Final = "most[i] = limit[1] == WINDOW and"
GENERAL: Final = SCRIPT.replace(_SWITCH, "most[i] = false and")
"""The script without its usual way."""

BATCHES_PER_EXAMPLE: Final = 3
DATABASES: Final = (14, 15)
"""One for each way."""

LIMITS: Final[list[list[EffectiveLimit]]] = [
    [window_limit(10**6, 1), window_limit(10**6, 1, 100, policy="a")],
    [window_limit(60, 60, 15), window_limit(61, 60, share=30), window_limit(10, 60, 20)],
    [window_limit(12, 1, 4)],
    [window_limit(200, 60), window_limit(220, 60, 20)],
    [window_limit(5, 1)],
    [window_limit(30, 3600, 10), window_limit(2**32, 3600, 5)],
    [window_limit(9, 60, shadow=True), window_limit(11, 60)],
    [quota_limit(300, "hour")],
    [concurrency_limit(3, 2000)],
]
"""By key: what it is charged under, mostly the first."""

WAITS: Final = (
    0,
    0,
    0,
    0,
    1,
    7,
    15,
    16,
    17,
    300,
    937,
    938,
    1000,
    1016,
    2032,
    30_000,
    60_937,
    125_000,
    -1,
    -900,
    -70_000,
)
ALL: Final = tuple(Operation)


def batches(seed: int) -> Iterator[tuple[int, list[StoreRequest]]]:
    """Yield instants (ms) and batches, so mixed that most requests go the usual way and all others occur."""
    chance = random.Random(seed)
    now, ample = 1_700_000_000_000 + chance.randrange(10**7), chance.random() < 0.3
    for _ in range(BATCHES_PER_EXAMPLE * chance.randrange(1, 12)):
        now += chance.choice(WAITS)
        yield now, [_request(chance, now, ample=ample) for _ in range(chance.choice((1, 1, 3, 8, 30)))]


def _request(chance: random.Random, now: int, *, ample: bool) -> StoreRequest:
    operation = Operation.CHARGE if ample or chance.random() < 0.85 else chance.choice(ALL)
    charges = []
    for number in chance.sample(range(4 if ample else len(LIMITS)), chance.randrange(1, 4)):
        limits = LIMITS[number]
        limit = limits[0] if chance.random() < 0.9 else chance.choice(limits)
        key = f"{{k}}:{number}:{chance.randrange(2)}"
        charges.append(Charge(limit, key, _cost(chance, operation)))
    if chance.random() < 0.02:
        charges.append(charges[0])
    if operation == Operation.CHARGE and any(each.limit.kind == "concurrency" for each in charges):
        operation = Operation.ACQUIRE
    if operation == Operation.RELEASE:
        charges = [each for each in charges if each.limit.kind != "concurrency"]
    if operation == Operation.RENEW:
        charges = [Charge(LIMITS[-1][0], "{k}:8:0", 1)]
    return StoreRequest(charges, operation, chance.randrange(1, 9), max(1, now - chance.choice(WAITS)))


def _cost(chance: random.Random, operation: Operation) -> int:
    cost = chance.choice((1, 1, 1, 1, 0, 2, 3, 7))
    if operation == Operation.ADJUST:
        return cost - 2
    return -cost if operation == Operation.RELEASE else cost


def at_once(client: Any, scripts: list[str], arguments: list[Any], keys: set[str]) -> list[Any]:
    """Run a batch in each way in one transaction, so that no key expires between them; return replies and states."""
    with client.pipeline() as pipe:
        for database, script in zip(DATABASES, scripts, strict=True):
            pipe.execute_command("SELECT", database)
            pipe.evalsha(script, int(arguments[0]), *arguments[1:])
            for key in sorted(keys):
                pipe.dump(key)
                pipe.pttl(key)
        found = pipe.execute()
    return [found[1 : len(found) // 2], found[len(found) // 2 + 1 :]]


def same(a: list[Any], b: list[Any]) -> bool:
    """Say whether replies and states are the same; milliseconds to live differ by what the server itself takes."""
    lives = all(abs(one - other) < 1000 for one, other in zip(a[2::2], b[2::2], strict=True))
    return a[0] == b[0] and a[1::2] == b[1::2] and lives


@pytest.mark.timeout(300 + EXAMPLES)
@pytest.mark.parametrize("part", range(4))
def test_both_ways_do_the_same(redis_url: str, part: int) -> None:
    """Byte by byte, whatever the mix of operations, limits, clock steps and foreign values."""
    assert SCRIPT != GENERAL
    ways = [redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/{database}") for database in DATABASES]
    client = redis.Redis.from_url(redis_url)
    scripts = [way.script_load(text) for way, text in zip(ways, (SCRIPT, GENERAL), strict=True)]
    for seed in range(part * EXAMPLES, (part + 1) * EXAMPLES):
        for way in ways:
            way.flushdb()
        keys: set[str] = set()
        for number, (now, requests) in zip(count(), batches(seed)):
            chosen = random.Random(number * 7919 + seed)
            if keys and chosen.random() < 0.03:
                foreign = f"{{k}}:{chosen.randrange(7)}:0"
                value = chosen.choice((b"?", b"\x04" * 29, b"\x14" + b"\0" * 28, b"\x07" + b"\0" * 40))
                for way in ways:
                    way.set(foreign, value)
            arguments = encode(requests, now=now, ttl_floor=1000, name=f"n{number}", number=number)
            keys |= {charge.key for request in requests for charge in request.charges}
            keys.add(arguments[-2].decode())
            assert same(*at_once(client, scripts, arguments, keys)), (seed, number)
    for each in (client, *ways):
        each.close()
