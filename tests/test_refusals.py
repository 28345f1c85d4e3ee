"""Refusals remembered: the store is not asked about what it has said, and nobody is refused whom it would admit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Identity, Limiter, MemoryStore, RateLimitSettings
from ratelimit.charge import Charge, Terms
from ratelimit.decision import Decision
from ratelimit.refusals import LONGEST, MOST, Refusals
from ratelimit.stores import Answer, Op, Request
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.engines import quota, slots, terms


class Far(Store):
    """A store that is not in this process, as far as the limiter can see, and counts how often it is asked."""

    def __init__(self, clock: ManualClock) -> None:
        self.near, self.asked = MemoryStore(clock=clock), 0

    async def submit(self, request: Request) -> Answer:
        self.asked += 1
        return self.near.run(request)

    async def notes(self, book: str, seen: int | None) -> Any:
        return await self.near.notes(book, seen)

    async def note(self, book: str, name: str, value: bytes | None) -> None:
        await self.near.note(book, name, value)

    async def aclose(self) -> None:
        pass


def limiter_with(store: Far, clock: ManualClock, **settings: Any) -> Limiter:
    return Limiter(RateLimitSettings.model_validate(settings), store, clock)


ORG = {"name": "org", "rate": "2/minute", "per": "org"}
TOKEN = {"name": "token", "rate": "100/minute", "per": "token"}


def who(token: str = "t", **more: Any) -> Identity:
    return Identity(token=token, org="o", **more)


async def test_a_flood_of_refusals_costs_one_command_a_second(clock: ManualClock) -> None:
    """Whichever tokens ask: their organization is known to be full, and told truly."""
    store = Far(clock)
    limiter = limiter_with(store, clock, limits=[TOKEN, ORG])
    for _ in range(3):
        await limiter.check(who())
    first = await limiter.check(who())
    assert store.asked == 3
    for n in range(100):
        clock.advance(ms=9)
        told = await limiter.check(who(f"t{n}"))
        assert [limit.policy for limit in told.violated] == ["org"]
        assert told.retry_after == pytest.approx(first.retry_after - 0.009 * (n + 1))
        assert told.violated[0].reset_at == first.violated[0].reset_at
    assert store.asked == 3
    clock.advance(ms=100)
    await limiter.check(who())
    assert store.asked == 4


async def test_a_look_is_never_answered_from_memory(clock: ManualClock) -> None:
    """`peek` asks, and what it hears is not remembered either."""
    store = Far(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(who())
    assert len((await limiter.peek(who())).limits) == 1
    assert store.asked == 4


async def test_what_is_given_back_is_felt_at_once(clock: ManualClock) -> None:
    """A refund, a settlement or a release in this process makes the store be asked again."""
    store = Far(clock)
    limiter = limiter_with(
        store, clock, limits=[ORG], quotas=[{"name": "q", "limit": 9, "period": "day", "per": "org"}]
    )
    decision = await limiter.check(who())
    for _ in range(2):
        await limiter.check(who())
    await decision.settle({"org": 0})
    assert (await limiter.check(who())).allowed
    assert not (await limiter.check(who())).allowed
    await limiter.release("org", who())
    assert (await limiter.check(who())).allowed


async def test_a_raised_limit_is_felt_at_once(clock: ManualClock) -> None:
    """An override is another limit, of which nothing is known."""
    store = Far(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(who())
    await limiter.overrides.set(policy="org", key={"org": "o"}, rate="3/minute")
    assert (await limiter.check(who())).allowed
    assert not (await limiter.check(who())).allowed
    assert (await limiter.check(who(rates={"org": "4/minute"}))).allowed


async def test_slots_and_levels_are_always_asked_for(clock: ManualClock) -> None:
    """They may come free at any moment."""
    store = Far(clock)
    policies = {
        "quotas": [{"name": "level", "limit": 1, "per": "org", "paths": "/level"}],
        "concurrency": [{"name": "runs", "limit": 1, "per": "org", "paths": "/runs"}],
    }
    limiter = limiter_with(store, clock, **policies)
    for path in ("/level", "/runs"):
        for _ in range(5):
            await limiter.check(who(), endpoint=path)
    assert store.asked == 10


POLICIES: list[Terms] = [terms(3, 1, policy="a"), terms(70, 1, 20, policy="b"), quota(5, "hour"), slots(2, 700)]
steps = st.tuples(
    st.sampled_from([0, 0, 1, 16, 300, 499, 700, 999, 1000, 1017, 3_600_000]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=3, unique_by=lambda one: one[0]),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=60))
def test_nobody_is_refused_whom_the_store_would_admit(history: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """At every refusal from memory, the store refuses too, for at least as long."""
    clock = ManualClock()
    store, memory = MemoryStore(clock=clock), Refusals()
    for number, (wait, chosen) in enumerate(history):
        clock.advance(ms=wait)
        charges = [Charge(POLICIES[i], f"k{i}", 1 if i == 3 else cost) for i, cost in chosen]
        asked = store.run(Request(charges, Op.PEEK)).limits(charges)
        if refused := memory.known(charges, clock()):
            decision = Decision.of(asked)
            assert not decision.allowed
            assert Decision.of(refused).retry_after <= decision.retry_after + 1e-6
            continue
        limits = store.run(Request(charges, Op.HOLD, number + 1)).limits(charges)
        if any(limit.retry_after for limit in limits):
            memory.note(charges, limits, clock())


def test_the_memory_is_bounded_and_short() -> None:
    """Ten thousand keys at most, a second at most, and a clock that steps back forgets."""
    memory, one = Refusals(), terms(1)
    refused = MemoryStore(clock=ManualClock()).run(Request([Charge(one, "k", 2)])).limits([Charge(one, "k", 2)])
    for n in range(MOST + 5):
        memory.note([Charge(one, f"k{n}", 2)], refused, 1000)
    assert len(memory) <= MOST
    last = [Charge(one, f"k{MOST + 4}", 2)]
    assert memory.known(last, 1000 + LONGEST - 1)
    assert not memory.known(last, 1000 + LONGEST)
    assert not memory.known(last, 999)
    assert not memory.known([last[0]._replace(cost=1)], 1000)
    assert not memory.known([last[0]._replace(terms=terms(1))], 1000)


async def test_who_is_refused_again_hears_of_all_limits(clock: ManualClock) -> None:
    """The same request is told all that it was told before; another one of the same organization what refuses it."""
    store = Far(clock)
    limiter = limiter_with(store, clock, limits=[TOKEN, ORG])
    told = [await limiter.check(who()) for _ in range(4)]
    assert store.asked == 3
    assert [limit.remaining for limit in told[3].limits] == [98, 0]
    assert told[3] == told[2]
    assert [limit.policy for limit in (await limiter.check(who("other"))).limits] == ["org"]


async def test_many_at_once_are_refused_without_asking(clock: ManualClock) -> None:
    """A crowd behind a refusal does not reach the store."""
    store = Far(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(who())
    decisions = await asyncio.gather(*(limiter.check(who()) for _ in range(50)))
    assert not any(decision.allowed for decision in decisions)
    assert store.asked == 3


async def test_what_is_already_spent_is_counted_though_it_is_refused(clock: ManualClock) -> None:
    """`force` is no question: it reaches the store, whatever that has refused before."""
    store = Far(clock)
    limiter = limiter_with(store, clock, quotas=[{"name": "q", "limit": 2, "period": "day", "per": "org"}])
    for _ in range(3):
        await limiter.consume("q", who())
    await limiter.consume("q", who(), 5, force=True)
    assert (await limiter.usage(who()))[0].used == 7


async def test_of_two_refusals_the_one_that_is_over_is_told_no_more(clock: ManualClock) -> None:
    """Each is told as long as it holds, with the wait that is left, and never below zero."""
    store = Far(clock)
    short, long = {"name": "s", "rate": "1/second", "per": "org"}, {"name": "l", "rate": "1/minute", "per": "org"}
    limiter = limiter_with(store, clock, limits=[short, long])
    for _ in range(2):
        await limiter.check(who())
    clock.advance(ms=400)
    await limiter.check(who("other"))
    clock.advance(ms=700)
    told = await limiter.check(who())
    assert [limit.policy for limit in told.violated] == ["l"]
    assert told.retry_after == pytest.approx(60.001 - 1.1)


async def test_with_a_level_among_them_nothing_is_remembered(clock: ManualClock) -> None:
    """It may come free at any moment, and then it would be missing or too much in the answer."""
    store = Far(clock)
    level = {"name": "level", "limit": 1, "per": "org"}
    limiter = limiter_with(store, clock, limits=[{**ORG, "rate": "1/minute"}], quotas=[level])
    assert [(await limiter.check(who())).status for _ in range(3)] == [200, 403, 403]
    await limiter.release("level", who())
    assert (await limiter.check(who())).status == 429


async def test_a_full_shadow_never_answers_alone(clock: ManualClock) -> None:
    """What it would refuse is asked for and counted all the same."""
    store = Far(clock)
    limits = [{**ORG, "shadow": True, "rate": "1/minute"}, {**TOKEN, "rate": "2/minute"}]
    limiter = limiter_with(store, clock, limits=limits)
    for _ in range(3):
        await limiter.check(who())
    assert [limit.policy for limit in (await limiter.check(who())).violated] == ["token"]
    assert (await limiter.check(who("other"))).limits[1].remaining == 1


async def test_a_refusal_noted_while_something_is_given_back_is_forgotten(clock: ManualClock) -> None:
    """Once the giving back is done, the store is asked again."""

    class Slow(Far):
        gate: asyncio.Event | None = None

        async def submit(self, request: Request) -> Answer:
            if self.gate is not None and request.op == Op.RELEASE:
                await self.gate.wait()
            return await super().submit(request)

    store = Slow(clock)
    limiter = limiter_with(store, clock, limits=[{**ORG, "rate": "1/minute"}])
    await limiter.check(who())
    store.gate = asyncio.Event()
    releasing = asyncio.create_task(limiter.release("org", who()))
    await asyncio.sleep(0)
    assert not (await limiter.check(who())).allowed
    store.gate.set()
    await releasing
    assert (await limiter.check(who())).allowed


@pytest.mark.parametrize("op", [Op.PEEK, Op.ADJUST])
async def test_what_was_only_looked_at_or_already_spent_is_not_undone(clock: ManualClock, op: Op) -> None:
    """Of those who are cancelled, only what a decision has charged is given back; and a refusal has charged nothing."""
    store = Far(clock)
    limiter = limiter_with(store, clock, quotas=[{"name": "q", "limit": 9, "period": "day", "per": "org"}])
    await limiter.consume("q", who(), 5)
    charges = [limiter.plan.charge("q", who(), 5, clock(), method="GET", endpoint="*")]
    request = Request(charges, op)  # type: ignore[arg-type]
    limiter._guard._undo(request, await store.submit(request))
    refused = Request(charges, Op.CHARGE)  # type: ignore[arg-type]
    limiter._guard._undo(refused, await store.submit(refused))
    await limiter._guard.absence.drain()
    assert (await limiter.usage(who()))[0].used == (10 if op == Op.ADJUST else 5)
