"""The local fallback: in an outage the workers of a fleet together admit what the store would have admitted."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import MemoryStore
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import quota_limit, window_limit
from tests.support.fleet import Fleet


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
    fleet, charge, admitted = Fleet(workers), Charge(window_limit(limit, 60), "k"), list[tuple[int, int]]()

    async def ask(times: int, pause: int) -> None:
        admitted.append((fleet.clock(), await fleet.admit(charge, times)))
        fleet.clock.advance(seconds=pause)

    await ask(outage.before, 0)
    await ask(workers if outage.before else 0, outage.pauses[0])  # So that every worker has observed the usage lately.
    await fleet.lose_store()
    await ask(outage.during, outage.pauses[1])
    await ask(outage.during, outage.pauses[2])
    await fleet.recover_store()
    await ask(outage.after, 0)
    for start, _ in admitted:
        window = sum(units for at, units in admitted if start <= at < start + 60_000_000)
        assert window <= 1.1 * limit + workers


async def test_usage_that_the_store_has_reported_counts() -> None:
    """An outage is no second budget: the fleet shares what was left then."""
    fleet, charge = Fleet(2), Charge(window_limit(100, 60), "k")
    assert await fleet.admit(charge, 60) == 60
    await fleet.lose_store()
    assert await fleet.admit(charge, 200) == 40
    fleet.clock.advance(seconds=62)
    assert await fleet.admit(charge, 200) == 100


def test_each_outage_counts_what_was_observed_since_the_one_before(clock: ManualClock) -> None:
    """Also where nothing was admitted in the earlier outage, so that nothing was reported after it."""
    fallback, charge = LocalFallback(clock, lambda: 1), Charge(window_limit(10, 60), "k")
    request = StoreRequest([charge])
    for _ in range(2):
        fallback.observe([charge], StoreReply([(0, 60_000, 60_000)], clock(), clock() // 1000))
        _, reply = fallback.decide(request)
        assert request.is_refused(reply)
        clock.advance(seconds=62)


async def test_a_store_that_comes_and_goes_is_no_new_budget() -> None:
    """Units that were admitted locally stay used, also where their report was lost on its way."""
    fleet, charge = Fleet(2), Charge(window_limit(100, 60), "k")
    admitted = await fleet.admit(charge, 60)
    for _ in range(5):
        await fleet.lose_store()
        admitted += await fleet.admit(charge, 40)
        for enforcer in fleet.enforcers:
            enforcer.local_fallback.drain()  # The report that is lost.
        await fleet.recover_store()
    assert admitted == 100


async def test_a_share_is_never_zero() -> None:
    """A limit of one admits one at every worker; a limit of zero admits nothing."""
    fleet = Fleet(4)
    await fleet.lose_store()
    assert await fleet.admit(Charge(window_limit(1), "one"), 20) == 4
    assert await fleet.admit(Charge(quota_limit(0, "day"), "none"), 20) == 0
    assert await fleet.admit(Charge(window_limit(20), "ten", 10), 8) == 40


async def test_a_share_reports_the_limit_of_the_fleet() -> None:
    """The limit in the headers is the declared one; what remains is this worker's."""
    fleet = Fleet(4)
    await fleet.lose_store()
    decision = await fleet.enforcers[0].decide([Charge(window_limit(100, 60, 20), "k")])
    assert decision.binding is not None
    assert (decision.binding.limit, decision.binding.remaining) == (100, 24)


async def test_local_usage_is_reported_once() -> None:
    """In the buckets and periods in which it was admitted, also where costs were settled before or after the report."""
    fleet = Fleet(2)
    charge, month = Charge(window_limit(1000, 60), "k"), Charge(quota_limit(10**6, "month"), "q", 3)
    await fleet.admit(charge, 100)
    await fleet.admit(month, 10)
    fleet.clock.advance(seconds=30)
    await fleet.lose_store()
    assert await fleet.admit(charge, 50) == 50
    assert await fleet.admit(month, 20) == 60
    settled = await fleet.enforcers[0].decide([month])
    late = await fleet.enforcers[1].decide([month])
    await settled.settle({"q": 100})
    fleet.clock.advance(seconds=20)
    await fleet.recover_store()
    assert (fleet.store.used(charge), fleet.store.used(month)) == (150, 30 + 60 + 100 + 3)
    await late.settle({"q": 1})
    for enforcer in fleet.enforcers:
        await enforcer.drain()
    assert fleet.store.used(month) == 30 + 60 + 100 + 1
    fleet.clock.advance(seconds=12)  # The first hundred have left, and those of half a minute later have not.
    assert fleet.store.used(charge) == 50
    await fleet.recover_store()
    assert fleet.store.used(month) == 30 + 60 + 100 + 1


def test_the_units_that_are_kept_are_bounded(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the bound new keys are not kept, with one line in the log, and known keys are counted on."""
    fallback, store = LocalFallback(clock, lambda: 1, max_keys=3), MemoryStore(clock=clock)
    keys = [Charge(quota_limit(100, "day"), f"q{n}") for n in range(6)]
    for _ in range(2):
        for charge in keys:
            for _ in range(5):
                fallback.decide(StoreRequest([charge]))
    assert (fallback.sizes["unreported"], fallback.has_unreported) == (3, True)
    assert caplog.text.count("usage of more than 3 keys cannot be kept") == 1
    for request in fallback.drain():
        store.run(request)
    assert not fallback.has_unreported
    used = [100 - store.run(StoreRequest([charge])).service_limits([charge])[0].remaining - 1 for charge in keys]
    assert used == [10, 10, 10, 0, 0, 0]


def test_a_drain_counts_a_generation(clock: ManualClock) -> None:
    """From then on corrections of earlier charges belong to the store."""
    fallback = LocalFallback(clock, lambda: 1)
    generation = fallback.generation
    fallback.decide(StoreRequest([Charge(quota_limit(100, "day"), "q")]))
    assert fallback.generation == generation
    assert len(fallback.drain()) == 1
    assert (fallback.generation, fallback.drain()) == (generation + 1, [])


def test_units_are_reported_by_the_stores_clock(clock: ManualClock) -> None:
    """Its offset is known from the last reply."""
    fallback, charge = LocalFallback(clock, lambda: 1), Charge(quota_limit(100, "day"), "q")
    now_ms = clock() // 1000
    fallback.observe([charge], StoreReply([(99, 1000, 0)], clock(), now_ms + 5000))
    assert fallback.to_store_time(now_ms) == now_ms + 5000
    clock.advance(seconds=1)
    fallback.decide(StoreRequest([charge]))
    assert [request.charged_at for request in fallback.drain()] == [now_ms + 6000]


def test_a_charge_under_a_local_limit_is_sent_under_the_declared_one(clock: ManualClock) -> None:
    """The store knows the limit of the fleet alone."""
    fallback, charge = LocalFallback(clock, lambda: 4), Charge(window_limit(100), "k")
    request, _ = fallback.decide(StoreRequest([charge]))
    (local,) = request.charges
    assert (local.limit.limit, local.limit.reported_limit) == (25, 100)
    assert fallback.to_global(local) == charge
