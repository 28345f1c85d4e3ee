"""What the tests of the resolver share: a resolver of some limits, and the charges of a caller."""

from collections.abc import Sequence
from typing import Any

from ratelimit import Identity, RateLimitSettings
from ratelimit.model.charge import Charge
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.resolver import PolicyResolver


def resolver_of(*limits: dict[str, Any], **settings: Any) -> PolicyResolver:
    """Return the resolver of these limits, which are named `p0`, `p1` and so on."""
    named = [{"name": f"p{i}", "rate": "10/minute", **one} for i, one in enumerate(limits)]
    return PolicyResolver(RateLimitSettings.model_validate({"limits": named, **settings}))


def policies_of(*limits: dict[str, Any], **settings: Any) -> EndpointPolicies:
    """Return the policies of the endpoint `GET /x` under these limits."""
    resolver = resolver_of(*limits, **settings)
    return resolver.policies_at(resolver.endpoint("GET", "/x"))


def charges_of(
    resolver: PolicyResolver, identity: Identity, method: str = "GET", path: str = "/x", **more: Any
) -> Sequence[Charge]:
    return resolver.policies_at(resolver.endpoint(method, path)).charges(identity, **more)


def applied(resolver: PolicyResolver, identity: Identity, method: str = "GET", path: str = "/x") -> list[str]:
    """Return the names of the policies that charge a request."""
    return [charge.limit.policy for charge in charges_of(resolver, identity, method, path)]
