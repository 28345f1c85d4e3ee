"""What is probably not meant, said once in the log when the app starts."""

import logging
from collections.abc import Iterator, Sequence

from ratelimit.http.route_index import METHODS, Index
from ratelimit.plan import Endpoint
from ratelimit.policy import Policy
from ratelimit.settings import RateLimitSettings, split_entry
from ratelimit.style import PathPattern

logger = logging.getLogger("ratelimit")


def log_advice(settings: RateLimitSettings, index: Index | None, *, own_identify: bool) -> None:
    """Warn of settings that can never apply: they are allowed, but somebody expects something of them."""
    declared = [limit for endpoint in index.endpoints() for limit in endpoint.limits] if index is not None else []
    advice = [*_for_everybody(settings)] + (
        [] if own_identify else [*_without_identity([*settings.policies, *declared])]
    )
    if index is not None:
        advice += [*_without_route(settings, index.endpoints()), *_without_limits(settings, index)]
    for line in dict.fromkeys(advice):
        logger.warning("%s", line)


def _for_everybody(settings: RateLimitSettings) -> Iterator[str]:
    for quota in settings.quotas:
        if not quota.per:
            yield f"quota {quota.name!r} is one for everybody together, since per is empty: it is answered as capacity"


def _without_identity(policies: Sequence[Policy]) -> Iterator[str]:
    for policy in policies:
        if unknown := sorted({*policy.per} - {"token", "ip", "endpoint", "method"}):
            names = ", ".join(unknown)
            yield f"{policy.kind} {policy.name!r} never applies: nobody has {names}, hand in an identify that knows"


def _without_route(settings: RateLimitSettings, endpoints: list[Endpoint]) -> Iterator[str]:
    for entry in settings.exempt:
        method, path = split_entry(entry)
        if not any(each.fits(PathPattern(path)) and method in (None, each.method) for each in endpoints):
            yield f"exempt {entry!r} fits no route"
    for response in settings.path_responses:
        for path in response.paths:
            if not any(each.fits(PathPattern(path)) for each in endpoints):
                yield f"responses: {path!r} fits no route"
    for policy in settings.policies:
        yield from _policy_without_route(policy, endpoints)


def _policy_without_route(policy: Policy, endpoints: list[Endpoint]) -> Iterator[str]:
    for path in policy.paths:
        if not any(each.fits(PathPattern(path)) for each in endpoints):
            yield f"{policy.kind} {policy.name!r}: path {path!r} fits no route; write it like the route, with its parameters"
    for method in policy.methods:
        if method not in METHODS and not any(each.method == method for each in endpoints):
            yield f"{policy.kind} {policy.name!r}: no route has the method {method}"


def _without_limits(settings: RateLimitSettings, index: Index) -> Iterator[str]:
    if not settings.policies and not any(endpoint.limits for endpoint in index.endpoints()):
        yield "nothing is limited: there are no limits in the settings and no decorators on the routes"
