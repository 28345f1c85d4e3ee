"""A permit that is held for a block; `tests/behaviour/test_concurrency.py` holds its promises on both stores."""

import pytest

from ratelimit import Decision, LimitExceeded
from ratelimit.enforcement.permits import held_permit


async def test_a_refusal_raises_before_the_block() -> None:
    """The error has the decision, and says when to try again where that helps."""
    refused = Decision(False, 429, 2.5)
    with pytest.raises(LimitExceeded, match=r"no permit of 'jobs' is free; try again in 2\.5 s") as raised:
        async with held_permit(refused, "jobs"):
            pytest.fail("the block is not entered")
    assert raised.value.decision is refused
    with pytest.raises(LimitExceeded, match=r"is free \[RL314\]$"):
        async with held_permit(Decision(False, 429, float("inf")), "jobs"):
            pytest.fail("the block is not entered")


async def test_a_policy_that_does_not_apply_holds_nothing() -> None:
    """The block runs."""
    has_run = False
    async with held_permit(Decision(True), "jobs"):
        has_run = True
    assert has_run
