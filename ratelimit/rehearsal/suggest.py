"""Suggestions: limits that fit what callers have done, chosen on the first part of a log and tried on the rest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from ratelimit.rehearsal.arrivals import Arrivals, Effect, Simultaneous

MAX_CALLERS_REFUSED: Final = 0.005
MAX_REQUESTS_REFUSED: Final = 0.001
TRAINED: Final = 0.7
"""The share of the time on which a limit is chosen; on the rest it is tried."""

_FEW_CALLERS, _MANY_CALLERS = 50, 200
_DAY_US: Final = 86_400_000_000
_NEARLY_A_DAY: Final = 0.95
_DIFFERENT: Final = 2.0
"""How many times as high the peaks of one day are as another's, where the days differ."""

_OUTLIER_MADS: Final = 6.0
_OUTLIER_TIMES: Final = 3.0
_CURVE: Final = 30
_ROUND: Final = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_PERIODS: Final = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What one limit would do to the whole log."""

    limit: int
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A limit by one dimension: `limit` units in `seconds`, with `burst`.

    `trained` and `tried` are its effects on the honest callers of the first and the last part of the log, `outliers` the callers that are far
    above all others, with their peaks. `confidence` is high, medium or low, `why` says why it is not high.
    """

    per: str
    seconds: int
    limit: int
    burst: float
    concurrency: int | None
    callers: int
    requests: int
    trained: Effect
    tried: Effect
    outliers: Mapping[str, int]
    curve: Sequence[CurvePoint]
    confidence: str
    why: Sequence[str]

    @property
    def rate(self) -> str:
        """The rate as settings write it."""
        period = _PERIODS.get(self.seconds)
        return f"{self.limit}/{period}" if period else f"{self.limit}/{self.seconds}s"

    def toml(self) -> str:
        """Return the policies for a settings file, in shadow."""
        burst = f"burst = {self.burst:g}\n" if self.burst else ""
        text = f'[[limits]]\nname = "by-{self.per}"\nrate = "{self.rate}"\nper = ["{self.per}"]\n{burst}shadow = true\n'
        if self.concurrency is None:
            return text
        return f'{text}\n[[concurrency]]\nname = "at-once-by-{self.per}"\nlimit = {self.concurrency}\nper = ["{self.per}"]\nshadow = true\n'

    def as_dict(self) -> dict[str, Any]:
        """Return the suggestion as JSON takes it."""
        return {
            "per": self.per,
            "rate": self.rate,
            "burst": self.burst,
            "concurrency": self.concurrency,
            "callers": self.callers,
            "requests": self.requests,
            "trained": _effect_dict(self.trained),
            "tried": _effect_dict(self.tried),
            "outliers": dict(self.outliers),
            "curve": [{"limit": point.limit, **_effect_dict(point.effect)} for point in self.curve],
            "confidence": self.confidence,
            "why": list(self.why),
            "toml": self.toml(),
        }


def suggest(
    per: str, arrivals: Arrivals, first: int, last: int, *, simultaneous: Simultaneous | None = None
) -> Suggestion:
    """Return the smallest round limit that refuses at most 0.5 % of the honest callers and 0.1 % of their requests.

    `first` and `last` are when the log begins and ends (epoch µs). Callers far above all others are taken for abusers, and do not raise
    the limit. `simultaneous` is given where the log has durations.
    """
    peaks = arrivals.peaks()
    outliers = _outliers(peaks)
    honest = arrivals.without(outliers)
    split = first + round((last - first) * TRAINED)
    trained, tried = honest.between(first, split), honest.between(split, last + 1_000_000)
    basis = trained if trained.callers else honest
    limit = _smallest(basis)
    steady = max(1, _smallest(basis, basis.peaks(2), halved=True))
    burst = math.ceil((limit - steady) / steady * 20) / 20
    if steady < 0.8 * limit and burst <= 1 and _keeps(basis, basis.effect(steady, burst)):
        limit = steady  # Short bursts: a lower rate that may be exceeded for a while.
    else:
        burst = 0.0
    effects = trained.effect(limit, burst), tried.effect(limit, burst)
    why = list(_doubts(honest, tried, effects[1], first, last, arrivals.left_out))
    highest = {} if simultaneous is None else simultaneous.highest()
    return Suggestion(
        per=per,
        seconds=arrivals.seconds,
        limit=limit,
        burst=burst,
        concurrency=_at_once(highest, outliers),
        callers=len(peaks),
        requests=arrivals.requests,
        trained=effects[0],
        tried=effects[1],
        outliers={caller: peaks[caller] for caller in outliers},
        curve=_curve(arrivals, peaks),
        confidence="high" if not why else "medium" if len(why) == 1 and why[0].startswith("fewer than 200") else "low",
        why=why,
    )


