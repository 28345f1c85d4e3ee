"""The settings, compiled: which policies hold at which endpoint."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Final

from ratelimit.charge import Charge
from ratelimit.decorators import Declared
from ratelimit.errors import ConfigurationError
from ratelimit.identity import Identity
from ratelimit.keys import Keys, escape
from ratelimit.policy import Limit, Policy, Quota
from ratelimit.rules import Made, Raised, Rule, Rules, values_of
from ratelimit.settings import RateLimitSettings, policy_problems, split_entry
from ratelimit.style import PathPattern, ResponseStyle

UNKNOWN: Final = "*"
"""The template of every path that no route matches."""

logger = logging.getLogger("ratelimit")

_MOST_ENDPOINTS: Final = 10_000
"""Endpoints that `Plan.endpoint` remembers: routes are few, but a caller may make up names."""

_ENDPOINT: Final = re.compile(r"\*|[A-Z]+(?:-[A-Z]+)* \S+")
_NOTHING: Final = Declared()


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


class Plan:
    """Compiles settings once and answers what holds at an endpoint; pure, and without a store."""

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        self._keys = Keys(prefix=settings.key_prefix, secret=settings.secret())
        self._raised: dict[str, dict[str, Raised]] = {}
        self._named: dict[str, Rule] = {}
        self._named_at: dict[tuple[str, str], Rule] = {}
        self.countable: set[str] = set()
        self._made = Made()
        self._policies = [(self._rule(policy), _patterns(policy.paths)) for policy in settings.policies]
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
        taken = {policy.name for policy in self.settings.policies} | said.named
        limits = []
        for one in said.limits:
            name = one.name if one.name in said.named else _free_name(one.name, taken)
            taken.add(name)
            limits.append(one if name == one.name else one.model_copy(update={"name": name}))
        endpoint = Endpoint(method, template, host, limits=tuple(limits), exempt=said.exempt)
        self._check(endpoint)
        for one in endpoint.limits:  # From now on they can be named.
            self._named_at[one.name, endpoint.label] = self._rule(one)
        return endpoint

    def rule(self, policy: str, at: str = "") -> Rule:
        """Return the rule of a policy of the settings or of a decorator (the one at that endpoint, by its label).

        Raises `ConfigurationError` where there is no such.
        """
        found = self._named_at.get((policy, at)) or self._named.get(policy)
        if found is None:
            raise ConfigurationError(f"policy: {policy!r} is not one of {', '.join(sorted(self._named)) or 'none'}")
        return found

    def charge(
        self, policy: str, identity: Identity, amount: int, now: int, *, method: str, endpoint: str
    ) -> Charge | None:
        """Return a charge of `amount` units of one named policy, whatever a request costs there."""
        place = self.endpoint(method, endpoint)
        rule = self.rule(policy, place.label)
        if endpoint == UNKNOWN and "endpoint" in rule.per:
            raise ConfigurationError(f"policy: {policy!r} is counted for each endpoint: say which")
        values = {"endpoint": escape(place.label), "method": escape(place.method)}
        values |= values_of(identity, rule.dimensions - values.keys(), self._keys)
        charge = rule.charge(identity, 1, values, now, {})
        if not rule.named(values):
            wanted = ", ".join(rule.per)
            logger.warning("policy %r does not apply and counts nothing: who asks has not all of %s", policy, wanted)
        return None if charge is None else charge._replace(cost=amount)

    def override(self, raised: Mapping[str, Mapping[str, Raised]]) -> None:
        """Let these overrides hold, by policy and then by the values of its dimensions, and no others."""
        for name in self._raised.keys() | raised.keys():
            own, new = self._raised.setdefault(name, {}), raised.get(name, {})
            for gone in own.keys() - new.keys():
                del own[gone]
            own.update(new)
        ends = (until for each in raised.values() for _, until in each.values())
        self._made.forget(changing=any(until is not None for until in ends))

    def place(self, policy: str, key: Mapping[str, str]) -> str:
        """Return what names one counter of a policy, of the values of its dimensions; `token_hash` may replace `token`.

        Raises `ConfigurationError` where a dimension is missing or is none of the policy's.
        """
        rule = self.rule(policy)
        names, given = {"token" if name == "token_hash" else name for name in key}, ", ".join(key) or "nothing"
        if names != set(rule.per) or len(names) < len(key):
            wanted = ", ".join(rule.per) or "nothing"
            raise ConfigurationError(f"key: {policy!r} is counted by {wanted}, got {given}")
        if not _ENDPOINT.fullmatch(key.get("endpoint", UNKNOWN)):
            raise ConfigurationError(
                f"key: endpoint: {key['endpoint']!r} is none; write it like 'GET /v1/agents/{{id}}'"
            )
        values = {name: escape(str(value)) for name, value in key.items()}
        if "method" in key:
            values["method"] = escape(key["method"].upper())
        if "token" in key:
            values["token"] = self._keys.hashed(key["token"])
        elif "token_hash" in key:
            values["token"] = values["token_hash"]
        named = rule.named(values)
        if not named:
            raise ConfigurationError("key: a value is empty")
        return named

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
            return self._rules_at(endpoint, [], style)
        rules = [rule for rule, paths in self._policies if not paths or any(endpoint.fits(path) for path in paths)]
        rules += [self._rule(policy) for policy in endpoint.limits]
        applying = [rule for rule in rules if not rule.policy.methods or endpoint.method in rule.policy.methods]
        return self._rules_at(endpoint, applying, style)

    def _rules_at(self, endpoint: Endpoint, rules: list[Rule], style: ResponseStyle) -> Rules:
        return Rules(rules, style, self._keys, self._made, label=endpoint.label, method=endpoint.method)

    def _rule(self, policy: Policy) -> Rule:
        rule = Rule(policy, self._keys, self._raised.setdefault(policy.name, {}))
        self._named.setdefault(policy.name, rule)
        if isinstance(policy, (Limit, Quota)):
            self.countable |= {policy.name, policy.unit}
        return rule

    def _check(self, endpoint: Endpoint) -> None:
        declared = self.settings.placed_policies()
        declared += [(f"@limit {one.name!r} on {endpoint.label}: ", one) for one in endpoint.limits]
        for problem in policy_problems(declared, self.settings.dimensions):
            raise ConfigurationError(problem)

    def _all_patterns(self) -> Iterable[PathPattern]:
        yield from (pattern for _, pattern in self._exempt)
        for _, patterns in self._policies:
            yield from patterns
        for response in self.settings.path_responses:
            yield from response.patterns


def _free_name(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{n}" for n in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _patterns(paths: Iterable[str]) -> tuple[PathPattern, ...]:
    return tuple(PathPattern(path) for path in paths)
