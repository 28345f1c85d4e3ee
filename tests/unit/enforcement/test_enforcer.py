"""The enforcer: decisions by the store, by the failure modes while it is unavailable, and by the store again."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from ratelimit import StoreError
from ratelimit.enforcement.circuit_breaker import PROBE_INTERVAL
from ratelimit.enforcement.enforcer import RECOVERY_GRACE, Enforcer
from ratelimit.errors import StoreTimeout
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveQuota
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, fresh_key, quota_limit, window_limit
from tests.support.fleet import Fleet
from tests.support.stores import RemoteStore
from tests.support.virtual_time import VirtualLoop, virtually

CHARGES = [Charge(window_limit(1000), "k")]


def unreliable(clock: ManualClock) -> tuple[RemoteStore, Enforcer]:
    """Return a store that is down, and its enforcer."""
    store = RemoteStore(clock)
    store.is_down = True
    return store, Enforcer(store, clock, set())


async def test_a_store_in_this_process_is_asked_in_process(clock: ManualClock) -> None:
    """A decision never waits there, and neither does a correction."""
    store = MemoryStore(clock=clock)
    enforcer = Enforcer(store, clock, {"p", "requests"})
    decision = await enforcer.decide(CHARGES)
    assert (decision.allowed, decision.degraded, decision.limits[0].remaining) == (True, False, 999)
    for settlement in decision.settlements:
        settlement.settle({"p": 5})
    assert (await enforcer.decide(CHARGES, Operation.PEEK)).limits[0].remaining == 995


async def test_after_five_failures_no_request_waits_for_the_store(clock: ManualClock) -> None:
    """Twenty requests while the store is down: five are sent, the others are decided without it."""
    store, enforcer = unreliable(clock)
    decisions = [await enforcer.decide(CHARGES) for _ in range(20)]
    assert store.calls == 5
    assert all(decision.allowed and decision.degraded for decision in decisions)
    assert enforcer.circuit_breaker.is_probing
    await enforcer.aclose()


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize(("is_contested", "calls"), [(False, 2), (True, 4)])
async def test_a_contested_refusal_is_not_cached(
    clock: ManualClock, *, is_contested: bool, calls: int, prefetch: bool
) -> None:
    """The next request asks the store again, since there may be room a moment later; any other refusal is cached."""

    class Racing(RemoteStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            return (await super().submit(request))._replace(is_contested=is_contested)

    store = Racing(clock)
    enforcer = Enforcer(store, clock, set(), prefetch=prefetch)
    charges = [Charge(window_limit(1), "full")]
    decisions = [await enforcer.decide(charges) for _ in range(4)]
    assert [decision.allowed for decision in decisions] == [True, False, False, False]
    assert store.calls == calls
    await enforcer.aclose()


async def test_a_decision_without_asking_does_not_wait(clock: ManualClock) -> None:
    """Its caller has already waited for the store in vain: the failure modes decide, and no call is made."""
    store = RemoteStore(clock)
    enforcer = Enforcer(store, clock, set())
    decision = await enforcer.decide(CHARGES, ask_store=False)
    assert (decision.allowed, decision.degraded, store.calls) == (True, True, 0)
    await enforcer.aclose()


async def test_requests_that_failed_together_are_one_failure(clock: ManualClock) -> None:
    """A call that carried many requests proves no more than a call of one."""
    causes: list[StoreError] = []

    class Together(RemoteStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            raise StoreError("down") from causes[0]

    enforcer = Enforcer(Together(clock), clock, set())
    for cause in range(4):
        causes[:] = [StoreError(str(cause))]
        for _ in range(20):
            await enforcer.decide(CHARGES)
    assert not enforcer.circuit_breaker.is_open
    causes[:] = [StoreError("last")]
    await enforcer.decide(CHARGES)
    assert enforcer.circuit_breaker.is_open
    enforcer.circuit_breaker.stop()


def test_the_store_is_probed_in_the_background(clock: ManualClock) -> None:
    """Again and again without a request, by one timer, until it is available; requests in between add no probe."""

    async def play(loop: VirtualLoop) -> None:
        store, enforcer = unreliable(clock)
        for _ in range(5):
            await enforcer.decide(CHARGES)
        for probes in range(1, 4):
            await asyncio.sleep(PROBE_INTERVAL)
            await asyncio.sleep(0.01)
            for _ in range(10):
                assert (await enforcer.decide(CHARGES)).degraded
            assert store.calls == 5 + probes
        store.is_down = False
        await asyncio.sleep(PROBE_INTERVAL)
        assert not enforcer.circuit_breaker.is_open
        calls = store.calls
        await asyncio.sleep(60)
        assert store.calls == calls
        await enforcer.aclose()

    virtually(play)


async def test_a_store_that_is_available_again_is_used_at_once(clock: ManualClock) -> None:
    """The first probe that succeeds ends the outage for every request, and failures are counted from zero."""
    store, enforcer = unreliable(clock)
    for _ in range(9):
        await enforcer.decide(CHARGES)
    await enforcer.circuit_breaker.probe()
    await enforcer.drain()
    assert (await enforcer.decide(CHARGES)).degraded
    store.is_down = False
    await enforcer.circuit_breaker.probe()
    await enforcer.drain()
    assert [(await enforcer.decide(CHARGES)).degraded for _ in range(3)] == [False] * 3
    store.is_down = True
    calls = store.calls
    for _ in range(9):
        await enforcer.decide(CHARGES)
    assert store.calls == calls + 5
    await enforcer.aclose()


async def test_a_closed_enforcer_probes_no_more(clock: ManualClock) -> None:
    """Closing probes a few times more, and then no timer is left; `open` allows probes again."""
    store, enforcer = unreliable(clock)
    for _ in range(6):
        await enforcer.decide(CHARGES)
    await enforcer.aclose()
    assert store.calls == 5 + 3
    assert (enforcer.is_closed, enforcer.circuit_breaker.is_probing) == (True, False)
    await enforcer.decide(CHARGES)
    assert not enforcer.circuit_breaker.is_probing
    enforcer.open()
    await enforcer.decide(CHARGES)
    assert (enforcer.is_closed, enforcer.circuit_breaker.is_probing) == (False, True)
    enforcer.circuit_breaker.stop()


def test_among_several_workers_the_grace_period_is_decided_locally(clock: ManualClock) -> None:
    """The other workers reconnect in that time, and admitted units are reported to the store step by step."""

    async def play(loop: VirtualLoop) -> None:
        store, enforcer = unreliable(clock)
        enforcer.workers.count = 2
        for _ in range(5):
            await enforcer.decide(CHARGES)
        store.is_down = False
        await enforcer.circuit_breaker.probe()
        began, degraded = loop.time(), 0
        while (await enforcer.decide(CHARGES)).degraded:
            degraded += 1
            await asyncio.sleep(0.01)
        assert loop.time() - began == pytest.approx(RECOVERY_GRACE, abs=0.02)
        await enforcer.drain()
        assert store.used(CHARGES[0]) == 5 + degraded + 1
        await enforcer.aclose()

    virtually(play)


async def test_the_failure_modes_of_the_policies_decide(clock: ManualClock) -> None:
    """`deny` refuses with 503, `allow` lets the request pass uncounted, `local` enforces this worker's share."""
    _, enforcer = unreliable(clock)

    def quota(limit: int, mode: str) -> Charge:
        return Charge(EffectiveQuota(policy=mode, scope="org", limit=limit, on_store_failure=mode), mode)

    assert (await enforcer.decide([quota(9, "local"), quota(9, "deny")])).status == 503
    assert [(await enforcer.decide([quota(1, "allow")])).allowed for _ in range(3)] == [True] * 3
    assert [(await enforcer.decide([quota(1, "local")])).allowed for _ in range(3)] == [True, False, False]
    await enforcer.aclose()


