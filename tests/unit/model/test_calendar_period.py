"""Calendar periods: they begin and end as the calendar of the standard library says."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.model.calendar_period import NOMINAL, Period, end_of, start_of
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.stores import SyncRedisStore, fresh_key, quota_limit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.datetimes(datetime(1970, 1, 5), datetime(2400, 1, 1))  # noqa: DTZ001 - in UTC, as everything here


def calendar(period: Period, moment: datetime) -> datetime:
    """Return when the period of `moment` began."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    week, month = day - timedelta(days=day.weekday()), day.replace(day=1)
    return {"hour": hour, "day": day, "week": week, "month": month, "year": month.replace(month=1)}[period]


def ms(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


@given(instants, st.sampled_from(list(NOMINAL)))
def test_periods_begin_and_end_as_in_the_calendar(moment: datetime, period: Period) -> None:
    """A period begins where the calendar says, and ends where the next one begins."""
    start = start_of(period, ms(moment))
    assert start == ms(calendar(period, moment))
    end = end_of(period, start)
    assert start_of(period, end) == end
    assert start_of(period, end - 1) == start


@given(instants, st.sampled_from(list(NOMINAL)))
def test_the_script_counts_by_the_same_calendar(sync_redis: SyncRedisStore, moment: datetime, period: Period) -> None:
    """The Lua twin ends every period in the same millisecond as the Python one."""
    before, sync_redis.clock.now = sync_redis.clock.now, ms(moment) * 1000
    reply = sync_redis.run(StoreRequest([Charge(quota_limit(5, period), fresh_key())], Operation.USAGE))
    sync_redis.clock.now = before
    assert reply.readings == [(0, end_of(period, start_of(period, ms(moment))) - ms(moment), 0)]