def _smallest(arrivals: Arrivals, peaks: Mapping[str, int] | None = None, *, halved: bool = False) -> int:
    """Return the smallest round limit within both bounds; `halved` peaks are those of two windows."""
    own = arrivals.peaks()
    values = sorted(own.values() if peaks is None else (-(-peak // 2) for peak in peaks.values())) or [1]
    refused = math.floor(MAX_CALLERS_REFUSED * len(values))
    limit = round_up(values[len(values) - 1 - refused])
    while not halved and arrivals.effect(limit, 0.0, own).requests > MAX_REQUESTS_REFUSED * arrivals.requests:
        limit = round_up(limit + 1)
    return limit


def _keeps(arrivals: Arrivals, effect: Effect) -> bool:
    """Say whether an effect is within both bounds."""
    few_callers = effect.callers <= MAX_CALLERS_REFUSED * len(arrivals.callers)
    return few_callers and effect.requests <= MAX_REQUESTS_REFUSED * arrivals.requests


def round_up(value: int) -> int:
    """Return the smallest round number that is not below a value: 1, 2, 3, … 12, 15, 20, 25, 30, 40 and so on."""
    scale = 1
    while True:
        for factor in _ROUND:
            if factor * scale >= value and factor * scale == int(factor * scale):
                return int(factor * scale)
        scale *= 10


def _outliers(peaks: Mapping[str, int]) -> list[str]:
    """Return the callers whose peaks are far above those of all others, in multiples of the usual spread of logarithms."""
    logs = {caller: math.log(peak) for caller, peak in peaks.items() if peak}
    if len(logs) < 4:
        return []
    middle = median(logs.values())
    spread = 1.4826 * median(abs(value - middle) for value in logs.values())
    bound = middle + max(_OUTLIER_MADS * spread, math.log(_OUTLIER_TIMES))
    far = [caller for caller, value in logs.items() if value > bound]
    below = max((value for value in logs.values() if value <= bound), default=0.0)
    # There is a gap between them and the others, or they are only the end of a long tail.
    return sorted((caller for caller in far if logs[caller] > below + math.log(2)), key=lambda caller: -peaks[caller])


def _doubts(  # noqa: PLR0917
    honest: Arrivals, tried: Arrivals, effect: Effect, first: int, last: int, left_out: int
) -> Iterator[str]:
    """Yield why a suggestion is not to be relied on."""
    callers = len(honest.callers)
    if left_out:
        yield f"{left_out:,} requests of more callers than are counted apart were left out"
    if callers < _FEW_CALLERS:
        yield f"only {callers} callers"
    elif callers < _MANY_CALLERS:
        yield f"fewer than {_MANY_CALLERS} callers ({callers})"
    if last - first < _NEARLY_A_DAY * _DAY_US:
        yield f"the log covers {(last - first) / 3.6e9:.1f} hours, less than a day"
    days = _peaks_by_day(honest, first, last)
    if len(days) > 1 and max(days) > _DIFFERENT * min(days):
        yield f"the days differ: their peaks lie between {min(days):,} and {max(days):,}"
    if tried.callers and (
        effect.callers > 2 * MAX_CALLERS_REFUSED * len(tried.callers) + 1
        or effect.requests > 2 * MAX_REQUESTS_REFUSED * tried.requests
    ):
        yield (
            f"on the last {1 - TRAINED:.0%} of the time it would refuse {effect.callers} of {len(tried.callers)} callers and "
            f"{effect.requests / tried.requests:.2%} of the requests"
        )


def _peaks_by_day(arrivals: Arrivals, first: int, last: int) -> list[int]:
    """Return the 99th percentile of the peaks of each whole day."""
    found = []
    for day in range(first, last - _DAY_US // 2, _DAY_US):
        peaks = sorted(arrivals.between(day, day + _DAY_US).peaks().values())
        if peaks:
            found.append(peaks[math.floor(0.99 * (len(peaks) - 1))])
    return found


def _curve(arrivals: Arrivals, peaks: Mapping[str, int]) -> list[CurvePoint]:
    highest = max(peaks.values(), default=1)
    limits = {round_up(max(1, round(highest ** (step / (_CURVE - 1))))) for step in range(_CURVE)}
    return [CurvePoint(limit=limit, effect=arrivals.effect(limit, 0.0, peaks)) for limit in sorted(limits)]


def _at_once(highest: Mapping[str, int], outliers: Sequence[str]) -> int | None:
    values = sorted(value for caller, value in highest.items() if caller not in outliers)
    if not values:
        return None
    return round_up(values[math.floor((1 - MAX_CALLERS_REFUSED) * (len(values) - 1))])


def _effect_dict(effect: Effect) -> dict[str, Any]:
    return {"callers": effect.callers, "requests": effect.requests, "longest_wait": effect.longest_wait}
