"""Without the store each policy decides by its failure mode, and what was decided is reported and corrected."""

from dataclasses import replace

import pytest

from ratelimit.enforcement.failure_modes import FailureModes, decision_of
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit


@pytest.fixture
def sent() -> list[StoreRequest]:
    """Corrections that went to the store."""
    return []


@pytest.fixture
def fallback(clock: ManualClock) -> LocalFallback:
    return LocalFallback(clock, lambda: 1)


@pytest.fixture
def modes(fallback: LocalFallback, sent: list[StoreRequest]) -> FailureModes:
    def write(request: StoreRequest) -> object:
        sent.append(request)
        return COMPLETED

    return FailureModes(fallback, CorrectionTarget(write, {"requests"}, lambda: False))  # type: ignore[arg-type]


def under(mode: str, charge: Charge) -> Charge:
    return charge._replace(limit=replace(charge.limit, on_store_failure=mode))


def limit(mode: str, number: int = 2, *, shadow: bool = False) -> Charge:
    return under(mode, Charge(window_limit(number, shadow=shadow), mode))


def test_one_policy_that_denies_makes_the_answer_unavailable(modes: FailureModes, fallback: LocalFallback) -> None:
    """503, and nothing is counted; a shadow that would deny refuses nothing."""
    decision = modes.decide(StoreRequest([limit("deny"), limit("local")]))
    assert (decision.allowed, decision.degraded, fallback.has_unreported) == (False, True, False)
    assert modes.decide(StoreRequest([limit("deny", shadow=True), limit("local")])).allowed


def test_a_policy_that_decides_locally_refuses_beyond_its_share(modes: FailureModes) -> None:
    """And one that allows refuses nothing."""
    decisions = [modes.decide(StoreRequest([limit("local"), limit("allow", 1)])) for _ in range(3)]
    assert [(each.allowed, each.degraded) for each in decisions] == [(True, True), (True, True), (False, True)]
    assert all(modes.decide(StoreRequest([limit("allow", 1)])).allowed for _ in range(3))


def test_a_quota_that_is_not_enforced_is_still_reported(modes: FailureModes, fallback: LocalFallback) -> None:
    """It is used, whether or not it is enforced meanwhile."""
    modes.decide(StoreRequest([under("allow", Charge(quota_limit(1, "day"), "q", 3))]))
    ((charge,),) = [request.charges for request in fallback.drain()]
    assert charge.cost == 3


async def test_a_correction_follows_what_was_decided(
    modes: FailureModes, fallback: LocalFallback, sent: list[StoreRequest]
) -> None:
    """To the local fallback, or to the store once it was reported there; permits are forgotten."""
    held = under("local", Charge(concurrency_limit(2), "c"))
    before = modes.decide(StoreRequest([limit("local", 5), held], Operation.ACQUIRE, 7))
    await before.settlements[0].void()
    assert sent == []
    after = modes.decide(StoreRequest([limit("local", 5), held], Operation.ACQUIRE, 8))
    fallback.drain()
    await after.settlements[0].void()
    assert [[charge.cost for charge in request.charges] for request in sent] == [[-1]]


def test_a_peek_has_nothing_to_settle(clock: ManualClock) -> None:
    """Nothing was charged."""
    target = CorrectionTarget(lambda _: COMPLETED, set(), lambda: False)
    reply = StoreReply([(1, 1000, -1)], clock(), 0)
    assert not decision_of(StoreRequest([limit("local")], Operation.PEEK), reply, target).settlements
    assert decision_of(StoreRequest([limit("local")]), reply, target).settlements
