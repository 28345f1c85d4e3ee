"""Policies: how often and after how long."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise, repeat
from typing import Any

import pytest
from tenacity import Future, RetryCallState, stop_after_delay, wait_fixed

from ratelimit import ConfigurationError
from ratelimit.client import CONTRACT_A, CONTRACT_B, DEFAULT_RETRY_POLICY, RetryPolicy, wait_retry_after
from ratelimit.client.response_limits import ResponseLimits


def pauses(policy: RetryPolicy, status: int = 429, retry_after: float | None = None) -> list[float]:
    """Return the pauses after one refusal after the other, until the policy has enough."""
    return pauses_after(policy, repeat(ResponseLimits(status, retry_after)))


def pauses_after(policy: RetryPolicy, refusals: Iterable[ResponseLimits]) -> list[float]:
    """Return the pauses of one request after these refusals, until the policy has enough or there are no more."""
    state, made = RetryCallState(None, None, (), {}), list[float]()  # type: ignore[arg-type]
    state.start_time = now = 50.0
    for limits in refusals:
        state.outcome, state.outcome_timestamp = Future(state.attempt_number), now
        state.outcome.set_result(limits)
        pause = policy.delay(state)
        if pause is None:
            break
        made.append(pause)
        now += pause
        state.prepare_for_next_attempt()
    return made


def test_contract_a() -> None:
    """`Retry-After` plus 50 to 500 ms, then 1.5 times the previous pause plus as much, five times."""
    for _ in range(50):
        made = pauses(CONTRACT_A, retry_after=4)
        assert len(made) == 5
        assert 4.05 <= made[0] <= 4.5
        for previous, pause in pairwise(made):
            assert 0.05 <= round(pause - 1.5 * previous, 9) <= 0.5
    assert CONTRACT_A.slow_below == 0.1


def test_contract_a_grows_from_the_previous_pause() -> None:
    """Whoever named that: the server or the policy; a `Retry-After` that is longer is obeyed."""
    for named in ([None] * 5, [4, None, None, 1, None], [1, 1, 30, None, 2], [0, None, 0, None, None]):
        made = pauses_after(CONTRACT_A, [ResponseLimits(429, each) for each in named])
        assert len(made) == 5
        for previous, pause, retry_after in zip([0.0, *made], made, named, strict=False):
            expected = max(1.5 * previous, retry_after or 0) if previous or retry_after is not None else 1
            assert 0.05 <= round(pause - expected, 9) <= 0.5


def test_contract_a_grows_from_the_reset_that_held_the_request_back() -> None:
    """A reset names a pause as `Retry-After` does, unless it lies beyond the bound: no request waits for that one."""
    none_left = ResponseLimits(429, None, 10, 0, 7.0)
    for reset, previous in ((7.0, 7.0), (121.0, 1.0)):
        made = pauses_after(CONTRACT_A, [replace(none_left, reset=reset), ResponseLimits(429)])
        assert 1.05 <= made[0] <= 1.5
        assert 1.5 * previous + 0.05 <= made[1] <= 1.5 * (previous + 0.5) + 0.5
    # With units left, the refusal has another reason, which does not end with the reset.
    made = pauses_after(CONTRACT_A, [replace(none_left, remaining=3), ResponseLimits(429)])
    assert made[1] < 1.5 * 1.5 + 0.5


def test_contract_a_grows_up_to_the_bound() -> None:
    """From 100 s to 120 s, the bound, and not beyond."""
    made = pauses_after(CONTRACT_A, [ResponseLimits(429, 100), *[ResponseLimits(429)] * 4])
    assert made[1:] == [120] * 4


def test_contract_b() -> None:
    """Twice; 1 s doubling to 60 s where the header is missing; 0 sends nothing again."""
    assert pauses(CONTRACT_B) == [1, 2]
    assert pauses(CONTRACT_B, retry_after=7) == [7, 7]
    assert pauses(replace(CONTRACT_B, retries=0)) == []
    assert pauses(replace(CONTRACT_B, retries=9)) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_general_rule() -> None:
    """Doubling, with jitter, bounded; never shorter than `Retry-After`."""
    for _ in range(50):
        made = pauses(DEFAULT_RETRY_POLICY)
        assert [2**number <= pause <= 2**number + 1.25 for number, pause in enumerate(made)] == [True] * 5
        assert all(3 <= pause <= 3.25 for pause in pauses(DEFAULT_RETRY_POLICY, retry_after=3))


def test_no_wait_is_longer_than_the_bound() -> None:
    """What the policy makes longer is cut; what the server wants longer goes to the caller."""
    policy = replace(CONTRACT_A, max_wait=10)
    assert max(pauses(policy, retry_after=9)) == 10
    assert pauses(policy, retry_after=10) == [10] * 5
    assert pauses(policy, retry_after=10.01) == []
    assert pauses(DEFAULT_RETRY_POLICY, retry_after=float("inf")) == []


def test_waits_and_stops_are_tenacitys() -> None:
    """Whatever tenacity has may be said."""
    assert pauses(RetryPolicy(wait=wait_fixed(3), stop=stop_after_delay(7))) == [3, 3, 3]
    assert pauses(RetryPolicy(wait=wait_retry_after(wait_fixed(5), factor=2), retries=3), retry_after=1) == [1, 2, 4]


def test_a_misreported_status_is_bounded_in_time() -> None:
    """401 counts as a refusal only where the policy names it, and only for `retry_on_for` seconds."""
    policy = RetryPolicy(wait=wait_fixed(4), retry_on=[401], retry_on_for=10)
    assert (policy.retries_status(401), DEFAULT_RETRY_POLICY.retries_status(401)) == (True, False)
    assert pauses(policy, 401) == [4, 4]
    assert pauses(policy, 429) == [4] * 5


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RetryPolicy(retries=-1), "retries"),
        (lambda: RetryPolicy(retries=True), "retries"),
        (lambda: RetryPolicy(retries=1.5), "retries"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(retry_on=[403]), "retry_on: must not contain 403"),
        (lambda: RetryPolicy(retry_on=[200]), "retry_on"),
        (lambda: RetryPolicy(retry_on=401), "retry_on"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(retry_on=["401"]), "retry_on"),  # type: ignore[list-item]
        (lambda: RetryPolicy(retry_on_for=-1), "retry_on_for"),
        (lambda: RetryPolicy(max_wait=float("nan")), "max_wait"),
        (lambda: RetryPolicy(slow_below=10), "slow_below"),
        (lambda: RetryPolicy(slow_below="x"), "slow_below"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(wait=5), "wait"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(stop=stop_after_delay), "stop"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(stop=5), "stop"),  # type: ignore[arg-type]
        (lambda: wait_retry_after(factor=0.5), "factor: must be a number, 1 or more, got 0.5"),
        (lambda: wait_retry_after(factor=float("nan")), "factor"),
        (lambda: wait_retry_after(factor="2"), "factor"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_fail_at_once(make: Callable[[], Any], named: str) -> None:
    """With the name of the field."""
    with pytest.raises(ConfigurationError, match=named):
        make()
