"""The fallback: while the store is away, the workers of a fleet together admit what it would have, and tell it later."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Limiter, MemoryStore, RateLimitSettings, RedisStore, StoreError
from ratelimit.charge import Charge, Terms
from ratelimit.resilience import Guard
from ratelimit.stores import Answer, Op, Request
from ratelimit.testing import ManualClock
from tests.support.engines import fresh_key, quota, slots, terms


class Fleet:
    """A store, and workers that share it, all on one clock."""

    def __init__(self, workers: int) -> None:
        self.clock = ManualClock()
        self.store = Far(self.clock)
        self.guards = [Guard(self.store, self.clock, {"p", "q"}) for _ in range(workers)]
        for guard in self.guards:
            guard.absence.fallback.workers = workers
            guard._sender = guard  # As if the store were not in this process.

    async def admit(self, charge: Charge, times: int, workers: Sequence[int] = ()) -> int:
        """Let all workers ask in turn, and return how much they admit."""
        chosen = [self.guards[n] for n in workers] or self.guards
        asked = [await chosen[n % len(chosen)].decide([charge]) for n in range(times)]
        return sum(charge.cost for decision in asked if decision.allowed)

    async def lose(self, others: int = 5) -> None:
        """Let the store go away, and every worker know."""
        self.store.away = True
        for guard in self.guards:
            for _ in range(others):
                await guard.decide([Charge(terms(10**6), "other")])

    async def find(self) -> None:
        self.store.away = False
        for guard in self.guards:
            await guard.absence.look()
            await guard.absence.drain()

    async def used(self, charge: Charge) -> int:
        answer = await MemoryStore.submit(self.store, Request([charge], Op.USAGE))
        return answer.numbers[0][0]


class Far(MemoryStore):
    """A memory that stands for a store elsewhere: it has its own clock, and may be away."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=lambda: clock() + 3_600_000_000)
        self.clock, self.away = clock, False

    async def submit(self, request: Request) -> Answer:
        if self.away:
            raise StoreError("away")
        return (await super().submit(request))._replace(now=self.clock())


class Outage(NamedTuple):
    """Requests before, during (twice) and after an outage, and the seconds between them."""

    before: int
    during: int
    after: int
    pauses: tuple[int, int, int]


outages = st.builds(
    Outage,
    st.integers(0, 400),
    st.integers(0, 800),
    st.integers(0, 400),
    st.tuples(st.integers(0, 20), st.integers(0, 70), st.integers(0, 20)),
)


@given(workers=st.integers(1, 6), limit=st.integers(6, 300), outage=outages)
async def test_a_fleet_keeps_its_limit(workers: int, limit: int, outage: Outage) -> None:
    """Before, during and after an outage, no window holds more than the limit, and a tenth for what is rounded."""
    fleet, one, admitted = Fleet(workers), Charge(terms(limit, 60), "k"), list[tuple[int, int]]()

    async def ask(times: int, pause: int) -> None:
        admitted.append((fleet.clock(), await fleet.admit(one, times)))
        fleet.clock.advance(seconds=pause)

    await ask(outage.before, 0)
    await ask(workers if outage.before else 0, outage.pauses[0])  # So that all have heard of it lately.
    await fleet.lose()
    await ask(outage.during, outage.pauses[1])
    await ask(outage.during, outage.pauses[2])
    await fleet.find()
    await ask(outage.after, 0)
    for start, _ in admitted:
        window = sum(units for at, units in admitted if start <= at < start + 60_000_000)
        assert window <= 1.1 * limit + workers


async def test_what_the_store_said_counts_as_used() -> None:
    """An outage is no second budget: what was left then is what the fleet shares."""
    fleet, one = Fleet(2), Charge(terms(100, 60), "k")
    assert await fleet.admit(one, 60) == 60
    await fleet.lose()
    assert await fleet.admit(one, 200) == 40
    fleet.clock.advance(seconds=62)
    assert await fleet.admit(one, 200) == 100


async def test_a_store_that_comes_and_goes_is_no_new_budget() -> None:
    """Refusals may still be answered where nothing can be written: what was admitted here meanwhile stays used."""
    fleet, one = Fleet(2), Charge(terms(100, 60), "k")
    admitted = await fleet.admit(one, 60)
    for _ in range(5):
        await fleet.lose()
        admitted += await fleet.admit(one, 40)
        fleet.store.away = False
        for guard in fleet.guards:
            guard.absence._failures = 0
            guard.absence.fallback.hand_over()  # Lost on its way.
    assert admitted == 100


async def test_shares_are_never_nothing() -> None:
    """A limit of one admits one at every worker; a limit of none admits none."""
    fleet = Fleet(4)
    await fleet.lose()
    assert await fleet.admit(Charge(terms(1), "one"), 20) == 4
    assert await fleet.admit(Charge(quota(0, "day"), "none"), 20) == 0
    assert await fleet.admit(Charge(terms(20), "ten", 10), 8) == 40


