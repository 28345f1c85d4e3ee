"""The pages of callers: a search, and for one caller what it may, has used and was refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from ratelimit.console.caller_reference import (
    ATTRIBUTES,
    counter_key,
    identity_of_query,
    identity_of_token,
    matches,
    override_key,
    query_of,
)
from ratelimit.console.charts import Bar, bar_chart
from ratelimit.console.forms import Form
from ratelimit.console.rendering import render
from ratelimit.console.security import check_change
from ratelimit.console.visit import Visit
from ratelimit.enforcement.refusal_stream import Refusal
from ratelimit.inspection.explanation import PolicyExplanation, explain, explain_policies
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.model.quota_usage import QuotaUsage
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.resolver.labels import label_of

_TOP = 20
_DAY_S = 86_400
_READ = 1000
_REFUSALS = 20
_PER_BAR = 6
"""Spans of five minutes in one bar: half an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerPolicy:
    """One policy for one caller: how it stands, and whom an override would name (`None`: an endpoint has to be chosen)."""

    found: PolicyExplanation
    key: dict[str, str] | None
    quota: QuotaUsage | None
    suggested: str
    override: Override | None


async def callers_page(visit: Visit) -> Response:
    """Answer with the search, and the callers that are refused, near and busiest."""
    statistics, found = visit.statistics, {}
    if statistics is not None:
        for by in ("refused", "near", "used"):
            found[by] = await statistics.top(by, count=_TOP)
    dimensions = sorted(visit.limiter.settings.dimensions)
    return render(visit, "callers.html", tops=found, kinds=[*ATTRIBUTES[:3], *dimensions])


async def search(visit: Visit) -> Response:
    """Lead to the page of the caller that the form names: a token is hashed here, and is in no address and no log."""
    form = await Form.of(visit.request, visit.limiter.clock)
    check_change(visit.request, form.text("csrf") or "")
    named, kind, value = visit.limiter.resolver.named, form.needed("kind"), form.needed("value")
    more = {name: text for name in ("org", "plan") if (text := form.text(name))}
    if kind == "token":
        identity = await identity_of_token(visit.request, visit.limiter, value)
        query = {**query_of(identity, named), **more}
    else:
        field = kind if kind in ATTRIBUTES else f"dimension.{kind}"
        query = query_of(identity_of_query({field: value, **more}, named), named)
    return RedirectResponse(visit.url("caller", query), 303)


async def single_caller_page(visit: Visit) -> Response:
    """Answer with the page of one caller, whom the query names; with an endpoint also what counts there."""
    limiter, params = visit.limiter, visit.request.query_params
    identity = identity_of_query(params, limiter.resolver.named)
    if identity == Identity():
        raise HTTPException(404, "The address names no caller: search for one.")
    endpoint, query = params.get("endpoint") or None, query_of(identity, limiter.resolver.named)
    rows = await _policies(limiter, identity, endpoint)
    hints = []
    if identity.token and not identity.org and limiter.resolver.named.counts_by("org"):
        hints.append("The counters of a token lie with its organization: search with it too, or they are not found.")
    if identity.plan is None and any(limiter.resolver.named.get(row.found.policy).policy.by_plan for row in rows):
        hints.append("The plan is unknown here: these are the rates without a plan. Search by token, or with the plan.")
    return render(
        visit,
        "caller.html",
        label=label_of(identity, limiter.resolver.named),
        query=query,
        rows=rows,
        hints=hints,
        endpoints=_endpoints(limiter),
        endpoint=endpoint,
        listed=_listed(limiter, identity),
        counter_key=counter_key(query),
        block_key=_block_key(counter_key(query)),
        charts=await _charts(limiter, identity, endpoint, [each.found for each in rows]),
        refusals=await _refusals(limiter, identity),
    )


def _block_key(query: dict[str, str]) -> dict[str, str]:
    """Return the key by which blocks name a caller: without its plan, unless that is all that is known."""
    found = {
        name.removeprefix("dimension."): value for name, value in query.items() if name not in {"priority", "plan"}
    }
    return found or {name: value for name, value in query.items() if name == "plan"}