async def test_quotas_that_are_not_enforced_in_an_outage_are_counted() -> None:
    """With `allow` everything passes, and what was used of a quota is reported all the same."""
    fleet = Fleet(1)
    free = EffectiveQuota(policy="q", scope="org", limit=5, window=86_400, period="day", on_store_failure="allow")
    await fleet.lose_store()
    assert await fleet.admit(Charge(free, "q"), 9) == 9
    await fleet.recover_store()
    assert fleet.store.used(Charge(free, "q")) == 9


@pytest.mark.parametrize("is_back", [True, False])
async def test_closing_reports_to_the_store_or_the_log(caplog: pytest.LogCaptureFixture, *, is_back: bool) -> None:
    """Kept charges and corrections are written at the end if the store is available, and otherwise logged as lost."""
    fleet, charge = Fleet(1), Charge(quota_limit(100, "day"), "q")
    await fleet.lose_store()
    await fleet.admit(charge, 7)
    fleet.store.is_down = not is_back
    with caplog.at_level(logging.ERROR, "ratelimit"):
        await fleet.enforcers[0].aclose()
    assert fleet.store.used(charge) == (7 if is_back else 0)
    assert ("what was charged since then is not written" in caplog.text) is not is_back


async def orphan(enforcer: Enforcer, store: RemoteStore, request: StoreRequest, *, with_reply: bool = True) -> None:
    """Let the caller of `request` be cancelled before its reply arrived, as the store reports it."""
    await enforcer.decide(CHARGES, Operation.PEEK)
    on_orphaned: Callable[[StoreRequest, StoreReply | None], None] | None = store.requests[-1].on_orphaned
    assert on_orphaned is not None
    on_orphaned(request, store.memory.run(request) if with_reply else None)
    await enforcer.drain()


