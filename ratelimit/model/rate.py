"""Rates: a number of units per period."""

import re
from dataclasses import dataclass
from typing import Final, Self

from ratelimit.errors import InvalidRate

MAX_LIMIT: Final = 10**15 - 1
"""The largest limit, 15 digits: every sum of two of them is an exact integer in Lua."""

MAX_PERIOD: Final = 10 * 366 * 86_400
"""The longest period in seconds, ten years."""

_UNITS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_ALIASES: Final = {
    alias: unit
    for unit, aliases in {
        "second": ("s", "sec", "secs"),
        "minute": ("m", "min", "mins"),
        "hour": ("h", "hr", "hrs"),
        "day": ("d",),
        "week": ("w", "wk", "wks"),
    }.items()
    for alias in (*aliases, unit, unit + "s")
}
_GRAMMAR: Final = re.compile(r"([0-9]+) ?(?:/ ?| per )(?:([0-9]+) ?)?([a-z]*)(?<!/)(?<! )", re.IGNORECASE | re.ASCII)
_CALENDAR: Final = frozenset({"month", "months", "mo", "mon", "year", "years", "yr", "yrs", "y"})


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of `limit` units per `period` seconds.

    Both are integers: `limit` 0…10¹⁵−1 (0 admits nothing), `period` 1 second to ten years. Anything else raises
    `InvalidRate`. `Rate.parse` reads the text form and `str` gives the shortest one back.
    """

    limit: int
    period: int

    def __post_init__(self) -> None:
        _check("limit", self.limit, 0, MAX_LIMIT)
        _check("period", self.period, 1, MAX_PERIOD)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `600/minute`, `5 per 10 minutes`, `1/hour`, `200/60s` or `100/10` (seconds), in any case.

        Units are second, minute, hour, day and week, their plurals and usual short forms (`s`, `sec`, `min`, `h`, `wk`,
        …). Signs, fractions, several rates in one text, unknown units and a period of zero raise `InvalidRate`; so do
        months and years, which have no fixed length: they are the period of a `Quota`.
        """
        match = _GRAMMAR.fullmatch(str(text).strip())
        if match is None:
            raise _not_a_rate(text, "write it like '600/minute', '200/60s' or '5/10 minutes'")
        digits, count, word = match.groups()
        word = word.lower() or "seconds"
        if word in _CALENDAR:
            raise _not_a_rate(text, f"{word!r} has no fixed length: use Quota(…, period='{_calendar_period(word)}')")
        if word not in _ALIASES:
            raise _not_a_rate(text, f"{word!r:.50} is not one of {', '.join(_UNITS)}")
        limit, period = _integer(digits), _integer(count or "1") * _UNITS[_ALIASES[word]]
        if limit > MAX_LIMIT:
            raise _not_a_rate(text, f"the limit must be at most {MAX_LIMIT}")
        if not 1 <= period <= MAX_PERIOD:
            bound = "at most ten years" if period else "at least 1 second"
            raise _not_a_rate(text, f"the period must be {bound}")
        return cls(limit, period)

    def __str__(self) -> str:
        unit = max((u for u, seconds in _UNITS.items() if self.period % seconds == 0), key=_UNITS.__getitem__)
        count = self.period // _UNITS[unit]
        return f"{self.limit}/{unit}" if count == 1 else f"{self.limit}/{count} {unit}s"


def _not_a_rate(text: str, problem: str) -> InvalidRate:
    return InvalidRate(f"{text!r:.100} is not a rate: {problem} [RL106]")


def _calendar_period(word: str) -> str:
    return "month" if word.startswith("m") else "year"


def _integer(digits: str) -> int:
    # Longer digit strings are out of every range anyway, and int() refuses to read those above 4,300 digits.
    return int(digits.lstrip("0")[:20] or "0")


def _check(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRate(f"{name}: {value!r} is not an integer [RL106]")
    if not low <= value <= high:
        # str() refuses to write out more than 4,300 digits.
        shown = value if abs(value) < 10**30 else "a number of more than 30 digits"
        raise InvalidRate(f"{name}: must be between {low} and {high}, got {shown} [RL106]")
