"""What a caller may know of itself: what it has left of its limits, and has used of its quotas."""

from collections.abc import Sequence

from ratelimit.errors import StoreUnavailable
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.model.kinds import GLOBAL
from ratelimit.model.quota_usage import QuotaUsage
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.resolver.endpoint import UNMATCHED


async def limits_of_caller(
    limiter: Limiter, identity: Identity, method: str = "GET", endpoint: str | None = None
) -> Sequence[ServiceLimit]:
    """Return the limits at an endpoint, by default all that count by caller and not by endpoint.

    Quotas, shadows and the capacity of the service are left out. Raises `StoreError`.
    """
    names = limiter.resolver.named.of_a_caller(identity) if endpoint is None else None
    seen = await limiter.look(identity, method=method, endpoint=endpoint or UNMATCHED, policies=names)
    if seen.degraded:  # This worker alone does not know what is left.
        raise StoreUnavailable("the store is unavailable [RL404]")
    return [each for each in seen.limits if not (each.is_capacity or each.shadow or each.kind == "quota")]


async def quotas_of_caller(limiter: Limiter, identity: Identity) -> Sequence[QuotaUsage]:
    """Return the quotas, but for shadows and the capacity of the service; raises `StoreError`."""
    hidden = {quota.name for quota in limiter.settings.quotas if quota.scope == GLOBAL or quota.shadow}
    return [each for each in await limiter.usage(identity) if each.policy not in hidden]
