"""Explanations: which policies hold for one caller at one endpoint, by which rate, and what the answer would be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ratelimit.asgi.headers import response_headers
from ratelimit.asgi.refusal import problem_of
from ratelimit.config.fields import UNLIMITED
from ratelimit.config.policies import Policy, Quota
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.resolver.compiled_policy import CompiledPolicy, RateOrCount, RateSource
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint
from ratelimit.stores.messages import Operation, StoreRequest, new_request

EXPLAINED_ID: Final = "explained"
"""The request id that an explained answer shows where none is handed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStep:
    """What one source says of a rate: its text, or `unlimited`; `holds` marks the first, which is the one that counts."""

    source: RateSource
    rate: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExplanation:
    """One policy for one request.

    `why_not` says why it does not apply. `rate` is the one that counts and `chain` all that have a say, the first wins.
    `used` units were used before this request, `remaining` are left after it, as its answer says; `wait` is in seconds: 0.0
    where it does not refuse, infinite where waiting does not help. `refuses` says that it does. `limit` is the number that
    answers name, and `resets_at` epoch seconds.
    """

    policy: str
    kind: str
    scope: str
    applies: bool
    why_not: str | None = None
    rate: str | None = None
    chain: Sequence[RateStep] = ()
    shadow: bool = False
    used: int | None = None
    remaining: int | None = None
    wait: float | None = None
    refuses: bool = False
    limit: int | None = None
    resets_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a request would be answered, and why: nothing was charged.

    `headers` are the fields that the limiter adds to the app's answer, or all those of its own; `body` is that of a
    refusal. `is_listed` says that the caller is blocked, or allowed whatever it does.
    """

    method: str
    endpoint: str
    decision: Decision
    policies: Sequence[PolicyExplanation]
    headers: Sequence[tuple[str, str]]
    body: bytes | None
    is_listed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON takes it; waits that never end are null."""
        decision = self.decision
        return {
            "method": self.method,
            "endpoint": self.endpoint,
            "allowed": decision.allowed,
            "status": decision.status,
            "retry_after": _finite(decision.retry_after),
            "binding": None if decision.binding is None else decision.binding.policy,
            "policies": [_policy_dict(each) for each in self.policies],
            "headers": dict(self.headers),
            "body": None if self.body is None else self.body.decode(),
        }


async def explain(
    limiter: Limiter,
    identity: Identity,
    *,
    method: str = "GET",
    endpoint: str | Endpoint = UNMATCHED,
    cost: int = 1,
    request_id: str = EXPLAINED_ID,
) -> Explanation:
    """Tell what a request of `identity` at an endpoint would be answered, and why; charge nothing.

    `endpoint` is a route template, or what `EndpointMatcher.find` has found. A cost that a function of the request tells is
    taken as 1. The numbers are those that the store would reply. Raises `StoreError` where it does not answer.
    """
    if not isinstance(identity, Identity):
        raise ConfigurationError(f"identity: must be an Identity, got {type(identity).__name__} [RL302]")
    place = limiter.resolver.route(method.upper(), endpoint) if isinstance(endpoint, str) else endpoint
    await limiter.start()
    await limiter.overrides.refresh()
    policies, now = limiter.resolver.policies_at(place), limiter.clock()
    charges = policies.charges(identity, cost, now=now)
    used, decision = await _rehearsed(limiter, charges, has_permits=policies.has_concurrency)
    listed = None if policies.is_exempt else limiter.listed(identity)
    style, body = policies.style, None
    if (listed or decision).allowed:
        headers = response_headers(listed or decision, style, 200, ())
    else:
        _, headers, body = problem_of(listed or decision, style, request_id)
    return Explanation(
        method=place.method,
        endpoint=place.label,
        decision=listed or decision,
        policies=_explained(limiter, identity, place, charges, decision, used),
        headers=[(name.decode(), value.decode()) for name, value in headers],
        body=body,
        is_listed=listed is not None,
    )


async def explain_policies(limiter: Limiter, identity: Identity) -> list[PolicyExplanation]:
    """Tell of each policy that counts a caller wherever it goes what one more request would be answered; charge nothing.

    `remaining` is what is left before that request. Raises `StoreError` where the store does not answer.
    """
    await limiter.start()
    await limiter.overrides.refresh()
    named, place, now = limiter.resolver.named, limiter.resolver.endpoint("GET"), limiter.clock()
    chosen = [named.get(name) for name in named.of_a_caller(identity)]
    found = [
        (each, named.charge(each.policy.name, identity, 1, now, method="GET", endpoint=UNMATCHED)) for each in chosen
    ]
    charges = [charge for _, charge in found if charge is not None]
    used = await _used(limiter, charges)
    reply = await limiter.enforcer.submit(StoreRequest(charges, Operation.PEEK)) if charges else None
    limits = {} if reply is None else {each.policy: each for each in reply.service_limits(charges)}
    return [
        _not_applying(each.policy, _why_uncharged(limiter, each, identity, place))
        if charge is None
        else _applying(
            each.policy, _chain(limiter, each, identity, place), limits[each.policy.name], used[each.policy.name]
        )
        for each, charge in found
    ]


