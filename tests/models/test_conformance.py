"""The promise of the model, held by the code: real workers and a real Redis, with every schedule of a small network."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import redis.asyncio

from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, SharedMap, StoreReply, StoreRequest
from ratelimit.stores.redis.client import StandaloneClient
from ratelimit.testing.factories import quota_limit, window_limit
from tests.support.redis_server import RedisServer
from tests.support.scripted_network import Fate, Network, Schedule, schedules
from tests.support.virtual_time import VirtualLoop, virtually

MORE = int(os.environ.get("MORE_DEVIATIONS", "0"))
"""How many messages more than usually are lost, silent, slow or late in a run; `make models` takes one."""

KINDS = {"quota": quota_limit(4, "day"), "window": window_limit(4, 3600)}
KEY = "rl:{o}:p:1:o"


class ClientStore(Store):
    """The client of a Redis store, on connections of the test's own; a fleet of two workers."""

    def __init__(self, client: StandaloneClient) -> None:
        self._client = client

    async def submit(self, request: StoreRequest) -> StoreReply:
        return await self._client.submit(request)

    async def drain(self) -> None:
        await self._client.drain()

    async def resolve_in_doubt(self) -> bool:
        return await self._client.resolve_in_doubt()

    async def heartbeat(self, registry: str, worker: str, seconds: float) -> int:
        return 2

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        return None

    async def put_entry(self, name: str, entry: str, value: bytes | None) -> None:
        pass

    async def aclose(self) -> None:
        await self._client.aclose()


class Fleet:
    """Two workers behind a network; `admitted` counts the requests that were."""

    def __init__(self, network: Network, loop: VirtualLoop, charge: Charge) -> None:
        self.network, self._charge, self.admitted = network, charge, 0
        clients = [redis.asyncio.Redis(connection_pool=network.pool()) for _ in range(2)]
        stores = [ClientStore(StandaloneClient(client, loop.clock, 0.1, 2.0)) for client in clients]
        self.workers = [Enforcer(store, loop.clock, frozenset()) for store in stores]

    async def ask(self, worker: int) -> Decision:
        decision = await self.workers[worker].decide([self._charge])
        self.admitted += decision.allowed
        return decision

    async def leave(self, worker: int) -> None:
        """Ask, and leave while the store decides: nothing may stay counted, unless the answer came before."""
        asking = asyncio.create_task(self.workers[worker].decide([self._charge]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            decision = await asking
            self.admitted += decision.allowed

    async def close(self) -> None:
        for worker in self.workers:
            await worker.aclose()


Story = Callable[[Fleet], Awaitable[None]]


async def three_requests(fleet: Fleet) -> None:
    """Two at one worker, one at the other, one after another; and one whose caller leaves."""
    await fleet.ask(0)
    await asyncio.gather(fleet.ask(0), fleet.ask(1))
    await fleet.leave(1)


async def an_outage(fleet: Fleet) -> None:
    """Each worker decides without the store until its breaker opens; then both come back, and a request comes."""
    for worker in fleet.workers:
        await worker.workers.heartbeat()
    fleet.network.is_down = True
    for _ in range(5):
        await asyncio.gather(fleet.ask(0), fleet.ask(1))
    assert all(worker.circuit_breaker.is_open for worker in fleet.workers)
    fleet.network.is_down = False
    for worker in fleet.workers:
        await worker.circuit_breaker.probe()
        await asyncio.sleep(0.3)
    await fleet.ask(0)


async def a_second_outage(fleet: Fleet) -> None:
    """Lose both copies of what a worker hands over when the store is back, and come back once more."""
    network, worker = fleet.network, fleet.workers[0]
    network.is_down = True
    for _ in range(5):
        await fleet.ask(0)
    network.is_down = False
    await worker.circuit_breaker.probe()
    network.is_down = True
    await asyncio.sleep(0.15)
    network.is_down = False
    await fleet.ask(1)
    await asyncio.sleep(0.5)
    await fleet.ask(0)


async def a_refund(fleet: Fleet) -> None:
    """One worker decides without the store, and gives a unit back while it hands over, of a key that others have used."""
    network, worker = fleet.network, fleet.workers[0]
    for _ in range(2):
        await fleet.ask(1)
    network.is_down = True
    decisions = [await fleet.ask(0) for _ in range(5)]
    network.is_down = False
    await worker.circuit_breaker.probe()
    refunded = next(decision for decision in decisions if decision.allowed)
    for settlement in refunded.settlements:
        await settlement.void()
    fleet.admitted -= 1


async def a_refusal(fleet: Fleet) -> None:
    """Use the whole limit at one worker, be refused at the other; then give a unit back, which a late copy could take."""
    decisions = [await fleet.ask(1) for _ in range(4)]
    await fleet.ask(0)
    if decisions[0].allowed:
        fleet.admitted -= 1
        await decisions[0].settlements[0].void()


STORIES: dict[Story, int] = {three_requests: 2, an_outage: 1, a_refund: 1, a_refusal: 1, a_second_outage: 1}
"""How many messages at most have another fate than to pass, in each story."""


def run(server: RedisServer, kind: str, story: Story, schedule: Schedule) -> None:
    """Tell a story under a schedule, and hold what the store has counted against what was admitted."""
    charge, network = Charge(KINDS[kind], KEY, 1), Network(server.port, schedule)

    async def tell(loop: VirtualLoop) -> tuple[int, int]:
        fleet = Fleet(network, loop, charge)
        await story(fleet)
        schedule.is_over = True
        await fleet.close()
        network.deliver_late()
        direct = StandaloneClient(redis.asyncio.Redis(connection_pool=network.pool()), loop.clock, 0.1, 2.0)
        counted = (await direct.submit(StoreRequest([charge], Operation.USAGE))).readings[0][0]
        await direct.aclose()
        return fleet.admitted, counted

    with server.client() as client:
        client.delete(KEY)
    admitted, counted = virtually(tell)
    network.close()
    assert counted == admitted, schedule


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("story", STORIES)
def test_the_store_counts_what_was_admitted(redis_server: RedisServer, kind: str, story: Story) -> None:
    """Whichever messages of a story are lost, silent, slow or late, also among those that follow from it."""
    assert schedules(partial(run, redis_server, kind, story), STORIES[story] + MORE) > 20


def test_a_call_in_flight_at_closing_is_looked_up(redis_server: RedisServer) -> None:
    """Its caller has left, its only copy arrives when all is over, and its limiter is closed while it is on its way."""
    fates = [Fate.PASS, Fate.PASS, Fate.LATE, Fate.PASS, Fate.LATE]
    run(redis_server, "quota", three_requests, Schedule(fates))


def test_schedules_are_all_those_with_so_many_deviations() -> None:
    """Three choices of three options: 1 + 3 · 2 with one deviation at most, and 3 · 2 · 2 more with two."""

    def choose(schedule: Schedule) -> None:
        for _ in range(3):
            schedule.choose(3)

    assert [schedules(choose, deviations) for deviations in range(4)] == [1, 7, 19, 27]
