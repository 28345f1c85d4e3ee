"""Calendar periods: the same as the calendar of the standard library says."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.charge import Charge
from ratelimit.periods import NOMINAL, Period, end_of, start_of
from ratelimit.stores import Op, Request
from tests.support.engines import RedisEngine, fresh_key, quota

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.datetimes(datetime(1970, 1, 5), datetime(2400, 1, 1))  # noqa: DTZ001 - in UTC, as all here


def calendar(period: Period, moment: datetime) -> datetime:
    """Return when the period of `moment` began."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    week, month = day - timedelta(days=day.weekday()), day.replace(day=1)
    return {"hour": hour, "day": day, "week": week, "month": month, "year": month.replace(month=1)}[period]


def ms(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


@given(instants, st.sampled_from(list(NOMINAL)))
def test_periods_are_those_of_the_calendar(moment: datetime, period: Period) -> None:
    """A period begins where the calendar says, and ends where the next one begins."""
    start = start_of(period, ms(moment))
    assert start == ms(calendar(period, moment))
    end = end_of(period, start)
    assert start_of(period, end) == end
    assert start_of(period, end - 1) == start


@given(instants, st.sampled_from(list(NOMINAL)))
def test_the_script_counts_by_the_same_calendar(redis_engine: RedisEngine, moment: datetime, period: Period) -> None:
    """The Lua twin ends every period in the same millisecond."""
    before, redis_engine.clock.now = redis_engine.clock.now, ms(moment) * 1000
    answer = redis_engine.run(Request([Charge(quota(5, period), fresh_key())], Op.USAGE))
    redis_engine.clock.now = before
    assert answer.numbers == [(0, end_of(period, start_of(period, ms(moment))) - ms(moment), 0)]