async def _rehearsed(
    limiter: Limiter, charges: Sequence[Charge], *, has_permits: bool
) -> tuple[Mapping[str, int], Decision]:
    """Return what is used of each policy now, and the decision that the store would make."""
    if not charges:
        return {}, Decision(True)
    used = await _used(limiter, charges)
    reply = await limiter.store.rehearse(new_request(charges, Operation.ACQUIRE if has_permits else Operation.CHARGE))
    return used, Decision.from_readings(charges, reply.readings, reply.now)


async def _used(limiter: Limiter, charges: Sequence[Charge]) -> Mapping[str, int]:
    """Return how many units of each policy are used now."""
    if not charges:
        return {}
    usage = await limiter.enforcer.submit(StoreRequest(charges, Operation.USAGE))
    return {charge.limit.policy: reading[0] for charge, reading in zip(charges, usage.readings, strict=True)}


def _explained(  # noqa: PLR0917
    limiter: Limiter,
    identity: Identity,
    place: Endpoint,
    charges: Sequence[Charge],
    decision: Decision,
    used: Mapping[str, int],
) -> list[PolicyExplanation]:
    limits = {limit.policy: limit for limit in decision.limits}
    charged = {charge.limit.policy for charge in charges}
    found = []
    for compiled, why_not in limiter.resolver.selection(place):
        policy = compiled.policy
        if policy.name in charged and not why_not:
            chain = _chain(limiter, compiled, identity, place)
            found.append(_applying(policy, chain, limits[policy.name], used[policy.name]))
        else:
            reason = why_not or _why_uncharged(limiter, compiled, identity, place)
            found.append(_not_applying(policy, reason))
    return found


def _not_applying(policy: Policy, why: str) -> PolicyExplanation:
    return PolicyExplanation(policy=policy.name, kind=policy.kind, scope=policy.scope, applies=False, why_not=why)


def _applying(policy: Policy, chain: Sequence[RateStep], limit: ServiceLimit, used: int) -> PolicyExplanation:
    return PolicyExplanation(
        policy=policy.name,
        kind=policy.kind,
        scope=policy.scope,
        applies=True,
        rate=chain[0].rate,
        chain=chain,
        shadow=limit.shadow,
        used=used,
        remaining=limit.remaining,
        wait=limit.retry_after,
        refuses=limit.retry_after > 0 and not limit.shadow,
        limit=limit.limit,
        resets_at=limit.reset_at,
    )


def _chain(limiter: Limiter, compiled: CompiledPolicy, identity: Identity, place: Endpoint) -> list[RateStep]:
    counter = compiled.counter_name(limiter.resolver.named.values(identity, compiled, place))
    steps = compiled.rate_chain(identity, counter, limiter.clock())
    return [
        RateStep(source=source, rate=rate_text(amount, compiled.policy), holds=not index)
        for index, (source, amount) in enumerate(steps)
    ]


def _why_uncharged(limiter: Limiter, compiled: CompiledPolicy, identity: Identity, place: Endpoint) -> str:
    values = limiter.resolver.named.values(identity, compiled, place)
    missing = [name for name in compiled.per if not values[name]]
    if missing:
        return f"the caller has no {', no '.join(missing)}"
    switch = limiter.fleet.holding(compiled.policy.name)
    if switch is not None and switch.mode == "paused":
        return "it is paused" if switch.until is None else f"it is paused until {switch.until:%Y-%m-%d %H:%M:%S} UTC"
    source, _ = next(compiled.rate_chain(identity, compiled.counter_name(values), limiter.clock()))
    return f"it is unlimited by the {source}"


def rate_text(amount: RateOrCount | None, policy: Policy | None = None) -> str:
    """Return a rate, or a number with the period of its quota."""
    if amount is None:
        return UNLIMITED
    period = policy.period if isinstance(policy, Quota) else None
    return str(amount) if period is None else f"{amount}/{period}"


def _policy_dict(each: PolicyExplanation) -> dict[str, Any]:
    return {
        "policy": each.policy,
        "kind": each.kind,
        "scope": each.scope,
        "applies": each.applies,
        "why_not": each.why_not,
        "rate": each.rate,
        "chain": [{"source": step.source, "rate": step.rate, "holds": step.holds} for step in each.chain],
        "shadow": each.shadow,
        "used": each.used,
        "remaining": each.remaining,
        "wait": _finite(each.wait),
        "refuses": each.refuses,
    }


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds
