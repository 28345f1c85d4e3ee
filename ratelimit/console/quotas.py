"""The pages of quotas: what each allows, who has used how much of it in this period and the last, and who is near."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ratelimit.config.policies import Policy, Quota
from ratelimit.console.caller_reference import identity_of_query, override_key, query_of_label
from ratelimit.console.rendering import render
from ratelimit.console.visit import Visit
from ratelimit.enforcement.events import NEAR
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import rate_text
from ratelimit.limiter import Limiter
from ratelimit.model.charge import Charge
from ratelimit.model.quota_usage import QuotaUsage, quota_usage
from ratelimit.model.rate import Rate
from ratelimit.resolver.compiled_policy import CompiledPolicy
from ratelimit.stores.messages import Operation, StoreRequest

_SHOWN = 100
_AT_ONCE = 100
_COLUMNS = ("caller", "limit", "used", "remaining", "share", "used_last_period", "resets_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaCaller:
    """One caller of a quota: its label, the query that names it, whom an override names, what it has used and may use.

    `limit` is that of an override of this caller, else the one under which it was charged last.
    """

    label: str
    query: dict[str, str] | None
    key: dict[str, str] | None
    usage: QuotaUsage
    limit: int | None

    @property
    def remaining(self) -> int | None:
        """What the caller has left; `None`: it is unlimited."""
        return None if self.limit is None else max(0, self.limit - self.usage.used)

    @property
    def share(self) -> float:
        """The share of its limit that the caller has used."""
        return 0.0 if self.limit is None else self.usage.used / self.limit if self.limit else 1.0

    @property
    def is_near(self) -> bool:
        """Whether the caller has used 80 % or more."""
        return self.share >= NEAR


async def quotas_page(visit: Visit) -> Response:
    """Answer with all quotas."""
    await visit.limiter.overrides.refresh()
    found = [(quota, await _plans(visit.limiter, quota)) for quota in visit.limiter.settings.quotas]
    return render(visit, "quotas.html", quotas=[(each, rate_text(each.amount, each), plans) for each, plans in found])


async def quota_page(visit: Visit) -> Response:
    """Answer with one quota: its plans, and the callers that have used most of their share."""
    quota, compiled = _quota_of(visit)
    await visit.limiter.overrides.refresh()
    callers = await quota_callers(visit.limiter, quota)
    wanted = (visit.request.query_params.get("q") or "").strip().lower()
    shown = [each for each in callers if wanted in each.label.lower()]
    return render(
        visit,
        "quota.html",
        quota=quota,
        amount=rate_text(quota.amount, quota),
        plans=await _plans(visit.limiter, quota),
        per=compiled.per,
        callers=shown[:_SHOWN],
        found=len(shown),
        known=len(callers),
        near=sum(each.is_near for each in callers),
        wanted=wanted,
        counts=visit.statistics is not None,
    )


async def quota_csv(visit: Visit) -> Response:
    """Answer with all callers of a quota as CSV (RFC 4180), those first that have used most of their share."""
    quota, _ = _quota_of(visit)
    await visit.limiter.overrides.refresh()
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for each in await quota_callers(visit.limiter, quota):
        usage = each.usage
        limit, left = ("unlimited", "") if each.limit is None else (each.limit, each.remaining)
        numbers = limit, usage.used, left, f"{each.share:.4f}", usage.last, usage.resets_at or ""
        writer.writerow([_safe_cell(each.label), *numbers])
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in quota.name)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(out.getvalue().encode("utf-8", "replace"), media_type="text/csv", headers=headers)


def _safe_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    return f"'{text}" if text[:1] in set("=+-@\t\r") else text


async def quota_callers(limiter: Limiter, quota: Quota) -> list[QuotaCaller]:
    """Return the callers that have used a quota in this period or the last, by the share of their limit; raises `StoreError`."""
    statistics = limiter.statistics
    if statistics is None:
        return []
    await statistics.flush_callers()
    counters = await statistics.quotas.counters(quota.name, quota.period)
    overrides = await _overrides_of_counters(limiter, quota)
    compiled, found = limiter.resolver.named.get(quota.name), list[QuotaCaller]()
    effective = compiled.effective_limit(quota.amount)
    for keys in batched(counters):
        charges = [Charge(effective, key, 1) for key in keys]
        reply = await limiter.enforcer.submit(StoreRequest(charges, Operation.USAGE))
        for key, charge, reading in zip(keys, charges, reply.readings, strict=True):
            counter = ":".join(key.rsplit(":", len(compiled.per))[1:]) if compiled.per else "*"
            limit = overrides.get(counter, counters[key])
            found.append(_caller(limiter, compiled, key, quota_usage(charge, reading, reply.now), limit))
    return sorted(found, key=lambda each: (-each.share, -each.usage.used, each.label))


def batched(keys: Iterable[str]) -> Iterator[list[str]]:
    """Yield the keys, a hundred at a time."""
    waiting = list(keys)
    for first in range(0, len(waiting), _AT_ONCE):
        yield waiting[first : first + _AT_ONCE]


async def _overrides_of_counters(limiter: Limiter, quota: Quota) -> dict[str, int | None]:
    """Return the numbers of overrides by the counter that they are for; `None`: unlimited.

    One of a plan is known only where the plan is: it shows when the caller is charged next, and so does one of all callers.
    """
    found: dict[str, int | None] = {}
    for each in await limiter.overrides.list():
        if each.policy == quota.name and each.plan is None and each.key:
            counter = limiter.resolver.named.counter_name(quota.name, each.key)
            found[counter] = each.rate.limit if isinstance(each.rate, Rate) else each.rate
    return found


def _caller(limiter: Limiter, compiled: CompiledPolicy, key: str, usage: QuotaUsage, limit: int | None) -> QuotaCaller:
    statistics, named = limiter.statistics, limiter.resolver.named
    label, org = key, None
    if statistics is not None:
        label, org = statistics.names.label(key, usage.policy), statistics.names.org(key, usage.policy)
    query, whom = query_of_label(label, org), None
    try:
        whom = None if query is None else override_key(identity_of_query(query, named), compiled, named)
    except ConfigurationError:  # Another program has written a key that is no counter's.
        query = None
    return QuotaCaller(label=label, query=query, key=whom, usage=usage, limit=limit)


async def _plans(limiter: Limiter, quota: Quota) -> list[dict[str, Any]]:
    """Return what each plan allows, with the override that holds for it."""
    overrides = [each for each in await limiter.overrides.list() if each.policy == quota.name and not each.key]
    by_plan = {each.plan: each for each in overrides}
    names: Sequence[str | None] = [
        None,
        *quota.by_plan,
        *(plan for plan in by_plan if plan and plan not in quota.by_plan),
    ]
    return [{"plan": name, "rate": _amount(quota, name), "override": by_plan.get(name)} for name in names]


def _amount(quota: Policy, plan: str | None) -> str:
    return rate_text(quota.amount if plan is None else quota.by_plan.get(plan, quota.amount), quota)


def _quota_of(visit: Visit) -> tuple[Quota, CompiledPolicy]:
    name = visit.request.path_params["name"]
    try:
        compiled = visit.limiter.resolver.named.get(name)
    except ConfigurationError:
        compiled = None
    if compiled is None or not isinstance(compiled.policy, Quota):
        raise HTTPException(404, "There is no quota of that name.")
    return compiled.policy, compiled
