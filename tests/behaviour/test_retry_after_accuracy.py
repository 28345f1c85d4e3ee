"""The promise: waiting exactly `retry_after` is always enough, and a shorter wait never is."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Limit, Limiter, RateLimitMiddleware, RateLimitSettings
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing.clock import START, ManualClock
from tests.behaviour.test_window_bound import histories
from tests.support.stores import SyncStore, admitted, fresh_key, window_limit


@settings(max_examples=150)
@given(case=histories(), asked=st.integers(1, 1500), share=st.sampled_from([None, 0.1, 0.5, 0.9]), data=st.data())
def test_the_wait_is_exact(
    sync_store: SyncStore,
    case: tuple[EffectiveRate, list[tuple[int, int]]],
    asked: int,
    share: float | None,
    data: st.DataObject,
) -> None:
    """After any sequence of charges, a cost is refused until 1 ms before `retry_after`, and admitted at that instant.

    So it is for a caller that has only a share, and after charges were settled upwards and downwards.
    """
    sync_store.clock.now = START  # The draws depend on what was admitted, and that on where buckets begin.
    one, history = case
    mine = window_limit(one.limit, one.window, one.burst, share=None if share is None else int(one.limit * share))
    key, made = fresh_key(), list[tuple[int, int]]()
    for wait, cost in history:
        sync_store.clock.advance(ms=wait)
        if admitted(sync_store.charge([Charge(one, key, cost)])):
            made.append((cost, sync_store.clock() // 1000))
        if made and data.draw(st.integers(0, 3)) == 0:
            before, at = made.pop(data.draw(st.integers(0, len(made) - 1)))
            actual = data.draw(st.integers(0, 2 * before))
            sync_store.run(StoreRequest([Charge(one, key, actual - before)], Operation.ADJUST, 0, at))
    for cost in (1, min(asked, mine.caller_capacity)):
        (refused,) = sync_store.charge([Charge(mine, key, cost)], peek=True)
        if 0 < refused.retry_after < math.inf:
            sync_store.clock.advance(ms=round(refused.retry_after * 1000) - 1)
            assert not admitted(sync_store.charge([Charge(mine, key, cost)], peek=True))
            sync_store.clock.advance(ms=1)
            assert admitted(sync_store.charge([Charge(mine, key, cost)], peek=True))


@settings(max_examples=150)
@given(case=histories())
def test_more_remains_when_it_is_said(sync_store: SyncStore, case: tuple[EffectiveRate, list[tuple[int, int]]]) -> None:
    """Where something remains after a charge, more does after `more_after` seconds, and not 1 ms before."""
    sync_store.clock.now = START
    one, history = case
    key, last = fresh_key(), None
    for wait, cost in history:
        sync_store.clock.advance(ms=wait)
        (charged,) = sync_store.charge([Charge(one, key, cost)])
        last = charged if admitted([charged]) else last
        if last is charged and charged.remaining and charged.more_after:
            more_after = round(charged.more_after * 1000)
            assert more_after <= round(charged.reset_after * 1000)
            remaining = []
            for step in (more_after - 1, 1):
                sync_store.clock.advance(ms=step)
                (seen,) = sync_store.charge([Charge(one, key)], peek=True)
                remaining.append(seen.remaining)
            assert remaining[0] == charged.remaining < remaining[1]
            sync_store.clock.advance(ms=-more_after)


def test_a_cost_that_never_fits_has_an_infinite_wait(sync_store: SyncStore) -> None:
    """A cost above the limit and its burst has an infinite wait."""
    (refused,) = sync_store.charge([Charge(window_limit(10, 60, 5), fresh_key(), 16)])
    assert refused.retry_after == math.inf


def test_a_refused_request_does_not_extend_the_wait(sync_store: SyncStore) -> None:
    """After a hundred refused requests the next one is admitted at the same instant as without them."""
    one, key = window_limit(1, 10), fresh_key()
    sync_store.charge([Charge(one, key)])
    (first,) = sync_store.charge([Charge(one, key)])
    for _ in range(100):
        sync_store.clock.advance(ms=50)
        sync_store.charge([Charge(one, key)])
    (last,) = sync_store.charge([Charge(one, key)])
    assert last.reset_at == first.reset_at


def test_reset_and_retry_after_name_the_same_instant(sync_store: SyncStore) -> None:
    """If nothing remains, `reset_at` is when the next unit is free."""
    one, key = window_limit(3, 60), fresh_key()
    for _ in range(3):
        sync_store.charge([Charge(one, key)])
        sync_store.clock.advance(ms=1000)
    (refused,) = sync_store.charge([Charge(one, key)])
    assert math.isclose(refused.reset_at, sync_store.clock() / 1e6 + refused.retry_after)
    assert refused.retry_after == refused.reset_after == 57.001


@given(phase=st.integers(0, 999_999), spent=st.integers(0, 59_999))
def test_who_waits_until_the_reset_is_served(phase: int, spent: int) -> None:
    """At any phase of the second; a second before the reset, it may be too early."""
    clock = ManualClock()
    clock.advance(ms=phase // 1000)
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))])
    settings = RateLimitSettings(limits=[Limit(name="a", rate="2/minute", per="ip")])
    app.add_middleware(RateLimitMiddleware, limiter=Limiter(settings, clock=clock))
    client = TestClient(app)
    client.get("/")
    clock.advance(ms=spent)
    client.get("/")
    refused = client.get("/")
    assert refused.status_code == 429
    clock.now = int(refused.headers["x-ratelimit-reset"]) * 1_000_000
    assert client.get("/").status_code == 200
