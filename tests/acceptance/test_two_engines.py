"""The promise: memory and Redis give the same answer at every step of the same history, of all kinds mixed."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.charge import Charge, Terms
from ratelimit.stores import Answer, Op, Request
from ratelimit.testing import ManualClock
from tests.support.engines import MemoryEngine, RedisEngine, fresh_key, quota, slots, terms

# The same keys under several numbers: plans, grants, shares and reloads change L, C and with them the slots.
POLICIES: list[list[Terms]] = [
    [terms(3, 1, policy="a"), terms(10, 1, 5, policy="a"), terms(200, 1, 50, policy="a", share=100)],
    [terms(60, 60, 15, policy="b"), terms(64, 60, policy="b"), terms(65, 60, 32, policy="b", share=13)],
    [terms(50, 1, 15, policy="w"), terms(2**32, 1, 2**31, policy="w"), terms(300, 1, policy="w")],
    [terms(5, 60, shadow=True, policy="c"), terms(10**9, 60, 10**8, policy="c", shadow=True)],
    [terms(10**15 - 1, 3600, policy="d"), terms(2**32, 3600, 2**31, policy="d"), terms(20, 3600, 20, policy="d")],
    [quota(5, "hour"), quota(300, "hour", share=150), quota(0, "hour")],
    [quota(10**15 - 1, "month"), quota(300, "month", shadow=True)],
    [quota(400, "week"), quota(10, "week", share=5)],
    [quota(50, "day"), quota(500, "day")],
    [quota(300, "year", share=299)],
    [quota(20, None), quota(300, None, share=200)],
    [slots(2, 500), slots(3, 2000, share=1), slots(1, 90_000)],
    [slots(1, 1000, shadow=True), slots(5, 700), slots(1, 1000, share=0)],
]
WAITS = [0, 0, 0, 1, 15, 16, 17, 499, 937, 938, 999, 1000, 1001, 1015, 1016, 2031, 2033, 30_000, 60_000, 121_876]
LONG_WAITS = [*WAITS, *WAITS, 3_600_000, 86_400_000, 40 * 86_400_000, -1, -700]
OPS = [Op.CHARGE] * 6 + [Op.PEEK, Op.USAGE] + [Op.ADJUST] * 3 + [Op.RELEASE, Op.RELEASE, Op.RENEW]

costs = st.one_of(
    st.integers(0, 5), st.integers(1, 5), st.integers(1, 300), st.sampled_from([10**9, 2**32, 2**32 + 7, 10**15 - 1])
)


class Step(NamedTuple):
    """One request of a history: what to do, and to which earlier one where it corrects something."""

    wait: int
    op: Op
    chosen: list[tuple[int, int, int]]
    earlier: int
    ago: int | None = None


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw which policies one request charges: (policy, which of its numbers, cost)."""
    chosen = draw(st.sets(st.integers(0, len(POLICIES) - 1), min_size=1, max_size=6))
    return [(p, draw(st.integers(0, len(POLICIES[p]) - 1)), draw(costs)) for p in sorted(chosen)]


steps = st.builds(
    Step,
    st.sampled_from(LONG_WAITS),
    st.sampled_from(OPS),
    requests(),
    st.integers(0, 3),
    st.sampled_from([None, None, *sorted({abs(wait) for wait in LONG_WAITS})]),
)


class History:
    """Turns steps into requests, some of which correct what an earlier one has charged."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.keys = [fresh_key() for _ in POLICIES]
        self.made: list[tuple[Request, int]] = []
        self.holders = 0

    def request(self, step: Step) -> Request:
        charges = [self._charge(*one) for one in step.chosen]
        if step.op == Op.RELEASE:
            plain = [one for one in charges if one.terms.kind != "concurrency"] or [self._charge(5, 0, 1)]
            return Request([one._replace(cost=-one.cost) for one in plain], Op.RELEASE)
        if step.op == Op.ADJUST and step.ago is not None:
            plain = [one for one in charges if one.terms.kind != "concurrency"]
            return Request(plain, Op.ADJUST, 0, max(1, self.clock() // 1000 - step.ago))
        if step.op in (Op.ADJUST, Op.RENEW) and self.made:
            earlier, at = self.made[-1 - step.earlier % len(self.made)]
            return self._correction(step, earlier, at)
        op = step.op if step.op in (Op.PEEK, Op.USAGE) else Op.CHARGE
        if op == Op.CHARGE and any(one.terms.kind == "concurrency" for one in charges):
            self.holders += 1
            return Request(charges, Op.HOLD, self.holders)
        return Request(charges, op)

    def note(self, request: Request, answer: Answer) -> None:
        if request.op in (Op.CHARGE, Op.HOLD):
            self.made.append((request, answer.at))

    def _charge(self, policy: int, numbers: int, cost: int) -> Charge:
        one = POLICIES[policy][numbers]
        return Charge(one, self.keys[policy], 1 if one.kind == "concurrency" else cost)

    def _correction(self, step: Step, earlier: Request, at: int) -> Request:
        held = [one for one in earlier.charges if one.terms.kind == "concurrency"]
        if step.op == Op.RENEW and held:
            return Request(held, Op.RENEW, earlier.holder)
        spent = step.chosen[0][2]
        changed = [one._replace(cost=spent - one.cost) for one in earlier.charges if one not in held]
        return Request([*(one._replace(cost=-1) for one in held), *changed], Op.ADJUST, earlier.holder, at)


@settings(max_examples=300)
@given(history=st.lists(steps, min_size=5, max_size=50))
def test_memory_and_redis_answer_alike(redis_engine: RedisEngine, history: list[Step]) -> None:
    """Decision, remaining, reset, wait and usage are equal at every step, for policies that change."""
    memory = MemoryEngine()
    told = History(memory.clock)
    memory.clock.now = redis_engine.clock.now
    for step in history:
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=step.wait)
        request = told.request(step)
        answer = memory.run(request)
        assert redis_engine.run(request) == answer, request
        told.note(request, answer)


@settings(max_examples=100)
@given(history=st.lists(st.tuples(st.sampled_from(WAITS), st.lists(steps, min_size=1, max_size=8)), max_size=20))
def test_a_batch_decides_as_one_by_one(redis_engine: RedisEngine, history: list[tuple[int, list[Step]]]) -> None:
    """Requests that travel in one call get what they would get one after the other."""
    memory = MemoryEngine()
    told = History(memory.clock)
    memory.clock.now = redis_engine.clock.now
    for wait, batch in history:
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=wait)
        sent = [told.request(step) for step in batch]
        answers = [memory.run(request) for request in sent]
        assert redis_engine.batch(sent) == answers
        for request, answer in zip(sent, answers, strict=True):
            told.note(request, answer)


def test_counts_that_grow_wider_forget_what_has_left(redis_engine: RedisEngine) -> None:
    """A limit that outgrows four bytes while entries leave counts each of them once."""
    memory, key = MemoryEngine(), fresh_key()
    memory.clock.now = redis_engine.clock.now
    small, huge = terms(100, 1, policy="g"), terms(2**33, 1, policy="g")
    for wait, numbers in ((0, small), (300, small), (300, small), (500, huge), (20, huge), (200, small), (900, small)):
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=wait)
        assert redis_engine.charge([Charge(numbers, key, 7)]) == memory.charge([Charge(numbers, key, 7)])
