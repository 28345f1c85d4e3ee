"""Requests over several calls: all or nothing, whatever refuses, fails or is cancelled; in memory, part by part."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ratelimit import MemoryStore
from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.errors import StoreError, StorePartiallyUnavailable, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.split_requests import split, submit_parts
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit

Hook = Callable[[str, StoreRequest], Any]


class Places:
    """Two places, `a` and `b`, as memory stores: `before` is awaited before each call, and may raise."""

    def __init__(self) -> None:
        self.stores = {place: MemoryStore() for place in "ab"}
        self.calls: list[tuple[str, Operation]] = []
        self.tasks = BackgroundTasks()
        self.before: Hook | None = None
        self.kept: list[StoreRequest] = []

    async def submit_at(self, place: str, request: StoreRequest) -> StoreReply:
        self.calls.append((place, request.operation))
        if self.before is not None and (waiting := self.before(place, request)) is not None:
            await waiting
        return await self.stores[place].submit(request)

    async def submit(self, request: StoreRequest) -> StoreReply:
        return await submit_parts(
            split(request, lambda charge: charge.key[0], self.submit_at), self.tasks, self.kept.extend
        )

    async def used(self, *charges: Charge) -> list[int]:
        await self.tasks.drain()
        reply = await submit_parts(
            split(StoreRequest(charges, Operation.USAGE), lambda charge: charge.key[0], self.submit_at),
            self.tasks,
            self.kept.extend,
        )
        return [units for units, _, _ in reply.readings]


async def test_readings_come_back_in_the_order_of_the_charges() -> None:
    """Whatever the order of the parts."""
    places = Places()
    charges = [Charge(window_limit(10 * (number + 1)), f"{place}{number}") for number, place in enumerate("abab")]
    reply = await places.submit(StoreRequest(charges))
    assert [remaining for remaining, _, _ in reply.readings] == [9, 19, 29, 39]


async def test_a_refused_request_charges_nothing_not_for_a_moment_either() -> None:
    """The part without room is asked first, and where it still refuses, no other part is charged at all."""
    places, full, other = Places(), Charge(window_limit(1), "b"), Charge(window_limit(100), "a")
    await places.submit(StoreRequest([other, full]))
    places.calls.clear()
    reply = await places.submit(StoreRequest([other, full]))
    assert places.calls == [("a", Operation.PEEK), ("b", Operation.PEEK), ("b", Operation.CHARGE)]
    assert (reply.readings[0][2] <= 0, reply.readings[1][2] > 1000, reply.is_contested) == (True, True, False)
    assert await places.used(other, full) == [1, 1]


async def test_parts_with_ample_room_are_charged_side_by_side() -> None:
    """Two round trips: one look at all, one charge at all."""
    places, started = Places(), asyncio.Event()
    charging = set[str]()

    def meet(place: str, request: StoreRequest) -> Any:
        if request.operation == Operation.CHARGE:
            charging.add(place)
            if len(charging) == 2:
                started.set()
            return started.wait()
        return None

    places.before = meet
    await asyncio.wait_for(
        places.submit(StoreRequest([Charge(window_limit(10**6), "a"), Charge(window_limit(10**6), "b")])), 5
    )
    assert charging == {"a", "b"}


async def test_the_loser_of_a_race_gives_back_and_asks_again_in_a_second() -> None:
    """Another request has taken the last unit between the look and the charge."""
    places, tight, other = Places(), Charge(window_limit(5), "b"), Charge(window_limit(3), "a")

    def race(place: str, request: StoreRequest) -> None:
        if (place, request.operation) == ("b", Operation.CHARGE):
            places.stores["b"].run(StoreRequest([tight._replace(cost=5)]))

    places.before = race
    reply = await places.submit(StoreRequest([other, tight]))
    assert (reply.is_contested, reply.readings[1][2]) == (True, 1000)
    places.before = None
    assert await places.used(other, tight) == [0, 5]


@pytest.mark.parametrize("room", [5, 10**6])
async def test_a_part_that_fails_leaves_nothing_charged(room: int) -> None:
    """Its caller gets the error, and the parts that were made are given back."""
    places = Places()
    charges = [Charge(window_limit(room), "a"), Charge(window_limit(room + 1), "b")]

    def fail(place: str, request: StoreRequest) -> None:
        if (place, request.operation) == ("b", Operation.CHARGE):
            raise StoreUnavailable("away")

    places.before = fail
    with pytest.raises(StoreUnavailable):
        await places.submit(StoreRequest(charges))
    places.before = None
    assert await places.used(*charges) == [0, 0]


async def test_a_cancelled_caller_leaves_nothing_charged() -> None:
    """Its calls go on, and what they have made is given back."""
    places, go_on = Places(), asyncio.Event()
    charges = [Charge(window_limit(10**6), "a"), Charge(concurrency_limit(5), "b")]
    places.before = lambda place, request: go_on.wait() if request.operation == Operation.ACQUIRE else None
    task = asyncio.create_task(places.submit(StoreRequest(charges, Operation.ACQUIRE, 7)))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    go_on.set()
    assert await places.used(*charges) == [0, 0]


@pytest.mark.parametrize(("error", "orphaned"), [(StorePartiallyUnavailable("down"), 1), (StoreError("odd"), 0)])
async def test_what_cannot_be_given_back_goes_to_the_owner_of_the_request(error: StoreError, orphaned: int) -> None:
    """A credit that was not sent is his to keep; one that was sent is completed by the store."""
    places, tight, other = Places(), Charge(window_limit(5), "b"), Charge(window_limit(3), "a")
    gone = list[StoreRequest]()

    def race(place: str, request: StoreRequest) -> None:
        if (place, request.operation) == ("b", Operation.CHARGE):
            places.stores["b"].run(StoreRequest([tight._replace(cost=5)]))
        if request.operation == Operation.ADJUST:
            raise error

    places.before = race
    await places.submit(StoreRequest([other, tight], on_orphaned=lambda request, _: gone.append(request)))
    assert [request.charges for request in gone] == [[other]] * orphaned


async def test_a_release_is_all_or_nothing() -> None:
    """Where one part has less than is to be released, nothing is released."""
    places = Places()
    charges = [Charge(quota_limit(100, "day"), key, 5) for key in "ab"]
    await places.submit(StoreRequest(charges[:1]))
    await places.submit(StoreRequest([charge._replace(cost=-5) for charge in charges], Operation.RELEASE))
    assert await places.used(*charges) == [5, 0]


async def test_a_full_shadow_does_not_refuse_and_is_not_given_back() -> None:
    """It has counted nothing."""
    places = Places()
    shadow, enforced = Charge(window_limit(1, shadow=True), "a"), Charge(window_limit(2), "b")
    for _ in range(3):
        await places.submit(StoreRequest([shadow, enforced]))
    assert await places.used(shadow, enforced) == [1, 2]


@pytest.mark.parametrize(
    ("errors", "kept", "is_kept"),
    [
        ({"b": StorePartiallyUnavailable("down")}, ["b"], True),
        ({"a": StorePartiallyUnavailable("down"), "b": StorePartiallyUnavailable("down")}, [], False),
        ({"a": StoreUnavailable("away"), "b": StorePartiallyUnavailable("down")}, ["b"], None),
    ],
)
async def test_a_correction_is_made_once_in_each_part(
    errors: dict[str, StoreError], kept: list[str], is_kept: object
) -> None:
    """A part that was not sent is kept if another one was: sent again as a whole, that one would be made twice."""
    places = Places()
    charges = [Charge(quota_limit(100, "day"), key, 10) for key in "ab"]
    await places.submit(StoreRequest(charges))

    def fail(place: str, request: StoreRequest) -> None:
        if place in errors:
            raise errors[place]

    places.before = fail
    credits_ = [charge._replace(cost=-10) for charge in charges]
    with pytest.raises(StoreError) as raised:
        await places.submit(StoreRequest(credits_, Operation.ADJUST))
    assert getattr(raised.value, "is_kept", None) is is_kept
    assert [request.charges[0].key for request in places.kept] == kept
    places.before = None
    assert await places.used(*charges) == [10 if "a" in errors else 0, 10]
