"""The settings, compiled: from an identity and an endpoint to the charges that one request makes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, count
from typing import Final

from ratelimit.decision import NEVER, Charge, Terms
from ratelimit.decorators import Declared
from ratelimit.errors import ConfigurationError
from ratelimit.identity import Identity
from ratelimit.keys import Keys, escape
from ratelimit.policy import Limit
from ratelimit.rate import Rate
from ratelimit.settings import PathPattern, RateLimitSettings, ResponseStyle, policy_problems, split_entry

UNKNOWN: Final = "*"
"""The template of every path that no route matches."""

_MOST_TERMS: Final = 4096
"""Granted rates that are remembered per policy; beyond that they are made anew."""

_MOST_ENDPOINTS: Final = 10_000
"""Endpoints that `Plan.endpoint` remembers: routes are few, but a caller may make up names."""

_NOTHING: Final = Declared()
_ATTRIBUTES: Final = ("org", "ip", "plan")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A method and a route template, with the limits that decorators declared there; compared by identity.

    `host` is the template of the `Host` route above it, if any. `fitting` are the patterns of the settings that fit a
    path which no route matches: the first of them names it, and all of them mean it. `whole` is the template in the
    app around a mounted one. HEAD is GET here.
    """

    method: str = "GET"
    template: str = UNKNOWN
    host: str = ""
    fitting: tuple[str, ...] = ()
    whole: str = ""
    limits: tuple[Limit, ...] = ()
    exempt: bool = False

    @cached_property
    def label(self) -> str:
        """What one counter of scope `endpoint` belongs to: `POST /v1/agents/{id}`, or `*` for all unknown paths."""
        name = self.whole or self.host + (self.fitting[0] if self.fitting else self.template)
        return UNKNOWN if name == UNKNOWN else f"{self.method} {name}"

    def fits(self, pattern: PathPattern) -> bool:
        """Say whether a path pattern of the settings means this endpoint, with or without its host or mount."""
        if self.fitting:
            return pattern.text in self.fitting
        names = {self.template, self.host + self.template, self.whole} - {""}
        return any(pattern(name) for name in names)


class Rule:
    """One policy, compiled: everything about it that depends neither on who asks nor on the endpoint."""

    def __init__(self, policy: Limit, keys: Keys) -> None:
        self.policy = policy
        self._head = f"{keys.prefix}:{{"
        self._per, self._cost = policy.per, policy.cost
        # All keys of one tenant live in one slot of a Cluster. A token belongs to one organization, so its counters
        # may go there too; an address or an endpoint is shared by many and must have one counter wherever it shows up.
        self._by_org = "org" in policy.per or "token" in policy.per
        self._terms: dict[Rate, tuple[Terms, str]] = {}
        self._usual = self._terms_of(policy.rate)

    @property
    def dimensions(self) -> set[str]:
        """What must be known of an identity."""
        return {*self._per, "org"} if self._by_org else set(self._per)

    def charge(self, identity: Identity, cost: int, values: Mapping[str, str]) -> Charge | None:
        """Return what this policy charges `identity`, or `None` where it does not apply to it.

        `values` are those of all `dimensions`, ready for keys, and empty where they are not known.
        """
        usual = self._usual if identity.plan is None and not identity.rates else self._of(identity)
        if usual is None:
            return None
        terms, middle = usual
        first = named = values[self._per[0]] if self._per else "*"
        if len(self._per) > 1:
            several = [values[dimension] for dimension in self._per]
            named = "" if "" in several else ":".join(several)
        if not named:
            return None
        partition = (values["org"] if self._by_org else "") or first
        cost *= self._cost
        return Charge(terms, f"{self._head}{partition}{middle}{named}", min(NEVER, cost))

    def _of(self, identity: Identity) -> tuple[Terms, str] | None:
        policy = self.policy
        rate: Rate | None = identity.granted(policy.name)
        if rate is None:
            rate = policy.plans.get(identity.plan, policy.rate) if identity.plan is not None else policy.rate
        return None if rate is None else self._terms.get(rate) or self._terms_of(rate)

    def _terms_of(self, rate: Rate) -> tuple[Terms, str]:
        if len(self._terms) >= _MOST_TERMS:
            self._terms.clear()
        policy = self.policy
        # The shortest decimal of the float is what was written: 0.29 of 100 is 29, although 0.29 * 100 < 29.
        allowance = math.floor(rate.limit * Fraction(repr(policy.burst)))
        terms = Terms(
            "limit",
            policy.name,
            policy.scope,
            rate,
            allowance,
            policy.shadow,
            policy.on_store_failure,
            policy.code,
            policy.detail,
        )
        self._terms[rate] = terms, f"}}:{escape(policy.name)}:{rate.period}:"
        return self._terms[rate]


