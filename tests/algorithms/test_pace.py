"""Turns: evenly spaced, first come first served, and given back; in both engines alike."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.charge import NEVER, Charge, Terms
from ratelimit.stores import Op, Request
from tests.support.engines import Engine, MemoryEngine, RedisEngine, fresh_key, pace, terms

RATES = [pace(100), pace(300), pace(7), pace(1, 60), pace(999_983), pace(100, 1, 50), pace(100, 1, 0), pace(3, 1, 2000)]
WAITS = [0, 0, 0, 1, 3, 9, 10, 11, 50, 142, 143, 333, 1000, 60_000, 60_001, -1, -40]


class Step(NamedTuple):
    wait: int
    op: Op
    terms: Terms
    earlier: int


steps = st.builds(
    Step,
    st.sampled_from(WAITS),
    st.sampled_from([Op.CHARGE] * 5 + [Op.ADJUST] * 4 + [Op.PEEK, Op.USAGE, Op.RELEASE]),
    st.sampled_from(RATES),
    st.integers(0, 9),
)


def reserve(engine: Engine, one: Terms, key: str) -> tuple[int, int, int]:
    """Return the turn, the wait for it (both µs), and how long (ms) it is too far away."""
    return engine.run(Request([Charge(one, key)])).numbers[0]


def give_back(engine: Engine, one: Terms, key: str, turn: int) -> None:
    engine.run(Request([Charge(one, key, -1)], Op.ADJUST, turn))


@settings(max_examples=200)
@given(history=st.lists(steps, min_size=5, max_size=60))
def test_memory_and_redis_give_the_same_turns(redis_engine: RedisEngine, history: list[Step]) -> None:
    """At every step of any history, for rates that change and turns that are given back in any order."""
    memory, key, turns = MemoryEngine(), fresh_key(), [(RATES[0], 1)]
    memory.clock.now = redis_engine.clock.now
    for step in history:
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=step.wait)
        request = Request([Charge(step.terms, key, -1 if step.op == Op.RELEASE else 1)], step.op)
        if step.op == Op.ADJUST:
            one, turn = turns[-1 - step.earlier % len(turns)]
            request = Request([Charge(one, key, -1)], Op.ADJUST, turn)
        answer = memory.run(request)
        assert (redis_engine.run(request).numbers, request.op) == (answer.numbers, request.op)
        if step.op == Op.CHARGE and answer.numbers[0][2] == 0:
            turns.append((step.terms, answer.numbers[0][0]))


@settings(max_examples=50)
@given(asked=st.lists(st.lists(st.sampled_from(RATES), min_size=1, max_size=20), max_size=5))
def test_a_batch_gives_turns_as_one_by_one(redis_engine: RedisEngine, asked: list[list[Terms]]) -> None:
    """Reservations that travel in one call get what they would get one after the other."""
    memory, key = MemoryEngine(), fresh_key()
    memory.clock.now = redis_engine.clock.now
    for batch in asked:
        sent = [Request([Charge(one, key)]) for one in batch]
        assert redis_engine.batch(sent) == [memory.run(request) for request in sent]
        for engine in (memory, redis_engine):
            engine.clock.advance(ms=25)


@given(
    limit=st.integers(1, 2000),
    period=st.sampled_from([1, 7, 60, 3600]),
    waits=st.lists(st.integers(0, 3) | st.integers(0, 4000), min_size=2, max_size=60),
)
def test_turns_are_evenly_spaced_and_none_is_wasted(limit: int, period: int, waits: list[int]) -> None:
    """Each is at once or one interval after the last, whichever is later; n intervals are exact to the microsecond."""
    engine, one, key = MemoryEngine(), pace(limit, period), fresh_key()
    interval, begun, number = period * 1_000_000 / limit, 0, 0
    for wait in waits:
        engine.clock.advance(ms=wait)
        now = engine.clock()
        turn, away, _ = reserve(engine, one, key)
        if now > begun + int(interval * number):
            begun, number = now, 0
        assert turn == begun + number * period * 1_000_000 // limit
        assert away == turn - now
        number += 1


def test_a_second_holds_its_number_exactly() -> None:
    """300 a second are 3,333 µs apart, and the 301st is a second after the first."""
    engine, key = MemoryEngine(), fresh_key()
    turns = [reserve(engine, pace(300), key)[0] for _ in range(301)]
    assert turns[300] - turns[0] == 1_000_000
    assert {after - before for before, after in pairwise(turns)} == {3333, 3334}


def test_a_turn_too_far_away_is_not_taken(engine: Engine) -> None:
    """Who is not that patient takes nothing, and hears when it would be near enough."""
    key = fresh_key()
    told = [reserve(engine, pace(100, 1, 25), key) for _ in range(5)]
    assert [wait for _, wait, _ in told] == [0, 10_000, 20_000, 30_000, 30_000]
    assert [over for *_, over in told] == [0, 0, 0, 5, 5]
    assert reserve(engine, pace(100), key)[1] == 30_000


@given(order=st.permutations(range(6)), kept=st.integers(0, 5))
def test_what_nobody_waits_behind_is_given_back(order: list[int], kept: int) -> None:
    """In whatever order: the next turn follows the last one that is still held, and nobody is overtaken."""
    for limit in (100, 300):
        engine, one, key = MemoryEngine(), pace(limit), fresh_key()
        turns = [reserve(engine, one, key)[0] for _ in range(6)]
        for number in order:
            if number > kept:
                give_back(engine, one, key, turns[number])
        assert abs(reserve(engine, one, key)[0] - (turns[kept] + 1_000_000 // limit)) <= 1
        give_back(engine, one, key, turns[0])
        assert reserve(engine, one, key)[0] > turns[kept] + 1_000_000 // limit


def test_many_given_back_from_the_front_are_one_run(engine: Engine) -> None:
    """A thousand who wait and are cancelled, oldest first, leave nothing behind."""
    key, one = fresh_key(), pace(100)
    turns = [reserve(engine, one, key)[0] for _ in range(1000)]
    for turn in turns[1:]:
        give_back(engine, one, key, turn)
    assert reserve(engine, one, key)[0] == turns[1]


def test_a_turn_is_given_back_once_it_was_missed(engine: Engine) -> None:
    """One that nobody used does not hold up the next."""
    key, one = fresh_key(), pace(1, 60)
    turn, *_ = reserve(engine, one, key)
    engine.clock.advance(seconds=2)
    give_back(engine, one, key, turn)
    assert reserve(engine, one, key)[1] == 0


def test_looking_takes_no_turn(engine: Engine) -> None:
    """`PEEK` and `USAGE` say how far the next turn is away."""
    key, one = fresh_key(), Charge(pace(100), fresh_key())
    engine.run(Request([one]))
    for _ in range(2):
        assert engine.run(Request([one], Op.PEEK)).numbers[0][1:] == (10_000, 0)
        assert engine.run(Request([one], Op.USAGE)).numbers[0] == (0, 10, 0)
    assert engine.run(Request([Charge(one.terms, key)], Op.PEEK)).numbers[0][1:] == (0, 0)
    assert engine.run(Request([one._replace(cost=-1)], Op.RELEASE)).numbers[0][2] == NEVER


def test_turns_go_beside_limits_in_one_step(engine: Engine) -> None:
    """A request that a limit refuses takes no turn."""
    turn, limit = Charge(pace(100), fresh_key()), Charge(terms(1), fresh_key())
    told = [engine.run(Request([limit, turn])).numbers for _ in range(2)]
    assert [each[0][2] > 0 for each in told] == [False, True]
    assert told[1][1][1] == 10_000
    assert engine.run(Request([turn])).numbers[0][1] == 10_000
