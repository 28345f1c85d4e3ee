"""Decisions: a fold over service limits."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import ConfigurationError, Decision, ServiceLimit
from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget, Settlement
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveConcurrency, EffectiveLimit, EffectiveQuota, EffectiveRate
from ratelimit.model.kinds import NEVER
from ratelimit.model.service_limit import Reading, service_limits
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.testing.factories import quota_limit

NOW = 10**15


def limit_of(policy: str, remaining: int = 5, retry_after: float = 0.0, **more: Any) -> ServiceLimit:
    fields = {"kind": "limit", "scope": "token", "limit": 10, "window": 60, "reset_at": 0.0, **more}
    return ServiceLimit(policy=policy, remaining=remaining, retry_after=retry_after, **fields)


def test_an_admitted_request_binds_the_limit_with_the_fewest_requests_left() -> None:
    """`remaining // cost` decides, and a tie goes to the one declared first; shadows and quotas do not count."""
    first, second = limit_of("first", 6), limit_of("second", 6)
    expensive, shadow, quota = (
        limit_of("expensive", 9, cost=2),
        limit_of("shadow", 0, shadow=True),
        limit_of("q", 0, kind="quota", status=403),
    )
    assert Decision.from_limits([first, second, shadow, quota]).binding is first
    assert Decision.from_limits([first, expensive]).binding is expensive
    assert Decision.from_limits([quota]).binding is None


def test_a_tie_goes_to_the_exhausted_limit() -> None:
    """With nothing remaining at two, the one without burst left names when the next request is served."""
    bursting, exhausted = limit_of("bursting", 0), limit_of("exhausted", 0, exhausted=True)
    assert Decision.from_limits([bursting, exhausted]).binding is exhausted
    assert Decision.from_limits([exhausted, bursting]).binding is exhausted


def test_a_refused_request_binds_the_longest_wait() -> None:
    """Of the violated limits; shadows never refuse."""
    short, long = limit_of("short", 0, 1.5), limit_of("long", 0, 9.25)
    shadow = limit_of("shadow", 0, 60, shadow=True)
    decision = Decision.from_limits([limit_of("free"), short, long, shadow])
    assert (decision.allowed, decision.status, decision.retry_after) == (False, 429, 9.25)
    assert (decision.violated, decision.binding) == ((short, long), long)
    assert Decision.from_limits([shadow]).allowed


KINDS: dict[str, type[EffectiveLimit]] = {
    "limit": EffectiveRate,
    "quota": EffectiveQuota,
    "concurrency": EffectiveConcurrency,
}
read = st.tuples(
    st.sampled_from([("limit", 429), ("quota", 403), ("quota", 429), ("concurrency", 429)]),
    st.sampled_from(["token", "org", "global"]),
    st.booleans(),
    st.integers(1, 3),
    st.tuples(st.integers(0, 9), st.integers(0, 9000), st.sampled_from([-5000, -1, 0, 0, 0, 1, 5000, NEVER])),
)


@given(drawn=st.lists(read, max_size=5))
def test_readings_are_folded_as_their_service_limits_are(drawn: list[Any]) -> None:
    """Whether the limits are rendered at once or when they are read: the same decision, with the same binding limit."""
    charges: list[Charge] = []
    readings: list[Reading] = []
    for n, ((kind, status), scope, shadow, cost, reading) in enumerate(drawn):
        limit = KINDS[kind](policy=f"p{n}", scope=scope, limit=9, window=60, shadow=shadow, status=status)
        charges.append(Charge(limit, "k", cost))
        readings.append(reading)
    decision = Decision.from_readings(charges, readings, NOW)
    folded = Decision.from_limits(service_limits(charges, readings, NOW))
    assert decision.binding == folded.binding
    assert decision == folded
    assert hash(decision) == hash(folded)
    assert repr(decision) == repr(folded)
    assert list(decision.refused_in_shadow) == [limit for limit in folded.limits if limit.shadow and limit.retry_after]


def test_the_binding_limit_gives_the_status_and_an_infinite_wait_stays_infinite() -> None:
    """A quota that refuses is a 403."""
    assert Decision.from_limits([limit_of("q", 0, 5, kind="quota", status=403)]).status == 403
    assert Decision.from_limits([limit_of("c", 0, math.inf), limit_of("d", 0, 3)]).retry_after == math.inf


def test_a_decision_without_limits_allows() -> None:
    """No policy applies, and no limit is reported."""
    assert Decision.from_limits([]) == Decision(allowed=True)


def test_the_capacity_of_the_service_binds_only_where_it_is_alone() -> None:
    """Its numbers are not reported to a caller that has limits of its own; it refuses all the same."""
    own, capacity = limit_of("own", 500), limit_of("capacity", 3, scope="global")
    assert Decision.from_limits([own, capacity]).binding is own
    assert Decision.from_limits([capacity]).binding is capacity
    assert Decision.from_limits([own, limit_of("capacity", 0, 5, scope="global")]).status == 429


def test_an_unavailable_store_is_a_503() -> None:
    """It names a wait and no limits."""
    decision = Decision.unavailable()
    assert (decision.allowed, decision.status, decision.retry_after, decision.degraded) == (False, 503, 1.0, True)
    assert (decision.limits, decision.binding) == ((), None)


async def test_a_wrong_amount_or_name_records_and_settles_nothing() -> None:
    """Neither of the names that are right; the message lists what there is."""
    written: list[StoreRequest] = []

    def write(request: StoreRequest) -> Any:
        written.append(request)
        return COMPLETED

    charge = Charge(quota_limit(9, "day"), "k", 2)
    target = CorrectionTarget(write, {"q", "requests"}, lambda: False)
    settlement = Settlement(target, StoreRequest([charge]), StoreReply([(7, 1000, 0)], NOW, 1))
    decision = Decision(True, settlements=(settlement,))
    wrong: list[dict[str, Any]] = [{"q": 5, "x": 1}, {"q": -1}, {"q": 1.5}, {"q": True}, {"q": 10**15}]
    for costs in wrong:
        with pytest.raises(
            ConfigurationError, match=r"^(q: must be an integer between 0 and|x: is not a policy or unit)"
        ):
            decision.spend(costs)
        with pytest.raises(ConfigurationError, match=r"^(q: must be|x: is not a policy or unit .* are q, requests)"):
            await decision.settle(costs)
    assert (written, settlement.has_unsettled) == ([], False)
    decision.spend({"q": 3})
    await decision.settle({"q": 5})
    assert [[change.cost for change in request.charges] for request in written] == [[3]]