async def _policies(limiter: Limiter, identity: Identity, endpoint: str | None) -> list[CallerPolicy]:
    if endpoint is None:
        found = await explain_policies(limiter, identity)
    else:
        method, _, template = endpoint.partition(" ")
        found = [*(await explain(limiter, identity, method=method, endpoint=template)).policies]
    quotas = {each.policy: each for each in await limiter.usage(identity)}
    overrides = {
        (each.policy, tuple(sorted(each.key.items()))): each
        for each in await limiter.overrides.list()
        if each.plan is None and each.key
    }
    named, rows = limiter.resolver.named, []
    at_endpoint = _at_endpoint(identity, endpoint)
    for each in found:
        key = override_key(at_endpoint, named.get(each.policy), named) or None
        override = None if key is None else overrides.get((each.policy, tuple(sorted(key.items()))))
        quota, suggested = quotas.get(each.policy), _twice(each.rate)
        rows.append(CallerPolicy(found=each, key=key, quota=quota, suggested=suggested, override=override))
    return rows


def _at_endpoint(identity: Identity, endpoint: str | None) -> Identity:
    """Return an identity whose dimensions name the endpoint and the method too, as keys of overrides do."""
    if endpoint is None:
        return identity
    place = {"endpoint": endpoint, "method": endpoint.partition(" ")[0]}
    return replace(identity, dimensions={**identity.dimensions, **place})


def _twice(rate: str | None) -> str:
    """Return twice a rate, as the form suggests it."""
    number, slash, period = (rate or "").partition("/")
    return f"{2 * int(number)}{slash}{period}" if number.isdigit() else ""


def _endpoints(limiter: Limiter) -> list[str]:
    """Return the endpoints of the app, as far as its routes are known."""
    return sorted({f"{each.method} {each.template}" for each in limiter.resolver.routes.values() if not each.exempt})


def _listed(limiter: Limiter, identity: Identity) -> dict[str, Any]:
    return {"block": limiter.blocks.find(identity), "allow": limiter.allowed.find(identity)}


async def _charts(
    limiter: Limiter, identity: Identity, endpoint: str | None, found: Sequence[PolicyExplanation]
) -> list[tuple[str, Markup]]:
    """Return a chart of the last day for each policy: half hours, with what was used and how often it was refused."""
    statistics, named, charts = limiter.statistics, limiter.resolver.named, []
    if statistics is None:
        return []
    await statistics.flush_callers()
    method, _, template = (endpoint or f"GET {UNMATCHED}").partition(" ")
    place = limiter.resolver.route(method, template)
    for each in found:
        compiled = named.get(each.policy, place.label)
        charge = compiled.any_charge(identity, named.values(identity, compiled, place), limiter.clock())
        if charge is None or each.kind == "concurrency":
            continue
        label, org = statistics.names.label(charge.key, each.policy), statistics.names.org(charge.key, each.policy)
        history = [
            await statistics.rankings.history(each.policy, label, org, by=by, seconds=_DAY_S)
            for by in ("used", "refused")
        ]
        bars = [_half_hour(first, history) for first in range(0, len(history[0]), _PER_BAR)]
        if any(sum(bar.parts) for bar in bars):
            title = f"{each.policy}: the last 24 hours, used and refused"
            charts.append((each.policy, bar_chart(bars, title=title, height=80)))
    return charts


def _half_hour(first: int, history: Sequence[Sequence[tuple[int, int]]]) -> Bar:
    used, refused = (sum(number for _, number in each[first : first + _PER_BAR]) for each in history)
    at = history[0][first][0] % _DAY_S
    return Bar(
        title=f"{at // 3600:02d}:{at // 60 % 60:02d} UTC: {used} used, {refused} refusals", parts=(used, 0, 0, refused)
    )


async def _refusals(limiter: Limiter, identity: Identity) -> list[Refusal]:
    if limiter.statistics is None:
        return []
    found = await limiter.statistics.refusals.read(last=_READ)
    named = limiter.resolver.named
    return [each for each in reversed(found) if matches(identity, each.key, named)][:_REFUSALS]
