"""The promise: on a Cluster nobody is refused who has room, and no call is lost, whichever hash slots move."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from zlib import crc32

import pytest
from redis.crc import key_slot

from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings, RedisStore
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import fresh_key, quota_limit, window_limit
from tests.support.load import until
from tests.support.redis_cluster import RedisCluster, moved, opened
from tests.support.redis_server import RedisServer

KNOCKERS = 8
"""Requests of the caller over the limit that are under way at a time."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path_factory.mktemp("cluster"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    made = RedisStore(cluster.url, timeout=10)
    yield made
    await made.aclose()


def fresh_tag() -> str:
    return fresh_key().replace("{", "").replace("}", "")


def keys_on(cluster: RedisCluster, server: RedisServer, count: int) -> list[str]:
    """Return fresh keys of one hash slot, which this server has."""
    while True:
        tag = f"rl:{{{fresh_tag()}}}"
        if cluster.owner(key_slot(tag.encode())) is server:
            return [f"{tag}:{number}" for number in range(count)]


async def used(store: RedisStore, charges: list[Charge]) -> list[int]:
    reply = await store.submit(StoreRequest(charges, Operation.USAGE))
    return [units for units, _, _ in reply.readings]


async def test_honest_callers_are_served_beside_one_over_the_limit(cluster: RedisCluster) -> None:
    """A caller over the limit of its address does not use up the limit of all, not for a round trip either.

    The workers' caches of rejections are avoided, since those would spare the store the knocks.
    """
    store, tag = RedisStore(cluster.url, timeout=10), fresh_tag()
    everybody = Charge(window_limit(20), f"rl:{{{tag}}}:all")
    asked = 0

    async def ask(address: str) -> StoreReply:
        charges = [everybody, Charge(window_limit(3), f"rl:{{{tag}{address}}}:ip")]
        return await store.submit(StoreRequest(charges))

    async def knock() -> None:
        nonlocal asked
        while True:
            await ask("attacker")
            asked += 1

    for _ in range(3):
        await ask("attacker")
    knocking = [asyncio.create_task(knock()) for _ in range(KNOCKERS)]
    served = 0
    for number in range(17):
        reply = await ask(f"honest{number}")
        served += all(wait_ms <= 0 for _, _, wait_ms in reply.readings)
        before = asked
        while asked < before + KNOCKERS:  # noqa: ASYNC110 - the servers are real
            await asyncio.sleep(0)
    for task in knocking:
        task.cancel()
    await asyncio.gather(*knocking, return_exceptions=True)
    await store.aclose()
    assert served == 17


async def test_a_refusal_that_another_call_may_have_caused_is_for_a_second(cluster: RedisCluster) -> None:
    """Requests that race for the last units are all or nothing, and the losers of a race ask again in a second."""
    store, tag, other = RedisStore(cluster.url, timeout=10), fresh_tag(), fresh_tag()
    charges = [Charge(window_limit(60), f"rl:{{{tag}}}:a"), Charge(window_limit(40), f"rl:{{{other}}}:b")]
    replies = await asyncio.gather(*(store.submit(StoreRequest(charges)) for _ in range(100)))
    refused = [reply for reply in replies if any(wait_ms > 0 for _, _, wait_ms in reply.readings)]
    assert len(refused) == 60
    contested = [reply for reply in refused if reply.is_contested]
    assert contested
    assert max(wait_ms for reply in contested for _, _, wait_ms in reply.readings) <= 1000
    assert await used(store, charges) == [40, 40]
    last = await store.submit(StoreRequest(charges))
    assert not last.is_contested
    assert max(wait_ms for _, _, wait_ms in last.readings) > 50_000
    await store.aclose()


async def test_a_clock_that_was_set_back_is_repaired_across_hash_slots(cluster: RedisCluster) -> None:
    """A refused request rewrites a stamp that lies ahead, although its slots are looked at before they are charged."""
    now = 1_700_000_000_000_000
    store, tag = RedisStore(cluster.url, clock=lambda: now, timeout=10), fresh_tag()
    charges = [Charge(window_limit(2), f"rl:{{{tag}{name}}}:k") for name in "ab"]
    for _ in range(3):
        await store.submit(StoreRequest(charges))
    now -= 3600 * 1_000_000
    await store.submit(StoreRequest(charges))
    now += 61 * 1_000_000
    reply = await store.submit(StoreRequest(charges))
    await store.aclose()
    assert all(wait_ms <= 0 for _, _, wait_ms in reply.readings)