@pytest.mark.parametrize(("operation", "used"), [(Operation.CHARGE, 5), (Operation.PEEK, 5), (Operation.ADJUST, 8)])
async def test_a_charge_whose_caller_was_cancelled_is_given_back(
    clock: ManualClock, operation: Operation, used: int
) -> None:
    """Units that were already spent, and are only counted, stay counted; a refused request has charged nothing."""
    store = RemoteStore(clock)
    enforcer, charge = Enforcer(store, clock, set()), Charge(quota_limit(9, "day"), "q", 3)
    await enforcer.decide([charge._replace(cost=5)])
    await orphan(enforcer, store, StoreRequest([charge], operation))
    assert store.used(charge) == used
    await orphan(enforcer, store, StoreRequest([charge._replace(cost=9)], Operation.CHARGE))
    assert store.used(charge) == used


async def test_permits_whose_caller_was_cancelled_are_released_whether_or_not_a_reply_arrived(
    clock: ManualClock,
) -> None:
    """Without a reply they may have been taken; the release waits in the outbox for the next call."""
    for with_reply in (True, False):
        store = RemoteStore(clock)
        enforcer, charge = Enforcer(store, clock, set()), Charge(concurrency_limit(2), "s")
        request = StoreRequest([charge], Operation.ACQUIRE, 7)
        if not with_reply:
            store.memory.run(request)
        await orphan(enforcer, store, request, with_reply=with_reply)
        assert len(enforcer.outbox) == (0 if with_reply else 1)
        await enforcer.decide(CHARGES)
        await enforcer.drain()
        assert store.used(charge) == 0


async def test_workers_that_have_not_reconnected_keep_their_share() -> None:
    """While the breaker is open the number of workers does not shrink: the others serve their shares too."""
    fleet = Fleet(1)
    (enforcer,) = fleet.enforcers
    await fleet.lose_store()
    enforcer.workers.count = 4
    await enforcer.workers.heartbeat()
    assert enforcer.workers.count == 4
    await fleet.recover_store()
    await enforcer.workers.heartbeat()
    assert enforcer.workers.count == 1


async def test_a_cancelled_close_sends_the_outbox_all_the_same(clock: ManualClock) -> None:
    """A deadline of the shutdown loses no correction: closing again finds it sent, or still to send."""
    store = RemoteStore(clock)
    enforcer, charge = Enforcer(store, clock, set()), Charge(quota_limit(100, None), fresh_key())
    for _ in range(4):
        enforcer.outbox.enqueue(StoreRequest([charge], Operation.ADJUST))
    enforcer.circuit_breaker.record_failure(StoreTimeout("once"))
    closing = asyncio.create_task(enforcer.aclose())
    while len(enforcer.outbox):  # noqa: ASYNC110 - until the flush has begun
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await enforcer.aclose()
    assert store.used(charge) == 4
