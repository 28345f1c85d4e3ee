"""A real Cluster of three: all or nothing across its slots, and slots and nodes that move or die."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from ratelimit import Identity, Limit, Limiter, Pacer, Quota, RateLimitSettings, RedisStore, StoreError
from ratelimit.charge import Charge
from ratelimit.stores import Op, Request, open_store
from ratelimit.stores.lanes import ClusterLane
from tests.support.engines import fresh_key, quota, slots, terms
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
    return [told[0] for told in (await store.submit(Request(charges, Op.USAGE))).numbers]


async def test_a_request_across_slots_is_all_or_nothing(cluster: RedisCluster, store: RedisStore) -> None:
    """Charged at every node or at none, whichever refuses, and slots are given back with it."""
    for narrow in range(3):
        charges: list[Charge] = [Charge(terms(100), key) for key in across(cluster)]
        charges += [Charge(slots(100), key) for key in across(cluster)]
        charges += [Charge(quota(100, "day"), key) for key in across(cluster)]
        charges[narrow * 4] = Charge(
            {0: terms(1), 4: slots(1), 8: quota(1, "day")}[narrow * 4], charges[narrow * 4].key
        )
        first = await store.submit(Request(charges, Op.HOLD, 7))
        assert all(told[2] <= 0 for told in first.numbers)
        second = await store.submit(Request(charges, Op.HOLD, 8))
        assert [place for place, told in enumerate(second.numbers) if told[2] > 0] == [narrow * 4]
        assert await used(store, charges) == [1] * 9
        await store.submit(Request([charge._replace(cost=-1) for charge in charges], Op.ADJUST, 7, first.at))
        assert await used(store, charges) == [0] * 9


async def test_release_across_slots_is_all_or_nothing(cluster: RedisCluster, store: RedisStore) -> None:
    """Where one counter has less than is to be released, none is."""
    charges = [Charge(quota(100, "day"), key, 5) for key in across(cluster)]
    await store.submit(Request(charges[:2]))
    await store.submit(Request([charge._replace(cost=-5) for charge in charges], Op.RELEASE))
    assert await used(store, charges) == [5, 5, 0]
    await store.submit(Request([charge._replace(cost=-5) for charge in charges[:2]], Op.RELEASE))
    assert await used(store, charges) == [0, 0, 0]


async def test_a_limiter_counts_on_a_cluster(cluster: RedisCluster) -> None:
    """Settings, tokens of many organizations, overrides and workers, as on one server."""
    limits = [
        Limit(name="token", rate="5/hour", per="token"),
        Limit(name="ip", rate="1000/hour", per="ip"),
        Limit(name="all", rate="1000/hour"),
    ]
    settings = RateLimitSettings(store=cluster.url, store_timeout=10, limits=limits, key_prefix=fresh_key())
    async with Limiter(settings) as limiter, Limiter(settings) as other:
        people = [Identity(token=f"t{n}", org=f"o{n}", ip=f"10.0.0.{n}") for n in range(40)]
        allowed = [await asyncio.gather(*(each.check(who) for who in people)) for each in (limiter, other) * 4]
        assert not any(decision.degraded for one in allowed for decision in one)
        assert sum(decision.allowed for one in allowed for decision in one) == 40 * 5
        last = await limiter.peek(Identity(token="new", org="o1", ip="10.0.0.99"))
        assert {limit.policy: limit.remaining for limit in last.limits} == {"token": 5, "ip": 1000, "all": 800}
        await limiter.overrides.set(policy="token", key={"token": "t0"}, rate="9/hour")
        await other.overrides.refresh()
        assert (await other.check(people[0])).allowed
        await other._greet()
        await limiter._greet()
        assert limiter._guard.absence.fallback.workers == 2


async def test_slots_move_under_load(cluster: RedisCluster, store: RedisStore) -> None:
    """Resharding loses no charge and doubles none, and nobody is told that the store is away."""
    key = across(cluster)[0]
    slot, one = key_slot(key.encode()), Charge(terms(10**6), key)
    others = [Charge(terms(10**6), f"{key}:{n}") for n in range(30)]
    for charge in others:
        await store.submit(Request([charge]))
    stop, asked = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal asked
        while not stop.is_set():
            await store.submit(Request([one, others[asked % 30]]))
            asked += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(2):
        for server in cluster.servers:
            if server is not cluster.owner(slot):
                await moved(cluster, slot, server)
                await asyncio.sleep(0.05)  # Real servers, and requests that find out.
    stop.set()
    await asyncio.gather(*asking)
    assert await used(store, [one]) == [asked]
    assert sum(await used(store, others)) == asked + 30


async def test_a_cancelled_request_across_slots_has_charged_nothing(cluster: RedisCluster, store: RedisStore) -> None:
    """Wherever on its way it is cut off."""
    charges = [Charge(quota(100, "day"), key) for key in across(cluster)]
    for turns in range(0, 40, 2):
        task = asyncio.create_task(store.submit(Request(charges, abandoned=undo(store))))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (told,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(told, BaseException):
            await store.submit(Request([charge._replace(cost=-1) for charge in charges], Op.ADJUST, 0, told.at))
    lane = store._lane()
    assert isinstance(lane, ClusterLane)
    async with asyncio.timeout(10):
        while lane._tasks or UNDOING:  # noqa: ASYNC110 - what it waits for is a real server
            await asyncio.sleep(0.01)
    assert await used(store, charges) == [0, 0, 0]


UNDOING: set[asyncio.Task[Any]] = set()


def undo(store: RedisStore) -> Any:
    def abandoned(request: Request, answer: Any) -> None:
        if answer is not None:
            back = [charge._replace(cost=-charge.cost) for charge in request.charges]
            task = asyncio.create_task(store.submit(Request(back, Op.ADJUST, 0, answer.at)))
            UNDOING.add(task)
            task.add_done_callback(UNDOING.discard)

    return abandoned


async def test_a_node_that_is_gone_takes_its_slots_alone(cluster: RedisCluster) -> None:
    """The others serve on; what it had fails in time, and works again when it is back."""
    store, keys = RedisStore(cluster.url, timeout=1), across(cluster)
    lost = cluster.owner(key_slot(keys[0].encode()))
    for server in cluster.servers:
        cluster.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    assert await used(store, [Charge(terms(9), key) for key in keys]) == [0, 0, 0]
    lost.stop()
    with pytest.raises(StoreError):
        await store.charge([Charge(terms(9), keys[0])])
    assert [(await store.charge([Charge(terms(9), key)]))[0].remaining for key in keys[1:]] == [8, 8]
    lost.start()
    async with asyncio.timeout(20):
        while True:
            try:
                (told,) = await store.charge([Charge(terms(9), keys[0])])
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                break
    assert told.remaining == 8
    await store.aclose()


async def test_a_limiter_goes_on_with_the_nodes_that_are_there(cluster: RedisCluster) -> None:
    """Who is kept by a node that is gone is limited by the worker itself, all others as ever, and it is written later."""
    settings = RateLimitSettings(
        quotas=[Quota(name="q", limit=1000, period="month", per="org")], key_prefix=f"rl{fresh_key()[-3:]}"
    )
    for server in cluster.servers:
        cluster.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    async with Limiter(settings, RedisStore(cluster.url, timeout=1)) as limiter:
        lost, people = cluster.servers[1], [Identity(org=f"o{n}") for n in range(30)]
        assert not any([(await limiter.check(who)).degraded for who in people])
        lost.stop()
        for _ in range(3):
            told = [await limiter.check(who) for who in people]
            assert all(decision.allowed for decision in told)
        assert 0 < sum(decision.degraded for decision in told) < 30
        assert not limiter._guard.absence.away
        lost.start()
        async with asyncio.timeout(20):
            while any([(await limiter.check(Identity(org=f"p{n}"))).degraded for n in range(30)]):  # noqa: ASYNC110 - a real server
                await asyncio.sleep(0.05)
            while limiter._guard.absence._owed or limiter._guard.absence.fallback.used:
                await limiter.check(Identity(org="p0"))
                await asyncio.sleep(0.05)
        await limiter._guard.absence.drain()
        used = [(await limiter.usage(who))[0].used for who in people]
        # The server came back with empty data: it counts what was admitted since.
        assert sorted(set(used)) == [3, 4]


async def test_the_store_is_found_by_a_request_for_nothing(store: RedisStore) -> None:
    """As it is looked for, whichever node has it."""
    for _ in range(5):
        assert not (await store.submit(Request((), Op.PEEK))).numbers


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+cluster://", "a host is missing"),
        ("redis+cluster://a,,b", "a host is missing"),
        ("redis+cluster://a:70000", "a port is not a number"),
        ("redis+cluster://a/3", "no database but 0"),
        ("redis+sentinel://a:1,b:2", "the name of the master is missing"),
        ("redis+sentinel://user:hunter2@a/name?socket_timeout=soon", "redis-py cannot use this URL"),
    ],
)
def test_an_address_that_cannot_work_fails_at_construction(url: str, told: str) -> None:
    """And the password is not repeated."""
    with pytest.raises(ValueError, match=told) as error:
        open_store(url)
    assert "hunter2" not in str(error.value)


async def test_paces_on_all_nodes(store: RedisStore) -> None:
    """Each key has turns of its own, wherever it lives, and its last ones back."""
    pacer = Pacer("100/second", per="subscription", store=store, name=fresh_key())
    keys = [f"sub_{number}" for number in range(20)]
    turns = await asyncio.gather(*(pacer.reserve(key) for _ in range(3) for key in keys))
    for number in range(20):
        moments = [turn.number for turn in turns[number::20]]
        assert [after - moments[0] for after in moments] == [0, 10_000, 20_000]
        for turn in turns[number + 20 :: 20]:
            turn.give_back()

    await asyncio.gather(*pacer._tasks)
    again = await asyncio.gather(*(pacer.reserve(key) for key in keys))
    late = [turn.number - first.number for turn, first in zip(again, turns, strict=False)]
    # Where the machine was slow the second turn has gone by, and this one is now.
    assert all(each == 10_000 or turn.delay == 0 for each, turn in zip(late, again, strict=True))
