"""The policies of one endpoint, and the charges that a request makes there."""

from collections.abc import Mapping, Sequence
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.dimension_sources import DimensionSource
from ratelimit.config.policies import Policy
from ratelimit.config.response_style import ResponseStyle
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.resolver.compiled_policy import CompiledPolicy, dimension_values
from ratelimit.resolver.keys import KeyBuilder, escape

ChargeCache = BoundedCache[tuple[object, ...], Sequence[Charge]]
"""The charges of callers at endpoints. Any change to overrides must clear it."""

_NONE: Final[Mapping[str, DimensionSource]] = {}
_MAX_CACHED_KEY: Final = 256
"""Characters of an identity whose charges are cached: callers choose them, but not how much memory they take."""


class EndpointPolicies:
    """What holds at one endpoint: its policies, compiled, and the style of its responses.

    `dynamic_cost_policies` have a cost that a function of the request tells. `has_concurrency` says that requests hold
    permits; `is_exempt`, that nothing is counted here; `sources` are those of the dimensions that count here, or by
    name anywhere; `reads_request`, that these or the costs need the request;
    `needs_settlement`, that something of them may be given back when the response is known.
    """

    def __init__(
        self,
        compiled: Sequence[CompiledPolicy],
        style: ResponseStyle,
        keys: KeyBuilder,
        cache: ChargeCache,
        *,
        label: str,
        method: str,
        is_exempt: bool,
        sources: Mapping[str, DimensionSource],
        manual_sources: Mapping[str, DimensionSource] = _NONE,
    ) -> None:
        self.compiled = tuple(compiled)
        self.policies = tuple(each.policy for each in compiled)
        self.dynamic_cost_policies = tuple(each.policy for each in compiled if each.has_dynamic_cost)
        self.has_concurrency = any(policy.kind == "concurrency" for policy in self.policies)
        self.needs_settlement = self.has_concurrency or any(policy.refund_on for policy in self.policies)
        self.style, self.is_exempt = style, is_exempt
        self._keys, self._cache = keys, cache
        self._has_schedule = any(policy.schedule for policy in self.policies)
        self._fixed = {"endpoint": escape(label), "method": escape(method)}
        self._dimensions = sorted(set[str]().union(*(each.dimensions for each in compiled)) - self._fixed.keys())
        keyed = {policy.name: policy.key for policy in self.policies}
        found = {name: sources.get(name) or keyed.get(name) for name in self._dimensions}
        self.sources = {**manual_sources, **{name: source for name, source in found.items() if source is not None}}
        self.reads_request = bool(self.sources or self.dynamic_cost_policies)

    def charges(
        self,
        identity: Identity,
        cost: int = 1,
        *,
        now: int = 0,
        already_charged: Sequence[Policy] = (),
        dynamic_costs: Mapping[str, int] | None = None,
    ) -> Sequence[Charge]:
        """Return what one request of `identity` is charged, in the order in which the policies were declared.

        `now` is in epoch microseconds, for schedules and overrides. `already_charged` are policies that an outer limiter
        has charged for this request. `dynamic_costs` are the results of cost functions for this request, by policy.
        """
        usual = cost == 1 and dynamic_costs is None and not already_charged and not identity.rates
        if not usual or self._has_schedule:
            return self._make(identity, cost, now, already_charged, dynamic_costs or {})
        token, more = identity.token, identity.dimensions
        caller = (token, identity.org, identity.ip, identity.plan, identity.priority)
        cache, cache_key = self._cache, (self, *caller, *more.items()) if more else (self, *caller)
        charges = cache.get(cache_key)
        if charges is None:
            generation = cache.generation
            charges = self._make(identity, cost, now, (), {})
            if generation == cache.generation and sum(map(len, map(str, cache_key[1:]))) <= _MAX_CACHED_KEY:
                cache[cache_key] = charges
        return charges

    def _make(
        self,
        identity: Identity,
        cost: int,
        now: int,
        already_charged: Sequence[Policy],
        dynamic_costs: Mapping[str, int],
    ) -> Sequence[Charge]:
        values = {**self._fixed, **dimension_values(identity, self._dimensions, self._keys)}
        charges = []
        for each in self.compiled:
            if not already_charged or each.policy not in already_charged:
                charge = each.charge(identity, cost, values, now, dynamic_costs)
                if charge is not None:
                    charges.append(charge)
        return charges