class Rules:
    """What holds at one endpoint: its policies, compiled, and the style of its answers."""

    def __init__(self, endpoint: Endpoint, rules: Sequence[Rule], style: ResponseStyle, keys: Keys) -> None:
        self.rules = tuple(rules)
        self.policies = tuple(rule.policy for rule in rules)
        self.style = style
        self._keys = keys
        self._fixed = {"endpoint": escape(endpoint.label), "method": escape(endpoint.method)}
        self._dimensions = sorted(set[str]().union(*(rule.dimensions for rule in self.rules)) - self._fixed.keys())

    def charges(self, identity: Identity, cost: int = 1, *, beside: Sequence[Limit] = ()) -> list[Charge]:
        """Return what one request of `identity` is charged, in the order in which the policies were declared.

        `beside` are policies that an outer limiter has already charged for this request.
        """
        values = self._fixed.copy()
        for dimension in self._dimensions:
            values[dimension] = self._value(identity, dimension)
        charges = []
        for rule in self.rules:
            if not beside or rule.policy not in beside:
                charge = rule.charge(identity, cost, values)
                if charge is not None:
                    charges.append(charge)
        return charges

    def _value(self, identity: Identity, dimension: str) -> str:
        if dimension == "token":
            return self._keys.hashed(identity.token) if identity.token else ""
        own = dimension in _ATTRIBUTES
        value = getattr(identity, dimension) if own else identity.dimensions.get(dimension)
        return "" if value is None or value == "" else escape(value)


class Plan:
    """Compiles settings once and answers what holds at an endpoint; pure, and without a store."""

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        self._keys = Keys(prefix=settings.key_prefix, secret=settings.secret())
        self._limits = [(Rule(policy, self._keys), _patterns(policy.paths)) for policy in settings.limits]
        self._exempt = [(method, PathPattern(path)) for method, path in map(split_entry, settings.exempt)]
        self._rules: dict[Endpoint, Rules] = {}
        self._endpoints: dict[tuple[str, str, tuple[str, ...]], Endpoint] = {}
        self.patterns = tuple(self._all_patterns())

    def endpoint(self, method: str, template: str = UNKNOWN, *, fitting: tuple[str, ...] = ()) -> Endpoint:
        """Return the endpoint of these names, always the same one."""
        key = ("GET" if method == "HEAD" else method, template, fitting)
        found = self._endpoints.get(key)
        if found is None:
            if len(self._endpoints) >= _MOST_ENDPOINTS:
                self._endpoints.clear()
                self._rules.clear()
            found = self._endpoints[key] = Endpoint(key[0], template, fitting=fitting)
        return found

    def declare(self, method: str, template: str, *, host: str = "", said: Declared = _NOTHING) -> Endpoint:
        """Return a new endpoint with the limits that decorators declared there.

        A name that was taken from the function gives way (`answer`, `answer-2`) where it is already in use; one that
        was chosen by hand, or a dimension that nobody declared, raises `ConfigurationError`.
        """
        taken = {policy.name for policy in self.settings.limits} | said.named
        limits = []
        for one in said.limits:
            name = one.name if one.name in said.named else _free_name(one.name, taken)
            taken.add(name)
            limits.append(one if name == one.name else one.model_copy(update={"name": name}))
        endpoint = Endpoint(method, template, host, limits=tuple(limits), exempt=said.exempt)
        self._check(endpoint)
        return endpoint

    def rules(self, endpoint: Endpoint) -> Rules:
        """Return what holds at `endpoint`."""
        found = self._rules.get(endpoint)
        if found is None:
            if len(self._rules) >= 2 * _MOST_ENDPOINTS:  # Those of routes that were read anew are never asked again.
                self._rules.clear()
            found = self._rules[endpoint] = self._compile(endpoint)
        return found

    def _compile(self, endpoint: Endpoint) -> Rules:
        style = self.settings.style_for(endpoint.fits)
        if endpoint.exempt or any(
            method in (None, endpoint.method) and endpoint.fits(pattern) for method, pattern in self._exempt
        ):
            return Rules(endpoint, (), style, self._keys)
        rules = [rule for rule, paths in self._limits if not paths or any(endpoint.fits(path) for path in paths)]
        rules += [Rule(policy, self._keys) for policy in endpoint.limits]
        applying = [rule for rule in rules if not rule.policy.methods or endpoint.method in rule.policy.methods]
        return Rules(endpoint, applying, style, self._keys)

    def _check(self, endpoint: Endpoint) -> None:
        declared = [(f"limits.{i}.", policy) for i, policy in enumerate(self.settings.limits)]
        declared += [(f"@limit {one.name!r} on {endpoint.label}: ", one) for one in endpoint.limits]
        for problem in policy_problems(declared, self.settings.dimensions):
            raise ConfigurationError(problem)

    def _all_patterns(self) -> Iterable[PathPattern]:
        yield from (pattern for _, pattern in self._exempt)
        for _, patterns in self._limits:
            yield from patterns
        for response in self.settings.path_responses:
            yield from response.patterns


def _free_name(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{n}" for n in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _patterns(paths: Iterable[str]) -> tuple[PathPattern, ...]:
    return tuple(PathPattern(path) for path in paths)
