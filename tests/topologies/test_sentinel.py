"""A real master that Sentinels watch: it is demoted, dies, and comes back as a replica."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import redis

from ratelimit import Identity, Limiter, RedisStore
from ratelimit.stores.base import Store
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_sentinel import NAME, WatchedMaster

pytestmark = pytest.mark.topologies


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedMaster]:
    made = WatchedMaster(tmp_path_factory.mktemp("sentinel"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def store(watched: WatchedMaster) -> AsyncIterator[RedisStore]:
    opened = RedisStore(watched.url, timeout=0.5)
    async with sentinels_closed(opened):
        yield opened
        await opened.aclose()


@asynccontextmanager
async def sentinels_closed(store: Store) -> AsyncIterator[None]:
    """Close connections that a store leaves open at the Sentinels (see the last test), so that no other test sees them."""
    assert isinstance(store, RedisStore)
    manager = store.client.redis.connection_pool.sentinel_manager
    try:
        yield
    finally:
        await manager.aclose()


async def test_a_demoted_master_is_left_and_each_charge_is_made_once(watched: WatchedMaster, store: RedisStore) -> None:
    """The old master keeps its connections and replies READONLY: the new one is used, and has every acknowledged charge."""
    load = Load(store, fresh_tag())
    await until(watched.is_well)
    old, new = watched.master(), watched.replica()
    async with load.running():
        await load.answered()
        with old.client() as client:
            # Writes wait in the old master, so that all that it has acknowledged reaches the replica.
            client.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")
            offset = int(watched.info(old)["master_repl_offset"])
            await until(lambda: watched.follows(offset))
            watched.watchers[0].ask("SENTINEL", "FAILOVER", NAME)
            await until(lambda: watched.info(new)["role"] == "master")
            # Before a Sentinel does it, which would close the connections of all clients.
            with suppress(redis.ConnectionError):  # A Sentinel was faster.
                client.execute_command("REPLICAOF", "127.0.0.1", new.port)
            client.execute_command("CLIENT", "UNPAUSE")
        took = await load.answered()
    made = await load.made()
    print(f"\ndemoted: available again after {took:.1f} s; {len(load.errors)} of {load.sent} failed")  # noqa: T201
    assert {made[number] for number in load.acknowledged} == {1}
    assert set(made) <= {0, 1}
    assert await load.total() == sum(made)
    assert watched.info(new)["role"] == "master"
    await until(lambda: watched.master() is new)


async def test_a_master_that_dies_is_replaced_and_comes_back_as_a_replica(
    watched: WatchedMaster, store: RedisStore
) -> None:
    """At most the charges that had not reached the replica are lost, none is made twice, and only `StoreError` is raised."""
    load = Load(store, fresh_tag())
    await until(watched.is_well)
    old = watched.master()
    async with load.running():
        await load.answered()
        safe, offset = set(load.acknowledged), int(watched.info(old)["master_repl_offset"])
        await until(lambda: watched.follows(offset))
        await load.answered()
        old.stop()
        before = set(load.acknowledged)
        took = await load.answered()
        await until(lambda: watched.master() is not old)  # Another Sentinel may have known it first.
        await until(watched.agreed)
        old.start()  # Empty.
        await until(watched.is_well)
        await load.answered()
    made = await load.made()
    lost = {number for number in load.acknowledged if not made[number]}
    print(  # noqa: T201 - what a failover costs
        f"\nkilled: available again after {took:.1f} s; {len(lost)} of {len(before)} charges that were acknowledged"
        f" before are lost; {len(load.errors)} of {load.sent} failed"
    )
    assert took < 15
    assert lost <= before - safe
    assert set(made) <= {0, 1}
    assert await load.total() == sum(made)


async def test_a_limiter_decides_while_the_master_is_down(watched: WatchedMaster) -> None:
    """No check raises, decisions are degraded during the outage, and the limiter finds the new master."""
    await until(watched.is_well)
    limiter = Limiter(settings(watched.url))
    async with sentinels_closed(limiter.store), limiter:
        checks, old = Checks(limiter, Identity(token="t", org=fresh_tag())), watched.master()
        async with checks.running():
            await checks.shared()
            old.stop()
            await checks.degraded()
            took = await checks.shared()
        print(f"\nlimiter: shared again after {took:.1f} s")  # noqa: T201
        assert checks.was_away
        assert not limiter.enforcer.circuit_breaker.is_open
        assert all(decision.allowed for decision in checks.decisions)
    await until(watched.agreed)
    old.start()
    await until(watched.is_well)


async def test_a_closed_store_leaves_no_connection_open(watched: WatchedMaster) -> None:
    """A closed store has connections neither to the master nor to a Sentinel."""
    await until(watched.is_well)
    store, before = RedisStore(watched.url, timeout=5), clients(watched)
    async with sentinels_closed(store):
        load = Load(store, fresh_tag())
        async with load.running():
            await load.answered()
        await store.aclose()
        await until(lambda: clients(watched) <= before)


def clients(watched: WatchedMaster) -> int:
    """Return the number of connections to the master and the Sentinels, without those of Sentinels and replicas."""
    with watched.master().client() as client:
        found: Any = client.client_list()
    for watcher in watched.watchers:
        found += watcher.clients()
    # Sentinels name their connections, and the one of a replica has the flag S.
    return sum(not each["name"] and "S" not in each["flags"] for each in found)
