"""The promise: waiting exactly `retry_after` is always enough, and less never is."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.charge import Charge, Terms
from ratelimit.stores import Op, Request
from ratelimit.testing.clock import START
from tests.acceptance.test_theorem import histories
from tests.support.engines import Engine, admitted, fresh_key, terms


@settings(max_examples=150)
@given(case=histories(), asked=st.integers(1, 1500), share=st.sampled_from([None, 0.1, 0.5, 0.9]), data=st.data())
def test_the_wait_is_exact(
    engine: Engine, case: tuple[Terms, list[tuple[int, int]]], asked: int, share: float | None, data: st.DataObject
) -> None:
    """After any history, a cost is refused until 1 ms before `retry_after` and admitted at it.

    Also for who may use but a share, and after charges were settled up and down.
    """
    engine.clock.now = START  # What is drawn depends on what was admitted, and that on where slots begin.
    one, history = case
    mine = terms(one.limit, one.window, one.allowance, share=None if share is None else int(one.limit * share))
    key, made = fresh_key(), list[tuple[int, int]]()
    for wait, cost in history:
        engine.clock.advance(ms=wait)
        if admitted(engine.charge([Charge(one, key, cost)])):
            made.append((cost, engine.clock() // 1000))
        if made and data.draw(st.integers(0, 3)) == 0:
            before, at = made.pop(data.draw(st.integers(0, len(made) - 1)))
            actual = data.draw(st.integers(0, 2 * before))
            engine.run(Request([Charge(one, key, actual - before)], Op.ADJUST, 0, at))
    for cost in (1, min(asked, mine.cap)):
        (told,) = engine.charge([Charge(mine, key, cost)], peek=True)
        if 0 < told.retry_after < math.inf:
            engine.clock.advance(ms=round(told.retry_after * 1000) - 1)
            assert not admitted(engine.charge([Charge(mine, key, cost)], peek=True))
            engine.clock.advance(ms=1)
            assert admitted(engine.charge([Charge(mine, key, cost)], peek=True))


def test_what_can_never_be_admitted_waits_for_ever(engine: Engine) -> None:
    """A cost above the limit and its burst has an infinite wait."""
    (told,) = engine.charge([Charge(terms(10, 60, 5), fresh_key(), 16)])
    assert told.retry_after == math.inf


def test_a_denied_request_does_not_extend_the_wait(engine: Engine) -> None:
    """Knocking a hundred times while refused leaves the moment of the next admission where it was."""
    one, key = terms(1, 10), fresh_key()
    engine.charge([Charge(one, key)])
    (first,) = engine.charge([Charge(one, key)])
    for _ in range(100):
        engine.clock.advance(ms=50)
        engine.charge([Charge(one, key)])
    (last,) = engine.charge([Charge(one, key)])
    assert last.reset_at == first.reset_at


def test_reset_and_retry_after_name_the_same_moment(engine: Engine) -> None:
    """With nothing remaining, `reset_at` is when the next unit is free."""
    one, key = terms(3, 60), fresh_key()
    for _ in range(3):
        engine.charge([Charge(one, key)])
        engine.clock.advance(ms=1000)
    (refused,) = engine.charge([Charge(one, key)])
    assert math.isclose(refused.reset_at, engine.clock() / 1e6 + refused.retry_after)
    assert refused.retry_after == refused.reset_after == 57.001
