"""Calendar periods in UTC, in whole milliseconds since the epoch; twin of the calendar in `quota.lua`."""

from typing import Final, Literal

Period = Literal["hour", "day", "week", "month", "year"]

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

NOMINAL: Final = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 30 * 86_400, "year": 365 * 86_400}
"""The seconds that each period takes nominally, in ascending order."""

_WEEKDAY: Final = 3
"""The epoch was a Thursday, so many days after a Monday."""


def start_of(period: Period, ms: int) -> int:
    """Return the first millisecond of the period that `ms` lies in; weeks begin on Monday (ISO 8601)."""
    if period == "hour":
        return ms - ms % HOUR
    day = ms // DAY
    if period == "day":
        return day * DAY
    if period == "week":
        return (day - (day + _WEEKDAY) % 7) * DAY
    year, month = _month_of(day)
    return _first_day(year, month if period == "month" else 1) * DAY


def end_of(period: Period, start: int) -> int:
    """Return the first millisecond after the period that begins at `start`."""
    if period == "hour":
        return start + HOUR
    if period == "day":
        return start + DAY
    if period == "week":
        return start + 7 * DAY
    # Some day in the middle of the next period, whatever the length of this one.
    return start_of(period, start + (45 if period == "month" else 400) * DAY)


def _month_of(day: int) -> tuple[int, int]:
    """Return year and month of a day since the epoch; years begin in March here, so that leap days come last."""
    day += 719_468
    era, of_era = divmod(day, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return 400 * era + year + (month >= 10), month + 3 if month < 10 else month - 9


def _first_day(year: int, month: int) -> int:
    """Return the first day of a month, in days since the epoch."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (9 if month <= 2 else -3)) + 2) // 5
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
