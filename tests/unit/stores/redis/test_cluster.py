"""A real Cluster of three nodes: all or nothing across hash slots, slots that move, nodes that die."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from ratelimit import Identity, Limit, Limiter, Pacer, Quota, RateLimitSettings, RedisStore, StoreError
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import concurrency_limit, fresh_key, quota_limit, window_limit
from tests.support.redis_cluster import RedisCluster, moved


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path_factory.mktemp("cluster"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    opened = RedisStore(cluster.url, timeout=10)
    yield opened
    await opened.aclose()


def tagged(tag: str) -> str:
    return f"rl:{{{tag}}}{fresh_key()}"


def across(cluster: RedisCluster) -> list[str]:
    """Return a fresh key on each node."""
    found: dict[int, str] = {}
    while len(found) < 3:
        key = tagged(f"n{fresh_key()}".replace("{", "").replace("}", ""))
        found.setdefault(cluster.owner(key_slot(key.encode())).port, key)
    return list(found.values())


async def used(store: RedisStore, charges: list[Charge]) -> list[int]:
    reply = await store.submit(StoreRequest(charges, Operation.USAGE))
    return [units for units, _, _ in reply.readings]


async def test_a_request_across_hash_slots_is_all_or_nothing(cluster: RedisCluster, store: RedisStore) -> None:
    """Charged at every node or at none, whichever refuses, permits included."""
    for narrow in range(3):
        charges: list[Charge] = [Charge(window_limit(100), key) for key in across(cluster)]
        charges += [Charge(concurrency_limit(100), key) for key in across(cluster)]
        charges += [Charge(quota_limit(100, "day"), key) for key in across(cluster)]
        charges[narrow * 4] = Charge(
            {0: window_limit(1), 4: concurrency_limit(1), 8: quota_limit(1, "day")}[narrow * 4], charges[narrow * 4].key
        )
        first = await store.submit(StoreRequest(charges, Operation.ACQUIRE, 7))
        assert all(wait_ms <= 0 for _, _, wait_ms in first.readings)
        second = await store.submit(StoreRequest(charges, Operation.ACQUIRE, 8))
        assert [index for index, (_, _, wait_ms) in enumerate(second.readings) if wait_ms > 0] == [narrow * 4]
        assert await used(store, charges) == [1] * 9
        credits_ = [charge._replace(cost=-1) for charge in charges]
        await store.submit(StoreRequest(credits_, Operation.ADJUST, 7, first.store_ms))
        assert await used(store, charges) == [0] * 9


async def test_a_release_across_hash_slots_is_all_or_nothing(cluster: RedisCluster, store: RedisStore) -> None:
    """Where one counter has less than is to be released, nothing is released."""
    charges = [Charge(quota_limit(100, "day"), key, 5) for key in across(cluster)]
    await store.submit(StoreRequest(charges[:2]))
    await store.submit(StoreRequest([charge._replace(cost=-5) for charge in charges], Operation.RELEASE))
    assert await used(store, charges) == [5, 5, 0]
    await store.submit(StoreRequest([charge._replace(cost=-5) for charge in charges[:2]], Operation.RELEASE))
    assert await used(store, charges) == [0, 0, 0]


async def test_a_limiter_counts_on_a_cluster(cluster: RedisCluster) -> None:
    """Settings, tokens of many organizations, overrides and workers work as on one server."""
    limits = [
        Limit(name="token", rate="5/hour", per="token"),
        Limit(name="ip", rate="1000/hour", per="ip"),
        Limit(name="all", rate="1000/hour"),
    ]
    settings = RateLimitSettings(store=cluster.url, store_timeout=10, limits=limits, key_prefix=fresh_key())
    async with Limiter(settings) as limiter, Limiter(settings) as other:
        callers = [Identity(token=f"t{n}", org=f"o{n}", ip=f"10.0.0.{n}") for n in range(40)]
        allowed = [await asyncio.gather(*(each.check(caller) for caller in callers)) for each in (limiter, other) * 4]
        assert not any(decision.degraded for batch in allowed for decision in batch)
        assert sum(decision.allowed for batch in allowed for decision in batch) == 40 * 5
        last = await limiter.peek(Identity(token="new", org="o1", ip="10.0.0.99"))
        assert {limit.policy: limit.remaining for limit in last.limits} == {"token": 5, "ip": 1000, "all": 800}
        await limiter.overrides.set(policy="token", key={"token": "t0"}, rate="9/hour")
        await other.overrides.refresh()
        assert (await other.check(callers[0])).allowed
        await other.enforcer.workers.heartbeat()
        await limiter.enforcer.workers.heartbeat()
        assert limiter.enforcer.workers.count == 2


async def test_hash_slots_move_under_load(cluster: RedisCluster, store: RedisStore) -> None:
    """Resharding loses no charge and doubles none, and no caller gets an error."""
    key = across(cluster)[0]
    slot, shared = key_slot(key.encode()), Charge(window_limit(10**6), key)
    others = [Charge(window_limit(10**6), f"{key}:{n}") for n in range(30)]
    for charge in others:
        await store.submit(StoreRequest([charge]))
    stop, asked = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal asked
        while not stop.is_set():
            await store.submit(StoreRequest([shared, others[asked % 30]]))
            asked += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(2):
        for server in cluster.servers:
            if server is not cluster.owner(slot):
                await moved(cluster, slot, server)
                await asyncio.sleep(0.05)  # The servers are real, and requests find out in real time.
    stop.set()
    await asyncio.gather(*asking)
    assert await used(store, [shared]) == [asked]
    assert sum(await used(store, others)) == asked + 30


async def test_a_cancelled_request_across_hash_slots_has_charged_nothing(
    cluster: RedisCluster, store: RedisStore
) -> None:
    """Wherever on its way it is when its caller is cancelled."""
    charges = [Charge(quota_limit(100, "day"), key) for key in across(cluster)]
    for turns in range(0, 40, 2):
        task = asyncio.create_task(store.submit(StoreRequest(charges, on_orphaned=undo(store))))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (reply,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(reply, BaseException):
            credits_ = [charge._replace(cost=-1) for charge in charges]
            await store.submit(StoreRequest(credits_, Operation.ADJUST, 0, reply.store_ms))
    async with asyncio.timeout(60):
        while not store.client.is_settled or UNDOING:  # noqa: ASYNC110 - it waits for a real server
            await asyncio.sleep(0.01)
    assert await used(store, charges) == [0, 0, 0]


async def test_a_caller_that_is_cancelled_when_all_parts_are_made_has_charged_nothing(
    cluster: RedisCluster, store: RedisStore
) -> None:
    """In the one turn of the event loop between the end of its parts and its own; it is met after a few requests."""
    charges, met = [Charge(quota_limit(10_000, "day"), key) for key in across(cluster)], 0
    for _ in range(500):
        task = asyncio.create_task(store.submit(StoreRequest(charges, on_orphaned=undo(store))))
        await asyncio.sleep(0)
        inner = [each for each in asyncio.all_tasks() if getattr(each.get_coro(), "__name__", "") == "submit_parts"]
        while not (task.done() or all(each.done() for each in inner)):  # noqa: ASYNC110 - each turn is looked at
            await asyncio.sleep(0)
        if task.cancel():
            met += 1
            with pytest.raises(asyncio.CancelledError):
                await task
            break
        await undone(store, charges, task.result())
    async with asyncio.timeout(60):
        while not store.client.is_settled or UNDOING:  # noqa: ASYNC110 - it waits for a real server
            await asyncio.sleep(0.01)
    assert met
    assert await used(store, charges) == [0, 0, 0]


async def undone(store: RedisStore, charges: list[Charge], reply: StoreReply) -> None:
    credits_ = [charge._replace(cost=-1) for charge in charges]
    await store.submit(StoreRequest(credits_, Operation.ADJUST, 0, reply.store_ms))


UNDOING: set[asyncio.Task[Any]] = set()


def undo(store: RedisStore) -> Callable[[StoreRequest, StoreReply | None], None]:
    """Return an `on_orphaned` that gives back what was charged for a caller that was cancelled."""

    def on_orphaned(request: StoreRequest, reply: StoreReply | None) -> None:
        if reply is not None:
            credits_ = [charge._replace(cost=-charge.cost) for charge in request.charges]
            task = asyncio.create_task(store.submit(StoreRequest(credits_, Operation.ADJUST, 0, reply.store_ms)))
            UNDOING.add(task)
            task.add_done_callback(UNDOING.discard)

    return on_orphaned


async def test_a_dead_node_takes_only_its_own_hash_slots(cluster: RedisCluster) -> None:
    """The other nodes are used; calls that need the dead one fail in time, and work again when it is back."""
    store, keys = RedisStore(cluster.url, timeout=1), across(cluster)
    lost = cluster.owner(key_slot(keys[0].encode()))
    for server in cluster.servers:
        cluster.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    assert await used(store, [Charge(window_limit(9), key) for key in keys]) == [0, 0, 0]
    lost.stop()
    with pytest.raises(StoreError):
        await store.charge([Charge(window_limit(9), keys[0])])
    assert [(await store.charge([Charge(window_limit(9), key)]))[0].remaining for key in keys[1:]] == [8, 8]
    lost.start()
    async with asyncio.timeout(60):
        while True:
            try:
                (service_limit,) = await store.charge([Charge(window_limit(9), keys[0])])
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                break
    assert service_limit.remaining == 8
    await store.aclose()


async def test_a_limiter_goes_on_with_the_other_nodes(cluster: RedisCluster) -> None:
    """Callers of a dead node are limited by the worker itself, all others by the Cluster; usage is reported later."""
    settings = RateLimitSettings(
        quotas=[Quota(name="q", limit=1000, period="month", per="org")], key_prefix=f"rl{fresh_key()[-3:]}"
    )
    for server in cluster.servers:
        cluster.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    async with Limiter(settings, RedisStore(cluster.url, timeout=1)) as limiter:
        lost, callers = cluster.servers[1], [Identity(org=f"o{n}") for n in range(30)]
        assert not any([(await limiter.check(caller)).degraded for caller in callers])
        lost.stop()
        for _ in range(3):
            decisions = [await limiter.check(caller) for caller in callers]
            assert all(decision.allowed for decision in decisions)
        assert 0 < sum(decision.degraded for decision in decisions) < 30
        assert not limiter.enforcer.circuit_breaker.is_open
        lost.start()
        async with asyncio.timeout(60):
            others = [Identity(org=f"p{n}") for n in range(30)]
            while any([(await limiter.check(caller)).degraded for caller in others]):  # noqa: ASYNC110 - a real server
                await asyncio.sleep(0.05)
            while not limiter.enforcer.outbox.is_empty:
                await limiter.check(Identity(org="p0"))
                await asyncio.sleep(0.05)
        await limiter.enforcer.drain()
        used = [(await limiter.usage(caller))[0].used for caller in callers]
        # The server came back without its data: it counts what was admitted since then.
        assert sorted(set(used)) == [3, 4]


async def test_a_request_without_charges_is_answered(store: RedisStore) -> None:
    """By the node that has the hash slot of such calls."""
    for _ in range(5):
        assert not (await store.submit(StoreRequest((), Operation.PEEK))).readings


async def test_paces_are_kept_on_all_nodes(store: RedisStore) -> None:
    """Each key has reservations of its own on its node, and the last ones are free again when they are cancelled."""
    pacer = Pacer("100/second", per="subscription", store=store, name=fresh_key())
    keys = [f"sub_{number}" for number in range(20)]
    reserved = await asyncio.gather(*(pacer.reserve(key) for _ in range(3) for key in keys))
    for number in range(20):
        starts = [reservation.start for reservation in reserved[number::20]]
        assert [start - starts[0] for start in starts] == [0, 10_000, 20_000]
        for reservation in reserved[number + 20 :: 20]:
            reservation.cancel()
    await pacer.drain()
    again = await asyncio.gather(*(pacer.reserve(key) for key in keys))
    late = [reservation.start - first.start for reservation, first in zip(again, reserved, strict=False)]
    # Where the machine was slow, the second start has passed, and this one is now.
    assert all(each == 10_000 or reservation.delay == 0 for each, reservation in zip(late, again, strict=True))
