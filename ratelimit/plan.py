"""The settings, compiled: from an identity and an endpoint to the charges that one request makes."""

import math
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A method and a route template, with the limits that decorators declared there; compared by identity.

    `host` is the template of the `Host` route above it, if any. HEAD is GET here.
    """

    method: str = "GET"
    template: str = UNKNOWN
    host: str = ""
    limits: tuple[Limit, ...] = ()
    exempt: bool = False

    @cached_property
    def label(self) -> str:
        """What one counter of scope `endpoint` belongs to: `POST /v1/agents/{id}`, or `*` for all unknown paths."""
        known = self.host or self.template != UNKNOWN
        return f"{self.method} {self.host}{self.template}" if known else UNKNOWN

    def fits(self, pattern: PathPattern) -> bool:
        """Say whether a path pattern of the settings means this endpoint, with or without its host."""
        return pattern(self.template) or (bool(self.host) and pattern(self.host + self.template))


class Rule:
    """One policy at one endpoint: everything about it that does not depend on who asks."""

    def __init__(self, policy: Limit, endpoint: Endpoint, keys: Keys) -> None:
        self.policy = policy
        self._keys = keys
        self._name = escape(policy.name)
        self._cost = policy.cost
        self._fixed = {"endpoint": escape(endpoint.label), "method": escape(endpoint.method)}
        self._per = policy.per
        # All keys of one tenant live in one slot of a Cluster. A token belongs to one organization, so its counters
        # may go there too; an address or an endpoint is shared by many and must have one counter wherever it shows up.
        self._by_org = "org" in policy.per or "token" in policy.per
        self._terms: dict[Rate, Terms] = {}

    def charge(self, identity: Identity, cost: int, known: dict[str, str]) -> Charge | None:
        """Return what this policy charges `identity`, or `None` where it does not apply to it.

        `known` carries the values of dimensions from one rule to the next, so that each is made once per request.
        """
        rate = self._rate(identity)
        if rate is None:
            return None
        values = []
        for dimension in self._per:
            value = self._fixed.get(dimension) or known.get(dimension) or self._value(identity, dimension)
            if not value:
                return None
            if dimension not in self._fixed:
                known[dimension] = value
            values.append(value)
        partition = self._partition(identity, known) or (values[0] if values else "*")
        key = self._keys.key(partition, self._name, rate.period, ":".join(values))
        return Charge(self._terms.get(rate) or self._terms_of(rate), key, min(cost * self._cost, NEVER))

    def _rate(self, identity: Identity) -> Rate | None:
        policy = self.policy
        if identity.rates and (granted := identity.granted(policy.name)) is not None:
            return granted
        if identity.plan is not None and identity.plan in policy.plans:
            return policy.plans[identity.plan]
        return policy.rate

    def _value(self, identity: Identity, dimension: str) -> str:
        if dimension == "token":
            return self._keys.hashed(identity.token) if identity.token else ""
        if dimension in ("org", "ip", "plan"):
            value = getattr(identity, dimension)
        else:
            value = identity.dimensions.get(dimension)
        return "" if value is None or value == "" else escape(value)

    def _partition(self, identity: Identity, known: dict[str, str]) -> str:
        if not self._by_org:
            return ""
        if "org" not in known:
            known["org"] = self._value(identity, "org")
        return known["org"]

    def _terms_of(self, rate: Rate) -> Terms:
        if len(self._terms) >= _MOST_TERMS:
            self._terms.clear()
        policy = self.policy
        # The shortest decimal of the float is what was written: 0.29 of 100 is 29, although 0.29 * 100 < 29.
        allowance = math.floor(rate.limit * Fraction(repr(policy.burst)))
        terms = self._terms[rate] = Terms(
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
        return terms


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds at one endpoint."""

    exempt: bool
    rules: tuple[Rule, ...]
    style: ResponseStyle

    def charges(self, identity: Identity, cost: int = 1, *, beside: Sequence[Limit] = ()) -> list[Charge]:
        """Return what one request of `identity` is charged, in the order in which the policies were declared.

        `beside` are policies that an outer limiter has already charged for this request.
        """
        known: dict[str, str] = {}
        charges = []
        for rule in self.rules:
            if beside and rule.policy in beside:
                continue
            charge = rule.charge(identity, cost, known)
            if charge is not None:
                charges.append(charge)
        return charges


class Plan:
    """Compiles settings once and answers what holds at an endpoint; pure, and without a store."""

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        secret = settings.hash_key.get_secret_value() if settings.hash_key else None
        self._keys = Keys(prefix=settings.key_prefix, secret=secret)
        self._policies = [(policy, _patterns(policy.paths)) for policy in settings.limits]
        self._exempt = [(method, PathPattern(path)) for method, path in map(split_entry, settings.exempt)]
        self._rules: dict[Endpoint, Rules] = {}
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self.patterns = tuple(self._all_patterns())

    def endpoint(self, method: str, template: str) -> Endpoint:
        """Return the endpoint of these names, always the same one."""
        method = "GET" if method == "HEAD" else method
        found = self._endpoints.get((method, template))
        if found is None:
            if len(self._endpoints) >= _MOST_ENDPOINTS:
                self._endpoints.clear()
                self._rules.clear()
            found = self._endpoints[method, template] = Endpoint(method, template)
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
        endpoint = Endpoint(method, template, host, tuple(limits), said.exempt)
        self._check(endpoint)
        return endpoint

    def rules(self, endpoint: Endpoint) -> Rules:
        """Return what holds at `endpoint`."""
        found = self._rules.get(endpoint)
        if found is None:
            found = self._rules[endpoint] = self._compile(endpoint)
        return found

    def _compile(self, endpoint: Endpoint) -> Rules:
        exempt = endpoint.exempt or any(
            method in (None, endpoint.method) and endpoint.fits(pattern) for method, pattern in self._exempt
        )
        policies = [
            policy
            for policy, patterns in self._policies
            if (not policy.methods or endpoint.method in policy.methods)
            and (not patterns or any(endpoint.fits(pattern) for pattern in patterns))
        ]
        policies += [one for one in endpoint.limits if not one.methods or endpoint.method in one.methods]
        rules = () if exempt else tuple(Rule(policy, endpoint, self._keys) for policy in policies)
        return Rules(exempt, rules, self._style(endpoint))

    def _style(self, endpoint: Endpoint) -> ResponseStyle:
        for response in self.settings.responses:
            if any(endpoint.fits(pattern) for pattern in response.patterns):
                return response.style
        return self.settings.response

    def _check(self, endpoint: Endpoint) -> None:
        declared = [("limits", i, policy) for i, policy in enumerate(self.settings.limits)]
        declared += [(f"@limit on {endpoint.label}", i, policy) for i, policy in enumerate(endpoint.limits)]
        for problem in policy_problems(declared, self.settings.dimensions):
            raise ConfigurationError(problem)

    def _all_patterns(self) -> Iterable[PathPattern]:
        yield from (pattern for _, pattern in self._exempt)
        for _, patterns in self._policies:
            yield from patterns
        for response in self.settings.responses:
            yield from response.patterns


def _free_name(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{n}" for n in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _patterns(paths: Iterable[str]) -> tuple[PathPattern, ...]:
    return tuple(PathPattern(path) for path in paths)
