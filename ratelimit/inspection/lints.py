"""Lints: settings that are valid, and most likely not what was meant."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import permutations
from typing import Final

from ratelimit.config.fields import share_of
from ratelimit.config.path_pattern import EXCEPT, PathPattern
from ratelimit.config.policies import Limit, Policy
from ratelimit.config.settings import RateLimitSettings, split_entry
from ratelimit.model.calendar_period import NOMINAL
from ratelimit.model.rate import Rate
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import PolicyResolver

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SIMILAR: Final = 0.85
"""How alike two names of plans are where one of them is likely a spelling mistake."""


def lint(settings: RateLimitSettings) -> Iterator[str]:
    """Yield what is suspicious in settings by themselves: messages with their codes at the end."""
    for each in _LINTS:
        yield from each(settings)


def lint_routes(resolver: PolicyResolver, endpoints: Iterable[Endpoint]) -> Iterator[str]:
    """Yield what is suspicious about the routes of an app under its settings."""
    for endpoint in endpoints:
        policies = resolver.policies_at(endpoint)
        if not (policies.is_exempt or policies.policies):
            yield f"route {endpoint.label} has no limit and is not exempt [RL610]"


def most_keys(resolver: PolicyResolver, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    """Yield how many keys the dearest request charges, by the routes, or by the paths of the settings."""
    places = list(endpoints) or [
        resolver.endpoint(method, matched_patterns=patterns)
        for method in _METHODS
        for patterns in [(), *(resolver.matched_patterns(each.text) for each in resolver.patterns)]
    ]
    dearest = max(places, key=lambda place: len(resolver.policies_at(place).policies))
    keys = len(resolver.policies_at(dearest).policies)
    if keys:
        yield f"a request charges {keys} key{'s' * (keys > 1)} at most, at {dearest.label}, in one script call [RL615]"


def _limits(settings: RateLimitSettings) -> list[Limit]:
    return [limit for limit in settings.limits if not (limit.shadow or limit.manual)]


def _never_binding(settings: RateLimitSettings) -> Iterator[str]:
    for limit, other in permutations(_limits(settings), 2):
        is_pair = _is_plain(limit) and _is_plain(other) and _alike(limit, other) and _holds_wherever(other, limit)
        if is_pair and _bound(other, limit.rate) <= limit.rate.limit and not _is_later_twin(other, limit, settings):
            yield f"limit {limit.name!r} ({limit.rate}) never refuses: {other.name!r} ({other.rate}) always does before [RL609]"


def _tokens_above_organizations(settings: RateLimitSettings) -> Iterator[str]:
    for token, org in permutations(_limits(settings), 2):
        is_pair = token.per == ("token",) and org.per == ("org",) and not (token.plans or org.shares or org.schedule)
        is_pair = is_pair and (token.unit, token.cost, token.refund_on) == (org.unit, org.cost, org.refund_on)
        rates = [org.rate, *org.plans.values()]
        if is_pair and _holds_wherever(org, token) and None not in rates:
            most = max(_bound(org, token.rate, rate) for rate in rates if rate is not None)
            if most < token.rate.limit:
                yield f"limit {token.name!r} ({token.rate}) is above that of its organization, {org.name!r} [RL611]"


def _quotas_below_rates(settings: RateLimitSettings) -> Iterator[str]:
    for quota in settings.quotas:
        seconds = NOMINAL[quota.period] if quota.period else 0
        for limit in _limits(settings):
            if seconds and limit.per == quota.per and limit.unit == quota.unit and isinstance(limit.cost, int):
                used_after = quota.limit * limit.rate.period / limit.rate.limit
                if used_after < seconds and _holds_wherever(quota, limit):
                    yield (
                        f"quota {quota.name!r} is used up after {used_after / 3600:.1f} h at the full rate of {limit.name!r} [RL612]"
                    )


def _similar_plans(settings: RateLimitSettings) -> Iterator[str]:
    known: dict[str, str] = {}
    for policy in settings.policies:
        for plan in policy.by_plan:
            alike = get_close_matches(plan, known.keys() - set(policy.by_plan), 1, _SIMILAR)
            if alike and plan not in known:
                first = known[alike[0]]
                yield f"{policy.kind} {policy.name!r}: plan {plan!r} is called {alike[0]!r} in {first!r} [RL616]"
            known.setdefault(plan, policy.name)


def _in_shadow(settings: RateLimitSettings) -> Iterator[str]:
    for policy in settings.policies:
        if policy.shadow:
            yield f"{policy.kind} {policy.name!r} is in shadow and refuses nothing [RL617]"


def _exempt_paths(settings: RateLimitSettings) -> Iterator[str]:
    exempt = [PathPattern(path) for method, path in map(split_entry, settings.exempt) if method is None]
    for policy in settings.policies:
        included = [path for path in policy.paths if not path.startswith(EXCEPT)]
        if included and all(any(pattern.matches(path) for pattern in exempt) for path in included):
            yield f"{policy.kind} {policy.name!r} never holds: all of its paths are exempt [RL618]"


def _unused_dimensions(settings: RateLimitSettings) -> Iterator[str]:
    used = {dimension for policy in settings.policies for dimension in policy.per}
    for dimension in settings.dimensions:
        if dimension not in used:
            yield f"dimension {dimension!r} is counted by no policy of the settings [RL619]"


def _lost_bursts(settings: RateLimitSettings) -> Iterator[str]:
    for limit in settings.limits:
        if limit.burst and not share_of(limit.rate.limit, limit.burst):
            yield f"limit {limit.name!r}: a burst of {limit.burst:g} of {limit.rate.limit} is not even one request [RL620]"


def _alike(one: Limit, other: Limit) -> bool:
    """Say whether two limits count the same units of the same callers."""
    return one.per == other.per and one.unit == other.unit and not (one.refund_on or other.refund_on)


def _is_plain(limit: Limit) -> bool:
    return not (limit.plans or limit.shares or limit.schedule or limit.default or limit.key) and limit.cost == 1


def _holds_wherever(general: Policy, special: Policy) -> bool:
    """Say whether one policy holds at every endpoint where another does."""
    by_method = not general.methods or bool(special.methods and set(special.methods) <= set(general.methods))
    return by_method and (not general.paths or set(general.paths) == set(special.paths))


def _bound(limit: Limit, during: Rate, rate: Rate | None = None) -> int:
    """Return the most that a limit admits during the period of another rate."""
    own = rate or limit.rate
    return math.ceil(during.period / own.period) * own.limit + share_of(own.limit, limit.burst)


def _is_later_twin(other: Limit, limit: Limit, settings: RateLimitSettings) -> bool:
    """Say whether two limits are the same, and the other one was declared later: then it is that which is superfluous."""
    order = [each.name for each in settings.limits]
    is_twin = _holds_wherever(limit, other) and _bound(limit, other.rate) <= other.rate.limit
    return is_twin and order.index(other.name) > order.index(limit.name)


_LINTS: Final[Sequence[Callable[[RateLimitSettings], Iterator[str]]]] = (
    _never_binding,
    _tokens_above_organizations,
    _quotas_below_rates,
    _similar_plans,
    _in_shadow,
    _exempt_paths,
    _unused_dimensions,
    _lost_bursts,
)
