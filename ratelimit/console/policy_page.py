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
from ratelimit.enforcement.statistics import PolicyCounts, Statistics
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import rate_text
from ratelimit.inspection.policy_description import described, toml_of

_TOP = 10
_HOURS = 24
_HOUR_S = 3600
_NOTHING = PolicyCounts()


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
    hours = [(each, each.policies.get(name, _NOTHING)) for each in await statistics.hours(_HOURS)]
    minutes = [(each, each.policies.get(name, _NOTHING)) for each in await statistics.minutes(60)]
    await statistics.flush_callers()
    peaks = await statistics.rankings.peaks(name)
    buckets = [
        (f"{number_text(low)} – {number_text(2 * low - 1)}", low, count)
        for low, count in powers_of_two([each.count for each in peaks])
    ]
    per_span = _per_span(policy)
    bars = [
        Bar(
            title=f"{label} in five minutes: {count} callers",
            parts=(0, count) if per_span and low >= per_span else (count,),
        )
        for label, low, count in buckets
    ]
    return PolicyFigures(
        day=bar_chart(
            [count_bar(f"{each.start:%a %H:%M} UTC", counts) for each, counts in hours],
            title=f"{name}: the last 24 hours",
        ),
        hour=bar_chart(
            [count_bar(f"{each.start:%H:%M} UTC", counts) for each, counts in minutes],
            title=f"{name}: the last 60 minutes",
        ),
        peaks=bar_chart(
            bars,
            title=f"{name}: callers by their most in five minutes of the last 24 hours, each bar twice the one before",
        ),
        per_span=per_span,
        peak_rows=[(label, count) for label, _, count in buckets],
        highest=peaks[:_TOP],
        used=await statistics.rankings.top("used", seconds=_HOUR_S, policy=name, count=_TOP),
        refused=await statistics.rankings.top("refused", seconds=_HOUR_S, policy=name, count=_TOP),
    )


def _per_span(policy: Policy) -> float | None:
    """Return how much the policy's own rate admits in a span of five minutes; `None` where it counts otherwise."""
    if not isinstance(policy, Limit):
        return None
    return policy.rate.limit * max(1.0, SPAN_S / policy.rate.period)
