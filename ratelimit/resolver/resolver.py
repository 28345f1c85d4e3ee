"""The policy resolver: which policies hold at which endpoint, compiled from the settings."""

import logging
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.declarations import EndpointDeclaration
from ratelimit.config.dimension_sources import DimensionSource
from ratelimit.config.path_pattern import PathPattern, PathSelection
from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.config.settings import RateLimitSettings, policy_problems, split_entry
from ratelimit.errors import ConfigurationError
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.resolver.compiled_policy import CompiledPolicy, Mode
from ratelimit.resolver.counted_periods import CountedPeriods
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint
from ratelimit.resolver.endpoint_policies import ChargeCache, EndpointPolicies
from ratelimit.resolver.keys import KeyBuilder
from ratelimit.resolver.named_policies import NamedPolicies
from ratelimit.resolver.precedence import gives_way, is_limit, refuses, why_not_at

logger = logging.getLogger("ratelimit")

MAX_ENDPOINTS: Final = 10_000
"""Endpoints that `PolicyResolver.endpoint` keeps: routes are few, but a caller may make up names."""

MAX_ENDPOINT_LENGTH: Final = 1000
"""Characters of a method and a template that are kept."""

MAX_CACHED_CHARGES: Final = 4096
"""Callers at endpoints whose charges are cached."""

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
"""Methods that name a counter even where the route did not declare them; all other methods share one counter."""

_NO_DECLARATION: Final = EndpointDeclaration()
_EVERYWHERE: Final = PathSelection(())


class PolicyResolver:
    """Compiles settings once and answers which policies hold at an endpoint; pure, and without a store.

    `settleable` are the names and units of the policies whose charges may be corrected afterwards. `sources` are those of
    dimensions, `patterns` all path patterns of the settings, `named` the policies by their names. `endpoints`, `compiled` and `charge_cache` are caches with a bound.
    """

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        self.settleable: set[str] = set()
        self._keys = KeyBuilder(
            prefix=settings.key_prefix,
            secret=settings.secret(),
            hashed=settings.hashed_dimensions,
            partitions=settings.partitions,
        )
        self.sources = settings.dimension_sources
        self._overrides: dict[str, dict[str, Override]] = {}
        self._periods: dict[str, CountedPeriods] = {}
        masks = getattr(settings.statistics, "mask_addresses", True)
        self.named = NamedPolicies(self._keys, self.endpoint, masks_addresses=masks)
        self._modes: dict[str, Mode] = {}
        self._mode: Mode = "enforced"
        self.charge_cache: ChargeCache = BoundedCache(MAX_CACHED_CHARGES)
        self._policies = [(self._compile(policy), PathSelection(policy.paths)) for policy in settings.policies]
        self._exempt = [(method, PathPattern(path)) for method, path in map(split_entry, settings.exempt)]
        # Endpoints of routes that were read again are never asked for again: hence twice as many.
        self.compiled: BoundedCache[Endpoint, EndpointPolicies] = BoundedCache(2 * MAX_ENDPOINTS)
        self.endpoints: BoundedCache[tuple[str, str, tuple[str, ...]], Endpoint] = BoundedCache(MAX_ENDPOINTS)
        self.routes: dict[tuple[str, str], Endpoint] = {}
        self._declared: list[tuple[str, str, str, EndpointDeclaration]] = []
        self.generation = 0
        """Counts the reloads: endpoints that were found before one are found again."""
        self.patterns = tuple(self._all_patterns())

    def endpoint(self, method: str, template: str = UNMATCHED, *, matched_patterns: tuple[str, ...] = ()) -> Endpoint:
        """Return the endpoint of these names, the same one at each call."""
        key = ("GET" if method == "HEAD" else method, template, matched_patterns)
        found = self.endpoints.get(key)
        if found is None:
            found = Endpoint(key[0], template, matched_patterns=matched_patterns)
            if len(method) + len(template) <= MAX_ENDPOINT_LENGTH:
                self.endpoints[key] = found
        return found

    def knows(self, method: str, template: str) -> bool:
        """Say whether an app's route has this template, or the settings name it."""
        method = "GET" if method.upper() == "HEAD" else method.upper()
        return (method, template) in self.routes or template in {UNMATCHED, *(each.text for each in self.patterns)}

    def matched_patterns(self, path: str) -> tuple[str, ...]:
        """Return the patterns of the settings that match a path as it was asked for."""
        return tuple(dict.fromkeys(pattern.text for pattern in self.patterns if pattern.matches(path)))

    def route(self, method: str, template: str) -> Endpoint:
        """Return the endpoint of an app's route, with its decorators and dependencies, or else of these names alone."""
        method = "GET" if method == "HEAD" else method
        return self.routes.get((method, template)) or self.endpoint(method, template)

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
        self.routes[method, host + template] = endpoint
        if (declared := (method, template, host, declaration)) not in self._declared:
            self._declared.append(declared)
        for limit in endpoint.limits:  # From now on they can be named.
            self.named.add(self._compile(limit), endpoint.label)
        return endpoint

    def policies_at(self, endpoint: Endpoint) -> EndpointPolicies:
        """Return the policies that hold at `endpoint`."""
        found = self.compiled.get(endpoint)
        if found is None:
            found = self._resolve(endpoint)
            if len(endpoint.method) + len(endpoint.template) <= MAX_ENDPOINT_LENGTH:
                self.compiled[endpoint] = found
        return found

    def counters(self, identity: Identity, now: int, policy: str | None = None) -> tuple[list[list[str]], list[Charge]]:
        """Return the keys of each counter of windows that an identity has at the endpoints known here, and its quotas.

        Quotas as charges at `now` (epoch µs). Without a `policy` by its name, of those that time gives back and that not
        all callers, or all of a plan, share; a wrong name raises `ConfigurationError`.
        """
        if policy is not None:
            self.named.get(policy)
        counters, quotas = dict[str, list[str]](), dict[str, Charge]()
        for place, each in self._places():
            if each.is_of_a_caller and each.turns_over if policy is None else each.policy.name == policy:
                values = self.named.values(identity, each, place)
                charge = each.any_charge(identity, values, now) if each.policy.kind == "quota" else None
                if charge is not None:
                    quotas[charge.key] = charge
                elif each.policy.kind != "quota":
                    counters.update({keys[0]: keys for keys in [each.keys(identity, values)] if keys})
        return list(counters.values()), list(quotas.values())

    def _places(self) -> Iterable[tuple[Endpoint, CompiledPolicy]]:
        """Yield all policies with the endpoints at which they are known to count."""
        anywhere = self.endpoint("GET")
        yield from ((anywhere, each) for each, _ in self._policies if not {"endpoint", "method"} & set(each.per))
        named = (self.endpoint(method, matched_patterns=(each.text,)) for method in METHODS for each in self.patterns)
        unmatched = (self.endpoint(method) for method in METHODS)
        for endpoint in dict.fromkeys([*self.routes.values(), *named, *unmatched, *self.compiled]):
            yield from ((endpoint, each) for each in self.policies_at(endpoint).compiled)

    def quota_charges(self, identity: Identity, now: int, *, method: str, endpoint: str) -> list[Charge]:
        """Return one unit of each quota of the settings that applies to an identity at an endpoint."""
        names = [each.name for each in self.settings.quotas if endpoint != UNMATCHED or "endpoint" not in each.per]
        charges = [self.named.charge(name, identity, 1, now, method=method, endpoint=endpoint) for name in names]
        return [charge for charge in charges if charge is not None]

    def set_overrides(self, overrides: Mapping[str, Mapping[str, Override]]) -> None:
        """Replace all overrides by these, given by policy and then by counter name."""
        for policy in self._overrides.keys() | overrides.keys():
            own, new = self._overrides.setdefault(policy, {}), overrides.get(policy, {})
            for removed in own.keys() - new.keys():
                del own[removed]
            own.update(new)
            self._periods_of(policy).hold(new)
        # Charges depend on the time while an override is going to end: then none is cached.
        ending = any(override.until is not None for each in overrides.values() for override in each.values())
        self.charge_cache.max_size = 0 if ending else MAX_CACHED_CHARGES
        self.charge_cache.clear()

    def set_modes(self, modes: Mapping[str, Mode], everywhere: Mode = "enforced") -> None:
        """Replace the modes of all policies: those that are named by theirs, all others by `everywhere`."""
        if (modes, everywhere) != (self._modes, self._mode):
            self._modes, self._mode = dict(modes), everywhere
            for each in [*self.named.compiled(), *(compiled for compiled, _ in self._policies)]:
                each.set_mode(modes.get(each.policy.name, everywhere))
            self.compiled.clear()  # Decorated limits are compiled again.
            self.charge_cache.clear()

    def selection(self, endpoint: Endpoint) -> list[tuple[CompiledPolicy, str]]:
        """Return every policy of the settings and of the endpoint's decorators, with why it does not hold there.

        An empty reason says that it does.
        """
        is_exempt = self._is_exempt(endpoint)
        found = [
            (each, bool(paths.included), why_not_at(each.policy, endpoint, paths)) for each, paths in self._policies
        ]
        found += [(self._compile(each), True, why_not_at(each, endpoint, _EVERYWHERE)) for each in endpoint.limits]
        # A shadow refuses nothing, so it takes no default's place.
        own = [each.policy for each, is_own, why_not in found if is_own and not why_not and refuses(each)]
        names = [policy.name for policy in own if is_limit(policy, default=False)]
        return [
            (each, "the endpoint is exempt" if is_exempt else why_not or gives_way(each.policy, names))
            for each, _, why_not in found
        ]

    def reload(self, settings: RateLimitSettings, now_ms: int) -> None:
        """Resolve by other settings from `now_ms` on, in one step; requests that have their charges go on with them.

        Overrides, modes and the limits of decorators stay. Where these do not go with the settings, `ConfigurationError` is
        raised and nothing is changed.
        """
        fresh = PolicyResolver(settings)
        for method, template, host, declaration in self._declared:
            fresh.register_endpoint(method, template, host=host, declaration=declaration)
        fresh.set_modes(self._modes, self._mode)
        for name, periods in self._periods.items():
            fresh._periods_of(name).adopt(periods, now_ms)
        fresh.set_overrides(self._overrides)
        fresh.generation = self.generation + 1
        self.settleable |= fresh.settleable  # Those that settle have this very set.
        fresh.settleable = self.settleable
        vars(self).update(vars(fresh))

    def _resolve(self, endpoint: Endpoint) -> EndpointPolicies:
        """Collect the policies of an endpoint: those of the settings that fit it, then those of its decorators."""
        is_exempt = self._is_exempt(endpoint)
        return EndpointPolicies(
            [each for each, why_not in self.selection(endpoint) if not why_not],
            self.settings.style_for(endpoint.fits),
            self._keys,
            self.charge_cache,
            label=endpoint.label,
            method=endpoint.method,
            is_exempt=is_exempt,
            sources=self.sources,
            manual_sources={} if is_exempt else self._manual_sources(),
        )

    def _manual_sources(self) -> dict[str, DimensionSource]:
        """Return the sources of the policies that are charged by name: anything may name them while a request runs."""
        manual = [policy for policy in self.settings.policies if policy.manual]
        keys = {policy.name: policy.key for policy in manual if policy.key is not None}
        named = {dimension for policy in manual for dimension in policy.per}
        return {**{name: source for name, source in self.sources.items() if name in named}, **keys}

    def all_sources(self) -> dict[str, DimensionSource]:
        """Return the sources of all dimensions, and those of `key`, by the names of their policies."""
        keys = {policy.name: policy.key for policy in self.settings.policies if policy.key is not None}
        return {**self.sources, **keys}

    def _is_exempt(self, endpoint: Endpoint) -> bool:
        return endpoint.exempt or any(
            method in (None, endpoint.method) and endpoint.fits(pattern) for method, pattern in self._exempt
        )

    def _compile(self, policy: Policy) -> CompiledPolicy:
        overrides, periods = self._overrides.setdefault(policy.name, {}), self._periods_of(policy.name)
        compiled = CompiledPolicy(policy, self._keys, overrides, periods)
        compiled.set_mode(self._modes.get(policy.name, self._mode))
        self.named.add(compiled)
        if isinstance(policy, (Limit, Quota)):
            self.settleable |= {policy.name, policy.unit}
        return compiled

    def _periods_of(self, policy: str) -> CountedPeriods:
        return self._periods.setdefault(policy, CountedPeriods(self.charge_cache.clear))

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
