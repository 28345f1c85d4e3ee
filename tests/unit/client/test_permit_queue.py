"""Permits: how many requests hold one, and which one is next."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from itertools import count

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit
from ratelimit.client import DEFAULT_RETRY_POLICY, AsyncRetryTransport
from ratelimit.client.permit_queue import Permit, PermitQueue, ServerPermits
from tests.support.virtual_time import VirtualLoop, virtually
from tests.unit.client.test_admission_queue import TOKEN, Network, app


def permits_for(queue: PermitQueue, number: int, woken: list[int]) -> list[Permit]:
    """Return so many permits that were asked for in turn; `woken` gets the number of each when it is given out."""
    permits = []
    for index in range(number):
        permits.append(Permit("server", lambda index=index: woken.append(index)))  # type: ignore[misc]
        queue.acquire(permits[-1])
    return permits


def test_the_first_ones_get_the_permits_and_the_others_wait_in_turn() -> None:
    """Each permit that comes back goes to the request that has waited longest."""
    queue, woken = PermitQueue(2, count()), list[int]()
    permits = permits_for(queue, 5, woken)
    assert woken == [0, 1]
    for index in (1, 0, 2):
        queue.release(permits[index])
    assert woken == [0, 1, 2, 3, 4]
    assert queue.holders == set(permits[3:])


def test_a_request_that_gives_up_leaves_its_place() -> None:
    """Waiting or woken: no permit is lost, and the next request goes on."""
    queue, woken = PermitQueue(1, count()), list[int]()
    permits = permits_for(queue, 4, woken)
    queue.release(permits[1])
    queue.release(permits[0])
    assert woken == [0, 2]
    queue.release(permits[2])
    assert woken == [0, 2, 3]


def test_repeating_a_release_has_no_effect() -> None:
    """A response may be closed twice."""
    queue, woken = PermitQueue(1, count()), list[int]()
    permits = permits_for(queue, 3, woken)
    for _ in range(3):
        queue.release(permits[0])
    assert woken == [0, 1]


def test_asking_twice_is_asking_once() -> None:
    """A request that waits, or has its permit, takes no second place."""
    queue, woken = PermitQueue(1, count()), list[int]()
    permits = permits_for(queue, 3, woken)
    for permit in permits:
        queue.acquire(permit)
    assert (woken, queue.waiting) == ([0], permits[1:])


def test_a_request_that_asks_again_keeps_its_place() -> None:
    """It came before those that wait, and goes before them."""
    queue, woken = PermitQueue(1, count()), list[int]()
    permits = permits_for(queue, 3, woken)
    queue.release(permits[0])
    queue.acquire(permits[0])
    assert woken == [0, 1]
    queue.release(permits[1])
    assert woken == [0, 1, 0]


class StopError(BaseException):
    """Comes at any moment, as Ctrl-C does."""


def test_an_interrupt_loses_no_permit() -> None:
    """Whoever is interrupted while a permit is given out, the next call completes that."""

    def interrupt() -> None:
        if not woken:
            woken.append("interrupted")
            raise StopError
        woken.append("first")

    queue, woken = PermitQueue(1, count()), list[str]()
    first, second = Permit("server", interrupt), Permit("server", lambda: woken.append("second"))
    with pytest.raises(StopError):
        queue.acquire(first)
    queue.release(first)
    queue.acquire(second)
    assert woken == ["interrupted", "second"]


@given(size=st.integers(1, 4), actions=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_the_bound_holds_and_no_permit_is_idle(size: int, actions: list[tuple[bool, int]]) -> None:
    """In any order of requests, releases and cancellations."""
    queue, permits = PermitQueue(size, count()), [Permit("server", lambda: None) for _ in range(10)]
    for is_acquired, index in actions:
        if not is_acquired:
            queue.release(permits[index])
        elif permits[index] not in queue.holders and permits[index] not in queue.waiting:
            queue.acquire(permits[index])
        assert len(queue.holders) <= size
        assert len(queue.holders) == size or not queue.waiting
        assert not queue.holders & set(queue.waiting)


def test_servers_are_counted_apart_and_forgotten() -> None:
    """Each has permits of its own; one that no request is sent to is not remembered."""
    permits = ServerPermits(1)
    one, two, other = (Permit(server, lambda: None) for server in ("a", "a", "b"))
    for permit in (one, two, other):
        permits.acquire(permit)
    assert [permits.is_held(permit) for permit in (one, two, other)] == [True, False, True]
    for permit in (one, two, other, one):
        permits.release(permit)
    assert permits.queues == {}


def test_a_place_outlasts_the_queue() -> None:
    """A request that gave its permit back while no other was there comes before those that came since."""
    permits, woken = ServerPermits(1), list[str]()
    first, second, third = (Permit("a", lambda name=name: woken.append(name)) for name in ("first", "second", "third"))  # type: ignore[misc]
    permits.acquire(first)
    permits.release(first)
    assert permits.queues == {}
    for permit in (second, third, first):
        permits.acquire(permit)
    permits.release(second)
    assert woken == ["first", "second", "first"]


def test_without_a_size_there_is_no_bound() -> None:
    """All requests have their permits, and nothing is remembered."""
    permits = ServerPermits(None)
    asked = [Permit("a", lambda: None) for _ in range(9)]
    for permit in asked:
        permits.acquire(permit)
    assert all(permits.is_held(permit) for permit in asked)
    assert permits.queues == {}


class Counting(Network):
    """Counts the requests that are under way."""

    now = peak = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            return await super().handle_async_request(request)
        finally:
            self.now -= 1


@settings(max_examples=40)
@given(
    size=st.integers(1, 4),
    limit=st.integers(1, 20),
    requests=st.lists(
        st.tuples(st.sampled_from(["/", "/a", "/b/1"]), st.floats(0, 9), st.floats(0.1, 90)), max_size=40
    ),
    seed=st.integers(0, 99),
)
def test_no_permit_is_lost_whoever_waits_is_refused_or_gives_up(
    size: int, limit: int, requests: list[tuple[str, float, float]], seed: int
) -> None:
    """Behind a limited server, with callers that lose patience at any moment: the bound holds, and no permit is left."""

    async def story(loop: VirtualLoop) -> None:
        limits = [Limit(name="t", rate=f"{limit}/5s", per="token"), Limit(name="e", rate="4/5s", per="endpoint")]
        network = Counting(app(loop, *limits), loop, 0.5, seed)
        policy = replace(DEFAULT_RETRY_POLICY, retries=50)
        transport = AsyncRetryTransport(network, policy=policy, max_concurrency=size)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=TOKEN, timeout=None) as client:

            async def call(path: str, start: float, patience: float) -> None:
                await asyncio.sleep(start)
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        assert (await client.get(path)).status_code == 200

            await asyncio.gather(*(call(*each) for each in requests))
            assert (await client.get("/")).status_code == 200
        assert network.peak <= size
        assert transport.engine.permits.queues == {}
        assert all(queue.waiting == {} for queue in transport.engine.queues.values())

    virtually(story)
