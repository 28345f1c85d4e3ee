"""Schedules: hours of the week in which another rate or limit holds."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ratelimit.config.fields import AsList, FrozenModel, RateField, check_unique, invalid, not_bool
from ratelimit.model.rate import MAX_LIMIT, Rate

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00)")


def _as_text(value: Any) -> Any:
    """Return the text of a time of day, as TOML and Python have them."""
    return value.isoformat("minutes") if isinstance(value, time) and not value.second else value


def _check_time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise invalid(f"{value!r} is not a time of day between '00:00' and '24:00' [RL118]")
    return value


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise invalid(
            f"{value!r} is not a time zone that this machine knows: write it like 'Europe/Berlin'; if the machine has "
            "no time zones, install the package tzdata [RL118]"
        ) from None
    return value


def _check_days(values: tuple[Day, ...]) -> tuple[Day, ...]:
    if not values:
        raise invalid("is empty: leave days out to mean every day [RL118]")
    return check_unique(values)


TimeOfDay = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_time)]


class Hours(FrozenModel):
    """Give a `Limit` another `rate`, or a `Quota` or `Concurrency` another `limit`, from `start` until before `end`.

    Both are wall-clock times (`"22:00"`; `"24:00"` only as an end) in the time zone `tz`. An end that is not after the
    start lies on the following day; `days` name the days on which the span begins. Where clocks are set forward or
    back, the time that the wall clock shows counts: an hour that it shows twice is in the span twice, and an hour that
    it skips never is. Equal start and end, an unknown zone or no day at all raise `pydantic.ValidationError`.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            start: str,
            end: str,
            tz: str = "UTC",
            days: str | Sequence[str] = DAYS,
            rate: Rate | str | None = None,
            limit: int | None = None,
        ) -> None: ...

    start: TimeOfDay
    end: TimeOfDay
    tz: Annotated[str, AfterValidator(_check_zone)] = "UTC"
    days: Annotated[tuple[Day, ...], AsList, AfterValidator(_check_days)] = DAYS
    rate: RateField | None = None
    limit: Annotated[int, BeforeValidator(not_bool), Field(ge=0, le=MAX_LIMIT)] | None = None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.start == "24:00":
            raise invalid("start: '24:00' can only be an end; the day begins at '00:00' [RL118]")
        if self._minutes[0] == self._minutes[1] % 1440 and self.end != "24:00":
            raise invalid(f"start and end are both {self.start!r}: for whole days write '00:00' to '24:00' [RL118]")
        if (self.rate is None) == (self.limit is None):
            raise invalid("needs a rate (for limits) or a limit (for quotas and concurrency), and not both [RL118]")
        return self

    @cached_property
    def _minutes(self) -> tuple[int, int]:
        start, end = (60 * int(text[:2]) + int(text[3:]) for text in (self.start, self.end))
        return start, end

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.tz)

    @property
    def amount(self) -> Rate | int | None:
        """The rate or limit that holds in these hours."""
        return self.limit if self.rate is None else self.rate

    def contains(self, now: int) -> bool:
        """Say whether `now` (epoch microseconds) lies within these hours."""
        local = datetime.fromtimestamp(now // 1_000_000, UTC).astimezone(self._zone)
        minute, (start, end) = 60 * local.hour + local.minute, self._minutes
        if start < end:
            return start <= minute < end and DAYS[local.weekday()] in self.days
        if minute >= start:
            return DAYS[local.weekday()] in self.days
        # After midnight the span belongs to the day before.
        return minute < end and DAYS[(local - timedelta(days=1)).weekday()] in self.days


def _as_list_of_hours(value: Any) -> Any:
    """Let one table of hours stand for a list of one."""
    return [value] if isinstance(value, (Hours, Mapping)) else value


def _check_has_rate(hours: Hours) -> Hours:
    if hours.rate is None:
        raise invalid("a Limit needs hours with a rate, not with a limit [RL118]")
    return hours


def _check_has_limit(hours: Hours) -> Hours:
    if hours.limit is None:
        raise invalid("a Quota or Concurrency needs hours with a limit, not with a rate [RL118]")
    return hours


AsHours = BeforeValidator(_as_list_of_hours)
RateHours = Annotated[Hours, AfterValidator(_check_has_rate)]
CountHours = Annotated[Hours, AfterValidator(_check_has_limit)]
