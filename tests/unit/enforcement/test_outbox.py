"""The correction outbox: what the store has to count is kept while it is unavailable, and sent once."""

import asyncio

import pytest

from ratelimit import StoreError
from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.enforcement.outbox import FLUSH_INTERVAL, OUTBOX_CAPACITY, CorrectionOutbox
from ratelimit.errors import StorePartiallyUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit
from tests.support.fleet import Fleet
from tests.support.stores import RemoteStore
from tests.support.virtual_time import VirtualLoop, virtually

QUOTA = Charge(quota_limit(10**6, "day"), "q", 1)


def correction(cost: int = 1, key: str = "q") -> StoreRequest:
    return StoreRequest([QUOTA._replace(cost=cost, key=key)], Operation.ADJUST)


class Outbox(CorrectionOutbox):
    """An outbox with a store and a fallback of its own, and the failures that it has reported."""

    def __init__(self, clock: ManualClock, store: RemoteStore | None = None) -> None:
        self.store = store or RemoteStore(clock)
        self.fallback, self.tasks = LocalFallback(clock, lambda: 1), BackgroundTasks()
        self.failures: list[StoreError] = []
        super().__init__(self.store, self.fallback, self.tasks, self.failures.append)


async def test_a_flush_sends_local_usage_and_corrections_once(clock: ManualClock) -> None:
    """Together; afterwards the outbox is empty."""
    outbox = Outbox(clock)
    outbox.fallback.decide(StoreRequest([QUOTA._replace(cost=5)]))
    assert (len(outbox), outbox.is_empty) == (0, False)
    outbox.enqueue(correction(3))
    assert (len(outbox), outbox.is_empty) == (1, False)
    await outbox.flush()
    await outbox.flush()
    assert outbox.is_empty
    assert (outbox.store.used(QUOTA), outbox.store.calls) == (8, 2)


async def test_a_failed_flush_is_reported_and_not_repeated(clock: ManualClock) -> None:
    """The store completes what was sent by itself: sending it again would count it twice."""
    outbox = Outbox(clock)
    outbox.enqueue(correction())
    outbox.store.is_down = True
    await outbox.flush()
    assert [str(error) for error in outbox.failures] == ["down"]
    assert outbox.is_empty


async def test_a_correction_that_was_not_sent_stays(clock: ManualClock) -> None:
    """One node of a Cluster is down: the corrections for it wait, and the others are done."""

    class Partial(RemoteStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            if self.is_down and request.charges[0].key == "lost":
                raise StorePartiallyUnavailable("a node is down")
            return self.memory.run(request)

    store = Partial(clock)
    outbox = Outbox(clock, store)
    outbox.enqueue(correction(2, "lost"))
    outbox.enqueue(correction(3, "there"))
    store.is_down = True
    await outbox.flush()
    assert (len(outbox), outbox.failures, store.used(QUOTA._replace(key="there"))) == (1, [], 3)
    store.is_down = False
    await outbox.flush()
    assert (outbox.is_empty, store.used(QUOTA._replace(key="lost"))) == (True, 2)


async def test_an_unexpected_error_is_raised(clock: ManualClock) -> None:
    """A bug of a store is not taken for an outage."""

    class Broken(RemoteStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            raise ZeroDivisionError

    outbox = Outbox(clock, Broken(clock))
    outbox.enqueue(correction())
    with pytest.raises(ZeroDivisionError):
        await outbox.flush()


async def test_renewals_are_dropped(clock: ManualClock) -> None:
    """The lease will have ended when the store is available again."""
    outbox = Outbox(clock)
    outbox.enqueue(StoreRequest([Charge(concurrency_limit(1), "s")], Operation.RENEW, 7))
    assert outbox.is_empty


async def test_only_permits_of_a_known_holder_are_released_later(clock: ManualClock) -> None:
    """A call whose outcome is unknown may have taken them; a release of a permit that is not held does no harm."""
    outbox = Outbox(clock)
    permit, rate = Charge(concurrency_limit(1), "s", -1), Charge(window_limit(5), "w", -1)
    outbox.enqueue_release([rate], 7)
    outbox.enqueue_release([permit], 0)
    outbox.enqueue_release([permit._replace(cost=1)], 7)
    assert outbox.is_empty
    outbox.enqueue_release([permit, rate], 7)
    await outbox.flush()
    assert outbox.store.requests == [StoreRequest([permit], Operation.ADJUST, 7)]


async def test_the_outbox_is_bounded(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond its capacity the oldest correction is lost, with a line in the log."""
    outbox = Outbox(clock)
    for n in range(OUTBOX_CAPACITY + 1):
        outbox.enqueue(correction(key="first" if n == 0 else "rest"))
    assert len(outbox) == OUTBOX_CAPACITY
    assert caplog.messages == [
        f"store unavailable: more than {OUTBOX_CAPACITY} corrections; the oldest is lost [RL409]"
    ]
    await outbox.flush()
    assert [outbox.store.used(QUOTA._replace(key=key)) for key in ("first", "rest")] == [0, OUTBOX_CAPACITY]


def test_requests_start_a_flush_at_most_once_in_an_interval(clock: ManualClock) -> None:
    """However many of them find something in the outbox."""

    async def play(loop: VirtualLoop) -> None:
        outbox = Outbox(clock)
        outbox.flush_soon()
        for _ in range(10):
            outbox.enqueue(correction())
            outbox.flush_soon()
            await outbox.tasks.drain()
        assert (outbox.store.calls, len(outbox)) == (1, 9)
        await asyncio.sleep(FLUSH_INTERVAL)
        outbox.flush_soon()
        await outbox.tasks.drain()
        assert (outbox.store.calls, outbox.is_empty) == (10, True)

    virtually(play)


async def test_corrections_wait_for_the_store() -> None:
    """A settlement of what the store has charged is written when it is available again, and permits are released."""
    fleet, charges = Fleet(1), [Charge(concurrency_limit(2), "s"), Charge(quota_limit(100, "day"), "q", 10)]
    (enforcer,) = fleet.enforcers
    decision = await enforcer.decide(charges, Operation.ACQUIRE)
    await fleet.lose_store()
    await decision.settle({"q": 3})
    for settlement in decision.settlements:
        await settlement.release()
    assert [fleet.store.used(charge) for charge in charges] == [1, 10]
    await fleet.recover_store()
    assert [fleet.store.used(charge) for charge in charges] == [0, 3]
