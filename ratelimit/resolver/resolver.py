"""The policy resolver: which policies hold at which endpoint, compiled from the settings."""

import logging
import re
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.declarations import EndpointDeclaration
from ratelimit.config.path_pattern import PathPattern, PathSelection
from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.config.settings import RateLimitSettings, policy_problems, split_entry
from ratelimit.errors import ConfigurationError
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.resolver.compiled_policy import CompiledPolicy, dimension_values
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint
from ratelimit.resolver.endpoint_policies import ChargeCache, EndpointPolicies
from ratelimit.resolver.keys import KeyBuilder, escape

logger = logging.getLogger("ratelimit")

MAX_ENDPOINTS: Final = 10_000
"""Endpoints that `PolicyResolver.endpoint` keeps: routes are few, but a caller may make up names."""

MAX_CACHED_CHARGES: Final = 4096
"""Callers at endpoints whose charges are cached."""

HASH_SUFFIX: Final = "_hash"
"""Ends the name under which a key holds the hash of a dimension's value."""

_ENDPOINT: Final = re.compile(r"\*|[A-Z]+(?:-[A-Z]+)* \S+")
_NO_DECLARATION: Final = EndpointDeclaration()


class PolicyResolver:
    """Compiles settings once and answers which policies hold at an endpoint; pure, and without a store.

    `settleable` are the names and units of the policies whose charges may be corrected afterwards. `patterns` are all
    path patterns of the settings. `endpoints`, `compiled` and `charge_cache` are caches with a bound.
    """

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        self.settleable: set[str] = set()
        self._keys = KeyBuilder(prefix=settings.key_prefix, secret=settings.secret(), hashed=settings.hashed_dimensions)
        self._sources = settings.dimension_sources
        self._overrides: dict[str, dict[str, Override]] = {}
        self._by_name: dict[str, CompiledPolicy] = {}
        self._by_name_and_label: dict[tuple[str, str], CompiledPolicy] = {}
        self.charge_cache: ChargeCache = BoundedCache(MAX_CACHED_CHARGES)
        self._policies = [(self._compile(policy), PathSelection(policy.paths)) for policy in settings.policies]
        self._exempt = [(method, PathPattern(path)) for method, path in map(split_entry, settings.exempt)]
        # Endpoints of routes that were read again are never asked for again: hence twice as many.
        self.compiled: BoundedCache[Endpoint, EndpointPolicies] = BoundedCache(2 * MAX_ENDPOINTS)
        self.endpoints: BoundedCache[tuple[str, str, tuple[str, ...]], Endpoint] = BoundedCache(MAX_ENDPOINTS)
        self._routes: dict[tuple[str, str], Endpoint] = {}
        self.patterns = tuple(self._all_patterns())

    def endpoint(self, method: str, template: str = UNMATCHED, *, matched_patterns: tuple[str, ...] = ()) -> Endpoint:
        """Return the endpoint of these names, the same one at each call."""
        key = ("GET" if method == "HEAD" else method, template, matched_patterns)
        found = self.endpoints.get(key)
        if found is None:
            found = self.endpoints[key] = Endpoint(key[0], template, matched_patterns=matched_patterns)
        return found

    def matched_patterns(self, path: str) -> tuple[str, ...]:
        """Return the patterns of the settings that match a path as it was asked for."""
        return tuple(dict.fromkeys(pattern.text for pattern in self.patterns if pattern.matches(path)))

    def route(self, method: str, template: str) -> Endpoint:
        """Return the endpoint of an app's route, with its decorators and dependencies, or else of these names alone."""
        method = "GET" if method == "HEAD" else method
        return self._routes.get((method, template)) or self.endpoint(method, template)

    def register_endpoint(
        self, method: str, template: str, *, host: str = "", declaration: EndpointDeclaration = _NO_DECLARATION
    ) -> Endpoint:
        """Return a new endpoint with the limits that decorators declared there.

        A policy name that was taken from the function is numbered (`answer`, `answer-2`) where it is already in use. A
        name that was chosen by hand and is in use, or an undeclared dimension, raises `ConfigurationError`.
        """
        taken = {policy.name for policy in self.settings.policies} | declaration.explicit_names
        limits = []
        for limit in declaration.limits:
            name = limit.name if limit.name in declaration.explicit_names else _free_name(limit.name, taken)
            taken.add(name)
            limits.append(limit if name == limit.name else limit.model_copy(update={"name": name}))
        endpoint = Endpoint(method, template, host, limits=tuple(limits), exempt=declaration.exempt)
        self._check(endpoint)
        self._routes[method, host + template] = endpoint
        for limit in endpoint.limits:  # From now on they can be named.
            self._by_name_and_label[limit.name, endpoint.label] = self._compile(limit)
        return endpoint

    def policy_named(self, policy: str, label: str = "") -> CompiledPolicy:
        """Return a policy of the settings or of a decorator (the one at the endpoint with that label).

        Raises `ConfigurationError` where there is none of that name.
        """
        found = self._by_name_and_label.get((policy, label)) or self._by_name.get(policy)
        if found is None:
            raise ConfigurationError(f"policy: {policy!r} is not one of {', '.join(sorted(self._by_name)) or 'none'}")
        return found

    def policies_at(self, endpoint: Endpoint) -> EndpointPolicies:
        """Return the policies that hold at `endpoint`."""
        found = self.compiled.get(endpoint)
        if found is None:
            found = self.compiled[endpoint] = self._resolve(endpoint)
        return found

    def charge(
        self, policy: str, identity: Identity, amount: int, now: int, *, method: str, endpoint: str
    ) -> Charge | None:
        """Return a charge of `amount` units of one named policy, whatever a request costs there."""
        place = self.endpoint(method, endpoint)
        compiled = self.policy_named(policy, place.label)
        if endpoint == UNMATCHED and "endpoint" in compiled.per:
            raise ConfigurationError(f"policy: {policy!r} is counted for each endpoint: say which, by endpoint=")
        values = {"endpoint": escape(place.label), "method": escape(place.method)}
        values |= dimension_values(identity, compiled.dimensions - values.keys(), self._keys)
        charge = compiled.charge(identity, 1, values, now, {})
        if not compiled.counter_name(values):
            logger.warning(
                "policy %r does not apply and counts nothing: the identity lacks one of %s",
                policy,
                ", ".join(compiled.per),
            )
        return None if charge is None else charge._replace(cost=amount)

    def quota_charges(self, identity: Identity, now: int, *, method: str, endpoint: str) -> list[Charge]:
        """Return one unit of each quota of the settings that applies to an identity at an endpoint."""
        names = [each.name for each in self.settings.quotas if endpoint != UNMATCHED or "endpoint" not in each.per]
        charges = [self.charge(name, identity, 1, now, method=method, endpoint=endpoint) for name in names]
        return [charge for charge in charges if charge is not None]

    def with_own_cost(self, charge: Charge, method: str, endpoint: str) -> Charge:
        """Return a charge of so many requests as one of units: each request takes the policy's own cost there."""
        compiled = self.policy_named(charge.limit.policy, self.endpoint(method, endpoint).label)
        own = 1 if compiled.has_dynamic_cost or charge.limit.kind == "concurrency" else compiled.policy.cost
        requests = 1 if charge.limit.kind == "concurrency" else charge.cost
        return charge._replace(cost=requests * own if isinstance(own, int) else requests)

    def set_overrides(self, overrides: Mapping[str, Mapping[str, Override]]) -> None:
        """Replace all overrides by these, given by policy and then by counter name."""
        for policy in self._overrides.keys() | overrides.keys():
            own, new = self._overrides.setdefault(policy, {}), overrides.get(policy, {})
            for removed in own.keys() - new.keys():
                del own[removed]
            own.update(new)
        # Charges depend on the time while an override is going to end: then none is cached.
        ending = any(override.until is not None for each in overrides.values() for override in each.values())
        self.charge_cache.max_size = 0 if ending else MAX_CACHED_CHARGES
        self.charge_cache.clear()

    def counter_name(self, policy: str, key: Mapping[str, str]) -> str:
        """Return the name of one counter of a policy, given the values of its dimensions.

        `token_hash` may replace `token`, and so for other dimensions that are hashed. Raises `ConfigurationError` where a dimension is missing, is not the policy's,
        or has no value.
        """
        compiled = self.policy_named(policy)
        names, given = {self._dimension(name) for name in key}, ", ".join(key) or "nothing"
        if names != set(compiled.per) or len(names) < len(key):
            wanted = ", ".join(compiled.per) or "nothing"
            raise ConfigurationError(f"key: {policy!r} is counted by {wanted}, got {given}")
        if not _ENDPOINT.fullmatch(key.get("endpoint", UNMATCHED)):
            endpoint = key["endpoint"]
            raise ConfigurationError(
                f"key: endpoint: {endpoint!r} is not an endpoint: write it like 'GET /v1/agents/{{id}}'"
            )
        values = {self._dimension(name): self._key_value(name, str(value)) for name, value in key.items()}
        counter = compiled.counter_name(values)
        if not counter:
            raise ConfigurationError("key: a value is empty")
        return counter

    def is_hashed(self, dimension: str) -> bool:
        """Say whether keys hold the hashes of a dimension's values."""
        return dimension in self._keys.hashed_dimensions

    def _dimension(self, name: str) -> str:
        """Return the dimension of a name in a key: `token` for `token_hash`."""
        dimension = name.removesuffix(HASH_SUFFIX)
        return dimension if self.is_hashed(dimension) else name

    def _key_value(self, name: str, value: str) -> str:
        if name != self._dimension(name):  # A hash already.
            return escape(value)
        return self._keys.value(name, value.upper() if name == "method" else value) if value else ""

    def _resolve(self, endpoint: Endpoint) -> EndpointPolicies:
        """Collect the policies of an endpoint: those of the settings that fit it, then those of its decorators."""
        fitting = [(each, bool(paths.included)) for each, paths in self._policies if paths.selects(endpoint.fits)]
        declared = [(self._compile(limit), True) for limit in endpoint.limits]
        applying = [
            (each, is_own)
            for each, is_own in (*fitting, *declared)
            if not each.policy.manual and (not each.policy.methods or endpoint.method in each.policy.methods)
        ]
        # A shadow refuses nothing, so it takes no default's place.
        own = [each.policy for each, is_own in applying if is_own and not each.policy.shadow]
        has_own = any(_is_limit(policy, default=False) for policy in own)
        return EndpointPolicies(
            [] if self._is_exempt(endpoint) else _without_defaults([each for each, _ in applying], has_own=has_own),
            self.settings.style_for(endpoint.fits),
            self._keys,
            self.charge_cache,
            label=endpoint.label,
            method=endpoint.method,
            sources=self._sources,
        )

    def _is_exempt(self, endpoint: Endpoint) -> bool:
        return endpoint.exempt or any(
            method in (None, endpoint.method) and endpoint.fits(pattern) for method, pattern in self._exempt
        )

    def _compile(self, policy: Policy) -> CompiledPolicy:
        compiled = CompiledPolicy(policy, self._keys, self._overrides.setdefault(policy.name, {}))
        self._by_name.setdefault(policy.name, compiled)
        if isinstance(policy, (Limit, Quota)):
            self.settleable |= {policy.name, policy.unit}
        return compiled

    def _check(self, endpoint: Endpoint) -> None:
        declared = self.settings.placed_policies()
        declared += [(f"@limit {limit.name!r} on {endpoint.label}: ", limit) for limit in endpoint.limits]
        for problem in policy_problems(declared, self.settings.dimensions):
            raise ConfigurationError(problem)

    def _all_patterns(self) -> Iterable[PathPattern]:
        yield from (pattern for _, pattern in self._exempt)
        for _, patterns in self._policies:
            yield from (*patterns.included, *patterns.excluded)
        for response in self.settings.path_responses:
            yield from response.patterns


def _free_name(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{n}" for n in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _without_defaults(applying: list[CompiledPolicy], *, has_own: bool) -> list[CompiledPolicy]:
    """Return the policies of an endpoint; where it has a limit of its own, without those that give way to it."""
    return [each for each in applying if not (has_own and _is_limit(each.policy, default=True))]


def _is_limit(policy: Policy, *, default: bool) -> bool:
    return isinstance(policy, Limit) and policy.default is default
