"""The promise: memory and Redis give the same replies to the same sequence of requests, with all kinds mixed."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit, EffectiveRate
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.clock import START
from ratelimit.testing.factories import counted_together, windowed
from tests.support.stores import (
    SyncMemoryStore,
    SyncRedisStore,
    concurrency_limit,
    fresh_key,
    quota_limit,
    window_limit,
)

_SECOND, _MINUTE = (
    window_limit(9, 1, 3, policy="m", new_until_ms=START // 1000 + 1500),
    window_limit(100, 60, policy="m"),
)
_HOUR = window_limit(70, 3600, 20, policy="m", new_until_ms=START // 1000 + 3_600_000)

# The same keys under several effective limits: plans, grants, shares and new settings change limit, burst and buckets.
POLICIES: list[list[EffectiveLimit]] = [
    [
        window_limit(3, 1, policy="a"),
        window_limit(10, 1, 5, policy="a"),
        window_limit(200, 1, 50, policy="a", share=100),
    ],
    [
        window_limit(60, 60, 15, policy="b"),
        window_limit(64, 60, policy="b"),
        window_limit(65, 60, 32, policy="b", share=13),
    ],
    [window_limit(50, 1, 15, policy="w"), window_limit(2**32, 1, 2**31, policy="w"), window_limit(300, 1, policy="w")],
    [window_limit(5, 60, shadow=True, policy="c"), window_limit(10**9, 60, 10**8, policy="c", shadow=True)],
    [
        window_limit(10**15 - 1, 3600, policy="d"),
        window_limit(2**32, 3600, 2**31, policy="d"),
        window_limit(20, 3600, 20, policy="d"),
    ],
    [*counted_together([_SECOND, _MINUTE]), *counted_together([_SECOND, _MINUTE, _HOUR]), _MINUTE],
    [quota_limit(5, "hour"), quota_limit(300, "hour", share=150), quota_limit(0, "hour")],
    [quota_limit(10**15 - 1, "month"), quota_limit(300, "month", shadow=True)],
    [quota_limit(400, "week"), quota_limit(10, "week", share=5)],
    [quota_limit(50, "day"), quota_limit(500, "day")],
    [quota_limit(300, "year", share=299)],
    [quota_limit(20, None), quota_limit(300, None, share=200)],
    [concurrency_limit(2, 500), concurrency_limit(3, 2000, share=1), concurrency_limit(1, 90_000)],
    [concurrency_limit(1, 1000, shadow=True), concurrency_limit(5, 700), concurrency_limit(1, 1000, share=0)],
]
WAITS = [0, 0, 0, 1, 15, 16, 17, 499, 937, 938, 999, 1000, 1001, 1015, 1016, 2031, 2033, 30_000, 60_000, 121_876]
LONG_WAITS = [*WAITS, *WAITS, 3_600_000, 86_400_000, 40 * 86_400_000, -1, -700]
OPERATIONS = (
    [Operation.CHARGE] * 6
    + [Operation.PEEK, Operation.USAGE]
    + [Operation.ADJUST] * 3
    + [Operation.RELEASE, Operation.RELEASE, Operation.RENEW]
)

costs = st.one_of(
    st.integers(0, 5), st.integers(1, 5), st.integers(1, 300), st.sampled_from([10**9, 2**32, 2**32 + 7, 10**15 - 1])
)


class Step(NamedTuple):
    """One request of a sequence: the wait before it, what it does, and which earlier request it corrects."""

    wait: int
    operation: Operation
    chosen: list[tuple[int, int, int]]
    earlier: int
    ago: int | None = None


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw what one request charges: (policy, which of its effective limits, cost)."""
    chosen = draw(st.sets(st.integers(0, len(POLICIES) - 1), min_size=1, max_size=6))
    return [(p, draw(st.integers(0, len(POLICIES[p]) - 1)), draw(costs)) for p in sorted(chosen)]


steps = st.builds(
    Step,
    st.sampled_from(LONG_WAITS),
    st.sampled_from(OPERATIONS),
    requests(),
    st.integers(0, 3),
    st.sampled_from([None, None, *sorted({abs(wait) for wait in LONG_WAITS})]),
)


