"""Schedules: hours of the week in which another rate or limit holds, by the wall clock of a time zone."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratelimit import Concurrency, Hours, Identity, Limit, Limiter, MemoryStore, Quota, RateLimitSettings
from ratelimit.config.schedule import DAYS
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

NIGHT = Hours(start="22:00", end="06:00", rate="1/second")
BERLIN = "Europe/Berlin"


def at(*date: int, tz: str = "UTC", fold: int = 0) -> int:
    return round(datetime(*date, tzinfo=ZoneInfo(tz), fold=fold).timestamp()) * 1_000_000  # type: ignore[arg-type, misc]


def test_across_midnight() -> None:
    """A span across midnight holds from its start until before its end on the next day."""
    moments = [(21, 59), (22, 0), (23, 59), (0, 0), (5, 59), (6, 0), (12, 0)]
    assert [NIGHT.contains(at(2026, 11, 20, *moment)) for moment in moments] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_days_are_those_on_which_a_span_begins() -> None:
    """Friday's night goes on into Saturday morning; Friday morning belongs to Thursday's night."""
    night = NIGHT.model_copy(update={"days": "fri"})
    friday = (2026, 11, 20)
    assert [night.contains(at(*friday, hour)) for hour in (1, 12, 22)] == [False, False, True]
    assert [night.contains(at(2026, 11, 21, hour)) for hour in (5, 6, 22)] == [True, False, False]


def test_whole_days() -> None:
    """`00:00` to `24:00` is all of a day, and no minute of the next."""
    weekend = Hours(start="00:00", end="24:00", days=["sat", "sun"], rate="1/second")
    assert [
        weekend.contains(at(2026, 11, 20, 23, 59)),
        weekend.contains(at(2026, 11, 21)),
        weekend.contains(at(2026, 11, 22, 23, 59)),
    ] == [False, True, True]
    assert not weekend.contains(at(2026, 11, 23))


def test_hours_while_clocks_are_set_forward_and_back() -> None:
    """An hour that the wall clock shows twice is in the span twice, and a skipped one never."""
    early = Hours(start="02:30", end="03:15", tz=BERLIN, rate="1/second")
    # In March, 02:00 becomes 03:00: what is left of the span are 15 minutes.
    spring = [minute for minute in range(240) if early.contains(at(2026, 3, 28, 23) + minute * 60_000_000)]
    assert spring == list(range(120, 135))
    # In October, 02:00 to 03:00 is shown twice.
    autumn = [minute for minute in range(300) if early.contains(at(2026, 10, 24, 22) + minute * 60_000_000)]
    assert autumn == [*range(150, 180), *range(210, 255)]


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - in UTC
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"]),
    st.sets(st.sampled_from(DAYS), min_size=1),
)
def test_hours_hold_as_a_person_would_read_a_clock(
    moment: datetime, start: int, end: int, tz: str, days: set[Any]
) -> None:
    """A moment is in the span if, going back on that wall clock, a start comes before an end."""
    if start == end:
        return
    text = [f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)]
    hours = Hours(start=text[0], end=text[1], tz=tz, days=sorted(days), rate="1/second")
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(tz))
    minute, today = local.hour * 60 + local.minute, DAYS[local.weekday()] in days
    yesterday = DAYS[(local.date() - timedelta(days=1)).weekday()] in days
    length = (end - start) % 1440
    expected = ((minute - start) % 1440 < length) and (today if minute >= start else yesterday)
    assert hours.contains(round(local.timestamp() * 1_000_000)) is expected


async def test_off_peak_rates(store: Store, clock: ManualClock) -> None:
    """At night another rate or limit holds; of overlapping hours the first ones in the list."""
    nights = [Hours(start="22:00", end="06:00", limit=9), Hours(start="05:00", end="07:00", limit=7)]
    settings = RateLimitSettings(
        limits=[
            Limit(name="rate", rate="2/minute", per="org", schedule=[NIGHT.model_copy(update={"rate": "30/minute"})])
        ],
        quotas=[Quota(name="q", limit=3, period="day", per="org", schedule=nights)],
        concurrency=[Concurrency(name="c", limit=1, per="org", schedule=nights)],
    )
    limiter = Limiter(settings, store, clock)

    async def limits(hour: int) -> list[int]:
        clock.now = at(2026, 11, 20, hour, 30)
        return [limit.limit for limit in (await limiter.peek(Identity(org="o"))).limits]

    assert [await limits(hour) for hour in (12, 23, 5, 6, 8)] == [
        [2, 3, 1],
        [30, 9, 9],
        [30, 9, 9],
        [2, 7, 7],
        [2, 3, 1],
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": "7:00"}, "'7:00' is not a time of day"),
        ({"end": "25:00"}, "'25:00' is not a time of day"),
        ({"start": "24:00"}, "start: '24:00' can only be an end; the day begins at '00:00'"),
        ({"start": "06:00"}, "start and end are both '06:00': for whole days write '00:00' to '24:00'"),
        ({"tz": "Europe/Atlantis"}, "'Europe/Atlantis' is not a time zone that this machine knows"),
        ({"tz": "../etc/passwd"}, "is not a time zone"),
        ({"days": []}, "is empty: leave days out to mean every day"),
        ({"days": ["mon", "mon"]}, "'mon' is listed twice"),
        ({"days": ["monday"]}, "days.0"),
        ({"rate": None}, "needs a rate .for limits. or a limit"),
        ({"limit": 5}, "and not both"),
        ({"rate": "5"}, "'5' is not a rate"),
        ({"hours": 5}, "hours\n"),
    ],
)
def test_wrong_hours_fail_at_construction(wrong: dict[str, Any], message: str) -> None:
    """The error names the field and says what is wrong."""
    good: dict[str, Any] = {"start": "22:00", "end": "06:00", "rate": "1/second"}
    with pytest.raises(ValidationError, match=message):
        Hours(**{**good, **wrong})


def test_times_of_day_and_single_hours() -> None:
    """Times of day may be those of TOML and Python, and one table of hours is a list of one."""
    made = Hours.model_validate({"start": time(22), "end": time(6, 30), "rate": "1/second"})
    assert (made.start, made.end) == ("22:00", "06:30")
    assert Limit.model_validate({"name": "x", "rate": "1/second", "schedule": made}).schedule == (made,)
    with pytest.raises(ValidationError, match="valid string"):
        Hours.model_validate({"start": time(22, 0, 1), "end": "06:00", "rate": "1/second"})


def test_hours_of_the_wrong_kind() -> None:
    """A limit needs hours with a rate, a quota or concurrency hours with a limit."""
    with pytest.raises(ValidationError, match=r"schedule\.0\n  a Limit needs hours with a rate, not with a limit"):
        Limit(name="x", rate="1/second", schedule=[Hours(start="22:00", end="06:00", limit=4)])
    with pytest.raises(ValidationError, match=r"schedule\.0\n  a Quota or Concurrency needs hours with a limit"):
        Quota(name="x", limit=1, schedule=[NIGHT])


async def test_hours_begin_on_their_minute(clock: ManualClock) -> None:
    """The limiter, which computes the schedule once a minute, applies them from their first second to their last."""
    hours = Hours(start="22:07", end="22:09", rate="30/minute")
    limit = Limit(name="rate", rate="2/minute", per="org", schedule=[hours])
    limiter = Limiter(RateLimitSettings(limits=[limit]), MemoryStore(clock=clock), clock)
    limits = []
    for second in (-1, 0, 119, 120):
        clock.now = at(2026, 11, 20, 22, 7) + second * 1_000_000
        limits.append((await limiter.peek(Identity(org="o"))).limits[0].limit)
    assert limits == [2, 30, 30, 2]
