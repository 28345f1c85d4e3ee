"""The overview: a line for each policy, and how the fleet and its store are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from ratelimit.config.policies import Policy
from ratelimit.console.charts import Bar, bar_chart
from ratelimit.console.rendering import render
from ratelimit.console.visit import Visit
from ratelimit.controls.change_text import change_text
from ratelimit.enforcement.statistics import PolicyCounts, SpanCounts
from ratelimit.inspection.policy_description import described
from ratelimit.limiter import Limiter
from ratelimit.model.fleet_switch import FleetSwitch

_MINUTES = 60
_NEAR_S = 600
_TOP = 10
_CHANGES = 10
_MOST = 1_000_000
_NOTHING = PolicyCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLine:
    """One policy in the overview: what it declares, and what it did in the last hour."""

    policy: dict[str, Any]
    within: int
    refused: int
    shadow_over: int
    callers_near: int
    overrides: int
    switch: FleetSwitch | None
    chart: Markup

    @property
    def checks(self) -> int:
        """All requests that the policy has seen."""
        return self.within + self.refused + self.shadow_over


async def overview(visit: Visit) -> Response:
    """Answer with the overview."""
    limiter, statistics = visit.limiter, visit.statistics
    await limiter.overrides.refresh()
    return render(
        visit,
        "overview.html",
        lines=await policy_lines(limiter),
        health=await limiter.health(),
        settings_hashes=await limiter.enforcer.workers.settings_hashes(limiter.clock()),
        store=type(limiter.store).__name__,
        counts=statistics is not None,
        refused_most=[] if statistics is None else await statistics.top("refused", count=_TOP),
        changes=[(each, change_text(each)) for each in await limiter.audit.list(_CHANGES)],
        everywhere=[each for each in await limiter.fleet.list() if each.policy is None],
        blocks=await limiter.blocks.list(),
        allowed=await limiter.allowed.list(),
    )


async def policy_lines(limiter: Limiter) -> list[PolicyLine]:
    """Return a line for each policy that is known, in the order of the settings and then of the routes."""
    minutes: Sequence[SpanCounts] = ()
    near: dict[str, set[str]] = {}
    if limiter.statistics is not None:
        minutes = await limiter.statistics.minutes(_MINUTES)
        for each in await limiter.statistics.top("near", seconds=_NEAR_S, count=_MOST):
            near.setdefault(each.policy, set()).add(each.caller)
    overrides, policies = limiter.overrides.counts(), dict[str, Policy]()
    for compiled in limiter.resolver.named.compiled():
        policies.setdefault(compiled.policy.name, compiled.policy)
    return [
        _line(described(policy), name, minutes, len(near.get(name, ())), overrides.get(name, 0), limiter)
        for name, policy in policies.items()
    ]


def _line(  # noqa: PLR0917
    policy: dict[str, Any], name: str, minutes: Sequence[SpanCounts], near: int, overrides: int, limiter: Limiter
) -> PolicyLine:
    spans = [(each, each.policies.get(name, _NOTHING)) for each in minutes]
    within = sum(counts.within + counts.near for _, counts in spans)
    refused = sum(counts.over for _, counts in spans)
    bars = [count_bar(f"{span.start:%H:%M} UTC", counts) for span, counts in spans]
    title = f"{name}, last hour: {within} within, {refused} refused"
    return PolicyLine(
        policy=policy,
        within=within,
        refused=refused,
        shadow_over=sum(counts.shadow_over for _, counts in spans),
        callers_near=near,
        overrides=overrides,
        switch=limiter.fleet.holding(name),
        chart=bar_chart(bars, title=title, width=180, height=36),
    )


def count_bar(when: str, counts: PolicyCounts) -> Bar:
    """Return the bar of a span of time."""
    texts = [
        f"{number} {what}"
        for number, what in (
            (counts.within, "within"),
            (counts.near, "near"),
            (counts.shadow_over, "over in shadow"),
            (counts.over, "refused"),
        )
        if number
    ]
    parts = counts.within, counts.near, counts.shadow_over, counts.over
    return Bar(title=f"{when}: {', '.join(texts) or 'nothing'}", parts=parts)
