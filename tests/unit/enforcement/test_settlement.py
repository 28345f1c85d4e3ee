"""Settlements: corrections as deltas, each sent once, and permits that are renewed until they are released."""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget, Settlement
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveConcurrency, EffectiveQuota
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import concurrency_limit, window_limit
from tests.support.virtual_time import VirtualLoop, virtually

TOKENS = EffectiveQuota(policy="tokens", scope="org", limit=1000, unit="tokens", refund_on=(500, 503))
SPEND = EffectiveQuota(policy="spend", scope="org", limit=1000, unit="tokens")
REQUESTS = window_limit(100, policy="requests")
RUNS = concurrency_limit(2, 9000, policy="runs")


class Written:
    """A target that keeps the requests that are written to it."""

    def __init__(self) -> None:
        self.requests: list[StoreRequest] = []
        self.is_closed = False
        self.target = CorrectionTarget(self._write, {"tokens", "spend", "requests"}, lambda: self.is_closed)

    def _write(self, request: StoreRequest) -> Awaitable[None]:
        self.requests.append(request)
        return COMPLETED

    def settlement(self, *charges: Charge) -> Settlement:
        """Return what was charged at the store's instant 99, with permits of the holder 7."""
        readings = [(1, 1000, 0) for _ in charges]
        return Settlement(self.target, StoreRequest(charges, Operation.ACQUIRE, 7), StoreReply(readings, 0, 99))

    @property
    def changes(self) -> list[dict[str, int]]:
        """The changes of each request, by policy."""
        return [{charge.limit.policy: charge.cost for charge in request.charges} for request in self.requests]


async def test_settling_sends_the_difference_and_repeating_it_nothing() -> None:
    """Later totals correct earlier ones; all policies of a unit or name are changed in one step."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 10), Charge(SPEND, "b", 10), Charge(REQUESTS, "c"))
    await settlement.settle({"tokens": 25})
    await settlement.settle({"tokens": 25})
    await settlement.settle({"tokens": 5, "requests": 0})
    assert written.changes == [{"tokens": 15, "spend": 15}, {"tokens": -20, "spend": -20, "requests": -1}]
    assert {(request.operation, request.holder, request.charged_at) for request in written.requests} == {
        (Operation.ADJUST, 7, 99)
    }


async def test_the_name_of_a_policy_wins_over_its_unit() -> None:
    """Two policies of one unit can be settled to different amounts."""
    written = Written()
    await written.settlement(Charge(TOKENS, "a", 10), Charge(SPEND, "b", 10)).settle({"tokens": 30, "spend": 12})
    assert written.changes == [{"tokens": 20, "spend": 2}]


async def test_recorded_costs_add_up_and_are_settled_at_the_release() -> None:
    """Together with the permits, in one step; releasing again does nothing."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 10), Charge(RUNS, "r"))
    assert not settlement.has_unsettled
    settlement.record({"tokens": 12})
    settlement.record({"tokens": 13})
    assert (settlement.has_unsettled, written.requests) == (True, [])
    await settlement.release()
    await settlement.release()
    assert written.changes == [{"runs": -1, "tokens": 15}]


async def test_costs_that_are_recorded_after_a_settlement_add_to_it() -> None:
    """The settled total is the amount spent so far."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 10))
    await settlement.settle({"tokens": 20})
    settlement.record({"tokens": 5})
    await settlement.release()
    assert written.changes == [{"tokens": 10}, {"tokens": 5}]


async def test_a_refund_is_for_good() -> None:
    """It gives back the policies that ask for it at this status, and a later settlement does not charge them again."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 10), Charge(SPEND, "b", 10))
    await settlement.refund(200)
    assert written.requests == []
    await settlement.refund(503)
    await settlement.refund(503)
    await settlement.settle({"tokens": 30})
    assert written.changes == [{"tokens": -10}, {"spend": 20}]


async def test_void_gives_everything_back_once() -> None:
    """Permits, and charges as they stand after corrections."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 10), Charge(RUNS, "r"), Charge(REQUESTS, "c"))
    await settlement.settle({"tokens": 25})
    await settlement.void()
    await settlement.void()
    assert written.changes == [{"tokens": 15}, {"runs": -1, "tokens": -25, "requests": -1}]


async def test_a_release_with_a_hold_leaves_the_other_permits() -> None:
    """Permits that are held until the end of background tasks outlive the response; nothing is settled yet."""
    background = EffectiveConcurrency(policy="jobs", scope="org", limit=2, hold="background")
    written = Written()
    settlement = written.settlement(Charge(RUNS, "r"), Charge(background, "j"), Charge(TOKENS, "a"))
    settlement.record({"tokens": 5})
    await settlement.release("response")
    await settlement.release()
    assert written.changes == [{"runs": -1}, {"jobs": -1, "tokens": 4}]


def test_permits_are_renewed_until_they_are_released() -> None:
    """Three times in the shortest lease; a closed limiter sends nothing, and goes on when it is opened again."""

    async def play(loop: VirtualLoop) -> None:
        written = Written()
        short = replace(RUNS, policy="short", lease_ms=3000)
        settlement = written.settlement(Charge(RUNS, "r"), Charge(short, "s"), Charge(TOKENS, "a"))
        assert settlement.renews_at is None
        settlement.start_renewal()
        assert settlement.renews_at == 1.0
        await asyncio.sleep(2.5)
        assert written.changes == [{"runs": 1, "short": 1}] * 2
        assert {(request.operation, request.holder) for request in written.requests} == {(Operation.RENEW, 7)}
        written.is_closed = True
        await asyncio.sleep(2)
        written.is_closed = False
        assert len(written.requests) == 2
        await asyncio.sleep(1)
        assert len(written.requests) == 3
        await settlement.release()
        assert settlement.renews_at is None
        settlement.renew()
        await asyncio.sleep(5)
        assert len(written.requests) == 4

    virtually(play)


def test_starting_the_renewal_again_keeps_one_timer() -> None:
    """A second start does not renew twice as often."""

    async def play(loop: VirtualLoop) -> None:
        written = Written()
        settlement = written.settlement(Charge(RUNS, "r"))
        settlement.start_renewal()
        settlement.start_renewal()
        await asyncio.sleep(10)
        assert len(written.requests) == 3
        await settlement.release()

    virtually(play)


async def test_a_full_shadow_was_not_charged() -> None:
    """So there is nothing of it to correct."""
    written = Written()
    shadow = Charge(replace(TOKENS, policy="shadow", shadow=True), "s", 10)
    request = StoreRequest([Charge(TOKENS, "a", 10), shadow])
    settlement = Settlement(written.target, request, StoreReply([(1, 1000, 0), (0, 1000, 1000)], 0, 99))
    await settlement.settle({"tokens": 15})
    await settlement.void()
    assert written.changes == [{"tokens": 5}, {"tokens": -15}]


async def test_a_decision_without_permits_renews_nothing() -> None:
    """There is no timer."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a"))
    settlement.start_renewal()
    settlement.renew()
    await settlement.release()
    assert (settlement.renews_at, written.requests) == (None, [])


async def test_threads_may_record() -> None:
    """No unit is lost between them."""
    written = Written()
    settlement = written.settlement(Charge(TOKENS, "a", 0))

    def record() -> None:
        for _ in range(1000):
            settlement.record({"tokens": 1})

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(record) for _ in range(8)]:
            future.result()
    await settlement.release()
    assert written.changes == [{"tokens": 8000}]
