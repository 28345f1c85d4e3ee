"""Quotas: periods that turn over, levels that do not, and corrections in the period of their charge."""

from ratelimit.algorithms.quota import NO_EXPIRY, QuotaState, QuotaView
from ratelimit.model.calendar_period import DAY, HOUR, start_of
from ratelimit.model.kinds import NEVER
from ratelimit.testing.factories import quota_limit

NOON = start_of("day", 1_700_000_000_000) + 12 * HOUR


def test_a_quota_is_new_with_each_period() -> None:
    """The last period stays known for one period more; the first charge in a period begins it."""
    state, limit = QuotaState(), quota_limit(10, "day")
    QuotaView(state, limit, NOON).charge(7)
    assert QuotaView(state, limit, NOON).usage() == (7, 12 * HOUR, 0)
    assert QuotaView(state, limit, NOON + DAY).usage() == (0, 12 * HOUR, 7)
    assert QuotaView(state, limit, NOON + 2 * DAY).usage() == (0, 12 * HOUR, 0)
    QuotaView(state, limit, NOON + DAY).charge(1)
    assert QuotaView(state, limit, NOON + DAY).usage() == (1, 12 * HOUR, 7)


def test_a_clock_that_steps_back_does_not_reopen_a_past_period() -> None:
    """What was charged in the new period counts on, and the past one gives no second budget."""
    state, limit = QuotaState(), quota_limit(10, "hour")
    QuotaView(state, limit, NOON).charge(7)
    assert QuotaView(state, limit, NOON - 1).available == 3


def test_a_refusal_waits_for_the_end_of_the_period() -> None:
    """A cost above the quota, and anything above a level, waits for ever."""
    state, limit = QuotaState(), quota_limit(10, "day")
    QuotaView(state, limit, NOON).charge(9)
    assert QuotaView(state, limit, NOON).status(2) == (1, 12 * HOUR, 12 * HOUR)
    assert QuotaView(state, limit, NOON).status(11) == (1, 12 * HOUR, NEVER)
    assert QuotaView(QuotaState(used=10), quota_limit(10, None), NOON).status(1) == (0, 0, NEVER)


def test_a_correction_counts_in_the_period_of_its_charge() -> None:
    """In this period, in the one before it, and from longer ago only where it adds units."""
    state, limit = QuotaState(), quota_limit(10, "day")
    QuotaView(state, limit, NOON).charge(7)
    tomorrow = NOON + DAY
    QuotaView(state, limit, tomorrow).charge(1)
    QuotaView(state, limit, tomorrow).adjust(-2, NOON)
    assert QuotaView(state, limit, tomorrow).usage() == (1, 12 * HOUR, 5)
    QuotaView(state, limit, tomorrow).adjust(3, tomorrow)
    assert QuotaView(state, limit, tomorrow).usage() == (4, 12 * HOUR, 5)
    QuotaView(state, limit, tomorrow).adjust(-3, NOON - DAY)
    QuotaView(state, limit, tomorrow).adjust(2, NOON - DAY)
    assert QuotaView(state, limit, tomorrow).usage() == (6, 12 * HOUR, 5)


def test_a_correction_never_goes_below_zero() -> None:
    """More than was used takes off what was used."""
    state, limit = QuotaState(), quota_limit(10, "day")
    QuotaView(state, limit, NOON).charge(2)
    QuotaView(state, limit, NOON).adjust(-5, NOON)
    assert QuotaView(state, limit, NOON).usage()[0] == 0
    assert QuotaView(state, limit, NOON).empty


def test_a_level_never_turns_over_and_is_empty_at_zero() -> None:
    """Only `release` brings it down, and at zero its state means the same as none."""
    state, limit = QuotaState(), quota_limit(10, None)
    QuotaView(state, limit, NOON).charge(4)
    view = QuotaView(state, limit, NOON + 1000 * DAY)
    assert (view.available, view.releasable, view.empty) == (6, 4, False)
    assert state.expires(limit) == NO_EXPIRY
    view.release(4)
    assert (view.available, view.empty) == (10, True)
