"""A real Redis Cluster with replicas, one of whose masters dies under load."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from redis.crc import key_slot

from ratelimit import Identity, Limiter, RedisStore
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.topologies


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path_factory.mktemp("replicated"), 3, 1)
    made.start()
    for server in made.servers:  # Otherwise the servers refuse all slots while one of them is not served.
        made.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    yield made
    made.stop()


def tags(cluster: RedisCluster) -> dict[RedisServer, str]:
    """Return a fresh hash tag for each master."""
    found: dict[RedisServer, str] = {}
    while len(found) < 3:
        tag = fresh_tag()
        found.setdefault(cluster.owner(key_slot(tag.encode())), tag)
    return found


async def test_a_master_that_dies_is_replaced_and_other_masters_are_not_affected(cluster: RedisCluster) -> None:
    """The promoted replica serves its slots, no charge is made twice, and calls for other slots do not fail."""
    await until(lambda: all(cluster.is_well(server) for server in cluster.servers))
    store = RedisStore(cluster.url, timeout=5)
    loads = {server: Load(store, tag, tasks=3) for server, tag in tags(cluster).items()}
    lost_server, hit = next(iter(loads.items()))
    async with AsyncExitStack() as stack:
        for load in loads.values():
            await stack.enter_async_context(load.running())
        for load in loads.values():
            await load.answered()
        lost_server.stop()
        before = set(hit.acknowledged)
        took = await hit.answered()
        for load in loads.values():
            await load.answered()
    made = await hit.made()
    lost = [number for number in hit.acknowledged if not made[number]]
    print(  # noqa: T201 - what a failover costs
        f"\nCluster: available again after {took:.1f} s; {len(lost)} of {len(before)} charges that were acknowledged"
        f" before are lost; {len(hit.errors)} of {hit.sent} failed"
    )
    assert before.issuperset(lost)
    assert set(made) <= {0, 1}
    assert await hit.total() == sum(made)
    for load in loads.values():
        if load is not hit:
            assert load.errors == []
            assert await load.made() == [1] * load.sent
    await store.aclose()
    lost_server.start()
    await until(lambda: all(cluster.is_well(server) for server in cluster.servers))


async def test_a_limiter_decides_while_a_master_is_down(cluster: RedisCluster) -> None:
    """No check raises, decisions are degraded during the outage, and the limiter finds the promoted replica."""
    await until(lambda: all(cluster.is_well(server) for server in cluster.servers))
    async with Limiter(settings(cluster.url)) as limiter:
        server, tag = next(iter(tags(cluster).items()))
        checks = Checks(limiter, Identity(token="t", org=tag))
        async with checks.running():
            await checks.shared()
            server.stop()
            await checks.degraded()
            took = await checks.shared()
        print(f"\nlimiter: shared again after {took:.1f} s")  # noqa: T201 - what a failover costs
        assert checks.was_away
        assert not limiter.enforcer.circuit_breaker.is_open
        assert all(decision.allowed for decision in checks.decisions)
    server.start()
    await until(lambda: all(cluster.is_well(each) for each in cluster.servers))


async def test_a_request_without_charges_is_not_redirected(cluster: RedisCluster) -> None:
    """A request without charges is one call, to a node that serves its hash slot."""
    await until(lambda: all(cluster.is_well(server) for server in cluster.servers))
    store = RedisStore(cluster.url, timeout=5)
    try:
        before = redirections(cluster)
        for _ in range(20):
            await store.submit(StoreRequest((), Operation.PEEK))
        assert redirections(cluster) == before
    finally:
        await store.aclose()


def redirections(cluster: RedisCluster) -> int:
    """Return how often the nodes have replied MOVED."""
    found = [cluster.run(server, "INFO", "errorstats") for server in cluster.servers]
    return sum(stats.get("errorstat_MOVED", {}).get("count", 0) for stats in found)


async def test_a_master_that_is_down_degrades_its_own_slots_alone(cluster: RedisCluster) -> None:
    """The store decides the requests of callers whose counters are on other masters, during the whole outage."""
    await until(lambda: all(cluster.is_well(server) for server in cluster.servers))
    # A dead node refuses at once; a machine that stands still for half a second is no outage here.
    async with Limiter(settings(cluster.url, timeout=5)) as limiter:
        (server, tag), (_, other), _ = tags(cluster).items()
        hit = Checks(limiter, Identity(token="t", org=tag))
        spared = Checks(limiter, Identity(token="t", org=other))
        async with hit.running(), spared.running():
            await hit.shared()
            await spared.shared()
            server.stop()
            await hit.degraded()
            await hit.shared()
        share = sum(decision.degraded for decision in spared.decisions) / len(spared.decisions)
        print(f"\n{share:.0%} of the decisions on other nodes are degraded")  # noqa: T201
    server.start()
    await until(lambda: all(cluster.is_well(each) for each in cluster.servers))
    assert not any(decision.degraded for decision in spared.decisions)