class RequestBuilder:
    """Builds requests from steps; some of them correct what an earlier request has charged."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.keys = [fresh_key() for _ in POLICIES]
        self.made: list[tuple[StoreRequest, int]] = []
        self.holders = 0

    def request(self, step: Step) -> StoreRequest:
        charges = [self._charge(*one) for one in step.chosen]
        if step.operation == Operation.RELEASE:
            plain = [one for one in charges if one.limit.kind != "concurrency"] or [self._charge(5, 0, 1)]
            return StoreRequest([one._replace(cost=-one.cost) for one in plain], Operation.RELEASE)
        if step.operation == Operation.ADJUST and step.ago is not None:
            plain = [one for one in charges if one.limit.kind != "concurrency"]
            return StoreRequest(plain, Operation.ADJUST, 0, max(1, self.clock() // 1000 - step.ago))
        if step.operation in (Operation.ADJUST, Operation.RENEW) and self.made:
            earlier, at = self.made[-1 - step.earlier % len(self.made)]
            return self._correction(step, earlier, at)
        operation = step.operation if step.operation in (Operation.PEEK, Operation.USAGE) else Operation.CHARGE
        if operation == Operation.CHARGE and any(one.limit.kind == "concurrency" for one in charges):
            self.holders += 1
            return StoreRequest(charges, Operation.ACQUIRE, self.holders)
        return StoreRequest(charges, operation)

    def record(self, request: StoreRequest, reply: StoreReply) -> None:
        """Remember a request, so that later ones may correct it."""
        if request.operation in (Operation.CHARGE, Operation.ACQUIRE):
            self.made.append((request, reply.store_ms))

    def _charge(self, policy: int, number: int, cost: int) -> Charge:
        limit = POLICIES[policy][number]
        if isinstance(limit, EffectiveRate) and limit.other_windows:
            return windowed(limit, self.keys[policy], cost)
        return Charge(limit, self.keys[policy], 1 if limit.kind == "concurrency" else cost)

    def _correction(self, step: Step, earlier: StoreRequest, at: int) -> StoreRequest:
        held = [one for one in earlier.charges if one.limit.kind == "concurrency"]
        if step.operation == Operation.RENEW and held:
            return StoreRequest(held, Operation.RENEW, earlier.holder)
        spent = step.chosen[0][2]
        changed = [one._replace(cost=spent - one.cost) for one in earlier.charges if one not in held]
        return StoreRequest([*(one._replace(cost=-1) for one in held), *changed], Operation.ADJUST, earlier.holder, at)


@settings(max_examples=300)
@given(sequence=st.lists(steps, min_size=5, max_size=50))
def test_memory_and_redis_reply_alike(sync_redis: SyncRedisStore, sequence: list[Step]) -> None:
    """Decision, remaining, reset, wait and usage are equal at every step, also for limits that change."""
    memory = SyncMemoryStore()
    builder = RequestBuilder(memory.clock)
    sync_redis.clock.now = START
    for step in sequence:
        for store in (memory, sync_redis):
            store.clock.advance(ms=step.wait)
        request = builder.request(step)
        reply = memory.run(request)
        assert sync_redis.run(request) == reply, request
        builder.record(request, reply)


@settings(max_examples=100)
@given(sequence=st.lists(st.tuples(st.sampled_from(WAITS), st.lists(steps, min_size=1, max_size=8)), max_size=20))
def test_a_batch_decides_as_single_calls_do(sync_redis: SyncRedisStore, sequence: list[tuple[int, list[Step]]]) -> None:
    """Requests that travel in one call get the replies that they would get one after the other."""
    memory = SyncMemoryStore()
    builder = RequestBuilder(memory.clock)
    sync_redis.clock.now = START
    for wait, batch in sequence:
        for store in (memory, sync_redis):
            store.clock.advance(ms=wait)
        sent = [builder.request(step) for step in batch]
        replies = [memory.run(request) for request in sent]
        assert sync_redis.batch(sent) == replies
        for request, reply in zip(sent, replies, strict=True):
            builder.record(request, reply)


def test_counts_that_outgrow_four_bytes_are_exact(sync_redis: SyncRedisStore) -> None:
    """While the counts of a window outgrow four bytes, each entry that leaves the window is subtracted once."""
    memory, key = SyncMemoryStore(), fresh_key()
    memory.clock.now = sync_redis.clock.now
    small, huge = window_limit(100, 1, policy="g"), window_limit(2**33, 1, policy="g")
    for wait, limit in ((0, small), (300, small), (300, small), (500, huge), (20, huge), (200, small), (900, small)):
        for store in (memory, sync_redis):
            store.clock.advance(ms=wait)
        assert sync_redis.charge([Charge(limit, key, 7)]) == memory.charge([Charge(limit, key, 7)])
