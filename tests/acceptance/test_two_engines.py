"""The promise: memory and Redis give the same answer at every step of the same history."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.decision import Charge, Terms
from ratelimit.stores.wire import Request
from tests.support.engines import MemoryEngine, RedisEngine, fresh_key, terms

# The same three keys under several numbers: plans, grants and reloads change L, C and with them the slots.
POLICIES: list[list[Terms]] = [
    [terms(3, 1, policy="a"), terms(10, 1, 5, policy="a"), terms(200, 1, 50, policy="a")],
    [terms(60, 60, 15, policy="b"), terms(64, 60, policy="b"), terms(65, 60, 32, policy="b")],
    [terms(50, 1, 15, policy="w"), terms(2**32, 1, 2**31, policy="w"), terms(300, 1, policy="w")],
    [terms(5, 60, shadow=True, policy="c"), terms(10**9, 60, 10**8, policy="c", shadow=True)],
    [terms(10**15 - 1, 3600, policy="d"), terms(2**32, 3600, 2**31, policy="d"), terms(20, 3600, 20, policy="d")],
]
WAITS = [0, 0, 0, 1, 15, 16, 17, 499, 937, 938, 999, 1000, 1001, 1015, 1016, 2031, 2033, 30_000, 60_000, 121_876]

costs = st.one_of(st.integers(1, 5), st.integers(1, 300), st.sampled_from([10**9, 2**32, 2**32 + 7, 10**15 - 1]))


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw which policies one request charges: (policy, which of its numbers, cost)."""
    chosen = draw(st.sets(st.integers(0, len(POLICIES) - 1), min_size=1))
    return [(p, draw(st.integers(0, len(POLICIES[p]) - 1)), draw(costs)) for p in sorted(chosen)]


steps = st.tuples(st.sampled_from(WAITS), requests(), st.sampled_from([False, False, False, True]))


def charges_of(keys: list[str], request: list[tuple[int, int, int]]) -> list[Charge]:
    return [Charge(POLICIES[policy][numbers], keys[policy], cost) for policy, numbers, cost in request]


@settings(max_examples=150)
@given(history=st.lists(steps, min_size=5, max_size=50))
def test_memory_and_redis_answer_alike(
    redis_engine: RedisEngine, history: list[tuple[int, list[tuple[int, int, int]], bool]]
) -> None:
    """Decision, remaining, reset and retry_after are equal at every step, for several limits that change."""
    memory, keys = MemoryEngine(), [fresh_key() for _ in POLICIES]
    memory.clock.now = redis_engine.clock.now
    for wait, request, peek in history:
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=wait)
        charges = charges_of(keys, request)
        assert redis_engine.charge(charges, peek=peek) == memory.charge(charges, peek=peek)


@settings(max_examples=100)
@given(history=st.lists(st.tuples(st.sampled_from(WAITS), st.lists(requests(), min_size=1, max_size=8)), max_size=20))
def test_a_batch_decides_as_one_by_one(
    redis_engine: RedisEngine, history: list[tuple[int, list[list[tuple[int, int, int]]]]]
) -> None:
    """Requests that travel in one call get what they would get one after the other."""
    memory, keys = MemoryEngine(), [fresh_key() for _ in POLICIES]
    memory.clock.now = redis_engine.clock.now
    for wait, batch in history:
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=wait)
        sent = [Request(charges_of(keys, request)) for request in batch]
        assert redis_engine.batch(sent) == [memory.charge(request.charges) for request in sent]


def test_counts_that_grow_wider_forget_what_has_left(redis_engine: RedisEngine) -> None:
    """A limit that outgrows four bytes while entries leave counts each of them once."""
    memory, key = MemoryEngine(), fresh_key()
    memory.clock.now = redis_engine.clock.now
    small, huge = terms(100, 1, policy="g"), terms(2**33, 1, policy="g")
    for wait, numbers in ((0, small), (300, small), (300, small), (500, huge), (20, huge), (200, small), (900, small)):
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=wait)
        assert redis_engine.charge([Charge(numbers, key, 7)]) == memory.charge([Charge(numbers, key, 7)])