async def test_a_share_tells_the_limit_of_all() -> None:
    """The limit in the headers is the one that was declared; what remains is this worker's."""
    fleet = Fleet(4)
    await fleet.lose()
    decision = await fleet.guards[0].decide([Charge(terms(100, 60, 20), "k")])
    assert decision.binding is not None
    assert (decision.binding.limit, decision.binding.remaining) == (100, 24)


async def test_what_was_admitted_meanwhile_is_written_once() -> None:
    """In the slots and periods in which it was admitted, also where costs were settled meanwhile or afterwards."""
    fleet, one, month = Fleet(2), Charge(terms(1000, 60), "k"), Charge(quota(10**6, "month"), "q", 3)
    await fleet.admit(one, 100)
    await fleet.admit(month, 10)
    fleet.clock.advance(seconds=30)
    await fleet.lose()
    assert await fleet.admit(one, 50) == 50
    assert await fleet.admit(month, 20) == 60
    settled = await fleet.guards[0].decide([month])
    late = await fleet.guards[1].decide([month])
    await settled.settle({"q": 100})
    fleet.clock.advance(seconds=20)
    await fleet.find()
    assert (await fleet.used(one), await fleet.used(month)) == (150, 30 + 60 + 100 + 3)
    await late.settle({"q": 1})
    for guard in fleet.guards:
        await guard.absence.drain()
    assert await fleet.used(month) == 30 + 60 + 100 + 1
    fleet.clock.advance(seconds=12)  # The first hundred have left, and what was admitted half a minute later has not.
    assert await fleet.used(one) == 50
    await fleet.find()
    assert await fleet.used(month) == 30 + 60 + 100 + 1


async def test_quotas_that_nobody_limits_meanwhile_are_counted() -> None:
    """With `allow` everything passes, and what was used of a quota is written all the same."""
    fleet = Fleet(1)
    free = Terms(kind="quota", policy="q", scope="org", limit=5, window=86_400, period="day", on_store_failure="allow")
    await fleet.lose()
    assert await fleet.admit(Charge(free, "q"), 9) == 9
    await fleet.find()
    assert await fleet.used(Charge(free, "q")) == 9


async def test_corrections_wait_for_the_store() -> None:
    """A settlement of what the store has charged is written when it is back, and slots are given back."""
    fleet, held = Fleet(1), [Charge(slots(2), "s"), Charge(quota(100, "day"), "q", 10)]
    (guard,) = fleet.guards
    decision = await guard.decide(held, Op.HOLD)
    await fleet.lose()
    await decision.settle({"q": 3})
    for receipt in decision.receipts:
        await receipt.finish()
    assert [await fleet.used(charge) for charge in held] == [1, 10]
    await fleet.find()
    assert [await fleet.used(charge) for charge in held] == [0, 3]


async def test_closing_tells_the_store_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What is kept is written at the end if the store is there, and else said to be lost."""
    for back in (True, False):
        caplog.clear()
        fleet, one = Fleet(1), Charge(quota(100, "day"), "q")
        await fleet.lose()
        await fleet.admit(one, 7)
        fleet.store.away = not back
        with caplog.at_level(logging.ERROR, "ratelimit"):
            await fleet.guards[0].aclose()
        assert await fleet.used(one) == (7 if back else 0)
        assert ("is not written" in caplog.text) is not back


async def test_what_is_kept_is_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound it is said once, and what is known goes on being counted."""
    monkeypatch.setattr("ratelimit.fallback._MOST", 3)
    fleet = Fleet(1)
    await fleet.lose(0)
    for _ in range(2):
        for n in range(6):
            await fleet.admit(Charge(quota(100, "day"), f"q{n}"), 5)
    assert len(fleet.guards[0].absence.fallback._spent) == 3
    assert caplog.text.count("not all can be kept") == 1
    await fleet.find()
    assert [await fleet.used(Charge(quota(100, "day"), f"q{n}")) for n in range(3)] == [10] * 3


async def test_workers_know_of_each_other(redis_url: str) -> None:
    """Each takes its share: of those that are there, not of those that have left or were killed."""
    settings = RateLimitSettings(limits=[{"name": "t", "rate": "9/minute"}], key_prefix=fresh_key())
    one, two, three = (Limiter(settings, RedisStore(redis_url, timeout=10)) for _ in range(3))

    async def known(*limiters: Limiter) -> list[int]:
        for limiter in limiters:
            await limiter._greet()
        return [limiter._guard.absence.fallback.workers for limiter in limiters]

    assert await known(one, two, three) == [1, 2, 3]
    await two.aclose()
    assert await known(one, three) == [2, 2]
    await three._greet(0.001)
    await asyncio.sleep(0.01)  # By the server's clock.
    assert await known(one) == [1]
    one._guard.absence.fallback.workers = 4  # As it was before the store went away, and the others were forgotten.
    one._guard.absence._failures = 5
    assert await known(one) == [4]
    one._guard.absence._failures = 0
    assert await known(one) == [1]
    await one.aclose()
    await three.aclose()
