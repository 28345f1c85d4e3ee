"""Precedence: why a policy does not hold at an endpoint, and which limits give way to others there."""

from collections.abc import Sequence

from ratelimit.config.path_pattern import PathSelection
from ratelimit.config.policies import Limit, Policy
from ratelimit.resolver.compiled_policy import CompiledPolicy
from ratelimit.resolver.endpoint import Endpoint


def why_not_at(policy: Policy, endpoint: Endpoint, paths: PathSelection) -> str:
    """Return why a policy with these paths does not hold at an endpoint; empty where it does."""
    if policy.manual:
        return "it is charged by its name alone"
    if policy.methods and endpoint.method not in policy.methods:
        return f"it holds for {', '.join(policy.methods)} alone"
    return "" if paths.selects(endpoint.fits) else f"its paths do not include {endpoint.label}"


def gives_way(policy: Policy, own: Sequence[str]) -> str:
    """Return why a default limit does not hold where the endpoint has limits of its `own`; empty where it does."""
    if own and is_limit(policy, default=True):
        return f"it gives way to {own[0]!r}, a limit of the endpoint's own"
    return ""


def refuses(compiled: CompiledPolicy) -> bool:
    """Say whether a policy refuses requests: a shadow does not, nor one that is paused."""
    return not compiled.policy.shadow and compiled.mode == "enforced"


def is_limit(policy: Policy, *, default: bool) -> bool:
    """Say whether a policy is a `Limit` that is a default one, or is none."""
    return isinstance(policy, Limit) and policy.default is default
