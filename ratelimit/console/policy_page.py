"""The page of one policy: what it declares, what it did, who uses it most, and the changes that hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ratelimit.config.policies import Limit, Policy
from ratelimit.config.schedule import Hours
from ratelimit.console.charts import Bar, bar_chart, powers_of_two
from ratelimit.console.overview import count_bar
from ratelimit.console.rendering import number_text, render
from ratelimit.console.visit import Visit
from ratelimit.enforcement.rankings import SPAN_S, TopCaller
from ratelimit.enforcement.statistics import PolicyCounts, SpanCounts, Statistics
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import rate_text
from ratelimit.inspection.policy_description import described, toml_of

_TOP = 10
_HOURS = 24
_HOUR_S = 3600
_NOTHING = PolicyCounts()
_PEAKS = "callers by their most in five minutes of the last 24 hours, each bar twice the one before"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFigures:
    """What the statistics know of a policy: of the last day, of the last hour, and its callers."""

    day: Markup
    hour: Markup
    peaks: Markup
    per_span: float | None
    peak_rows: Sequence[tuple[str, int]]
    highest: Sequence[TopCaller]
    used: Sequence[TopCaller]
    refused: Sequence[TopCaller]


async def policy_page(visit: Visit) -> Response:
    """Answer with the page of a policy; 404 where there is none of that name."""
    limiter, name = visit.limiter, visit.request.path_params["name"]
    await limiter.overrides.refresh()
    try:
        compiled = limiter.resolver.named.get(name)
    except ConfigurationError:
        raise HTTPException(404, "There is no policy of that name.") from None
    policy = compiled.policy
    return render(
        visit,
        "policy.html",
        policy=described(policy),
        unit=getattr(policy, "unit", "requests at once"),
        toml=toml_of(policy),
        schedule=[_hours(hours, limiter.clock()) for hours in policy.schedule],
        shares=dict(policy.shares),
        per=compiled.per,
        figures=None if limiter.statistics is None else await _figures(limiter.statistics, policy),
        overrides=[
            (each, rate_text(each.rate, policy)) for each in await limiter.overrides.list() if each.policy == name
        ],
        switch=limiter.fleet.holding(name),
    )


def _hours(hours: Hours, now: int) -> dict[str, str | bool]:
    days = ", ".join(hours.days)
    return {
        "from": str(hours.start),
        "to": str(hours.end),
        "tz": str(hours.tz),
        "days": days,
        "rate": rate_text(hours.amount),
        "now": hours.contains(now),
    }


async def _figures(statistics: Statistics, policy: Policy) -> PolicyFigures:
    name = policy.name
    hours, minutes = await statistics.hours(_HOURS), await statistics.minutes(60)
    await statistics.flush_callers()
    rankings = statistics.rankings
    peaks, per_span = await rankings.peaks(name), _per_span(policy)
    groups = powers_of_two([each.count for each in peaks])
    return PolicyFigures(
        day=_chart(name, hours, "the last 24 hours", "%a %H:%M"),
        hour=_chart(name, minutes, "the last 60 minutes", "%H:%M"),
        peaks=bar_chart([_peak_bar(*group, per_span) for group in groups], title=f"{name}: {_PEAKS}"),
        per_span=per_span,
        peak_rows=[(_range(low), count) for low, count in groups],
        highest=peaks[:_TOP],
        used=await rankings.top("used", seconds=_HOUR_S, policy=name, count=_TOP),
        refused=await rankings.top("refused", seconds=_HOUR_S, policy=name, count=_TOP),
    )


def _chart(name: str, spans: Sequence[SpanCounts], when: str, instant: str) -> Markup:
    bars = [count_bar(f"{each.start:{instant}} UTC", each.policies.get(name, _NOTHING)) for each in spans]
    return bar_chart(bars, title=f"{name}: {when}")


def _peak_bar(low: int, count: int, per_span: float | None) -> Bar:
    is_near = per_span is not None and low >= per_span
    return Bar(title=f"{_range(low)} in five minutes: {count} callers", parts=(0, count) if is_near else (count,))


def _range(low: int) -> str:
    return number_text(low) if low == 1 else f"{number_text(low)} – {number_text(2 * low - 1)}"


def _per_span(policy: Policy) -> float | None:
    """Return how much the policy's own rate admits in a span of five minutes; `None` where it counts otherwise."""
    if not isinstance(policy, Limit):
        return None
    return policy.rate.limit * max(1.0, SPAN_S / policy.rate.period)