async def test_a_call_in_doubt_is_found_after_its_hash_slot_has_moved(cluster: RedisCluster) -> None:
    """The node that has the slot now knows the call's reply, and nothing stays in doubt."""
    here, there = cluster.servers[:2]
    store, orphaned = RedisStore(cluster.url, timeout=0.7), list[Any]()
    (key,) = keys_on(cluster, here, 1)
    charge = Charge(quota_limit(100, "day"), key)
    await store.submit(StoreRequest([charge]))
    here.pause()
    calls = [
        store.submit(StoreRequest([charge], on_orphaned=lambda _, reply: orphaned.append(reply))),
        store.submit(StoreRequest([charge], Operation.ADJUST)),
    ]
    assert [type(each).__name__ for each in await asyncio.gather(*calls, return_exceptions=True)] == [
        "StoreTimeout",
        "StoreTimeout",
    ]
    here.go_on()
    await until(lambda: all(map(cluster.is_well, cluster.servers)))  # The others may have taken it for dead.
    await moved(cluster, key_slot(key.encode()), there)
    async with asyncio.timeout(60):
        while not await store.resolve_in_doubt():  # noqa: ASYNC110 - the servers are real
            await asyncio.sleep(0.05)
    assert await used(store, [charge]) == [2 + len(orphaned)]
    await store.aclose()


async def test_a_hash_slot_that_is_being_migrated_is_counted_exactly(cluster: RedisCluster, store: RedisStore) -> None:
    """Keys that have moved, keys that have not, new keys, and requests with all of them: as long as the slot is open."""
    here, there = cluster.servers[:2]
    keys = keys_on(cluster, here, 6)
    charges = [Charge(quota_limit(100, "day"), key) for key in keys]
    await store.submit(StoreRequest(charges[:4]))
    with opened(cluster, key_slot(keys[0].encode()), there, keys[:2]):
        for _ in range(3):
            for charge in charges:
                reply = await store.submit(StoreRequest([charge]))
                assert reply.readings[0][2] <= 0
        await store.submit(StoreRequest(charges))
        await asyncio.gather(*(store.submit(StoreRequest([charges[n % 6]])) for n in range(60)))
        assert await used(store, charges) == [15, 15, 15, 15, 14, 14]
        await store.submit(StoreRequest([charge._replace(cost=-4) for charge in charges], Operation.ADJUST))
    assert await used(store, charges) == [11, 11, 11, 11, 10, 10]


async def test_an_organization_is_served_while_its_hash_slot_is_left_open(cluster: RedisCluster) -> None:
    """A reshard that has crashed leaves a slot between two nodes for as long as nobody repairs it."""
    settings = RateLimitSettings(
        store=cluster.url,
        store_timeout=2,
        limits=[Limit(name="token", rate="100/hour", per="token"), Limit(name="org", rate="1000/hour", per="org")],
        quotas=[Quota(name="day", limit=1000, period="day", per="org")],
        key_prefix=fresh_tag(),
    )
    async with Limiter(settings) as limiter:
        org = fresh_tag()
        await limiter.check(Identity(token="t0", org=org))
        slot = key_slot(f"{{{org}}}".encode())
        here = cluster.owner(slot)
        there = next(server for server in cluster.servers if server is not here)
        with opened(cluster, slot, there, []):
            decisions = [await limiter.check(Identity(token=f"t{n % 5}", org=org)) for n in range(30)]
            assert [(each.allowed, each.degraded) for each in decisions] == [(True, False)] * 30
        assert (await limiter.usage(Identity(token="t0", org=org)))[0].used == 31


async def test_partitions_let_organizations_travel_together(cluster: RedisCluster, store: RedisStore) -> None:
    """Requests of many organizations need fewer calls; each is counted by itself. With another number, those start at zero that move."""
    name = fresh_tag()
    limits = [Limit(name="org", rate="3/minute", per="org"), Limit(name="token", rate="100/minute", per="token")]
    callers = [Identity(token=f"t{number}", org=f"o{number}") for number in range(60)]

    async def decided(partitions: int | None) -> tuple[list[int], float]:
        settings = RateLimitSettings(limits=limits, key_prefix=name, partitions=partitions)
        limiter = Limiter(settings, RedisStore(cluster.url, timeout=2))
        async with limiter:
            await limiter.check(Identity(org="warm"))
            before = limiter.store.batches.number  # type: ignore[union-attr]
            decisions = await asyncio.gather(*(limiter.check(each) for each in callers for _ in range(4)))
            calls = limiter.store.batches.number - before  # type: ignore[union-attr]
        return [sum(each.allowed for each in decisions[at : at + 4]) for at in range(0, 240, 4)], calls

    apart, together, other = await decided(None), await decided(6), await decided(7)
    assert apart[0] == together[0] == [3] * 60
    assert together[1] < apart[1] / 2
    numbers = [crc32(f"o{number}".encode()) for number in range(60)]
    assert other[0] == [0 if number % 6 == number % 7 else 3 for number in numbers]
    assert (await decided(6))[0] == [0] * 60
