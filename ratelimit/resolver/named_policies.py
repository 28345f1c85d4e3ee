"""The policies by their names: what is charged, overridden or emptied without a request."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ratelimit._utils.sampling import SampledLog
from ratelimit.config.policies import Concurrency, Policy
from ratelimit.errors import ConfigurationError
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.resolver.compiled_policy import CompiledPolicy, dimension_values
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint
from ratelimit.resolver.keys import HASH_DIGITS, KeyBuilder, escape, is_hash

logger = logging.getLogger("ratelimit")

HASH_SUFFIX: Final = "_hash"
"""Ends the name under which a key holds the hash of a dimension's value."""

_LOG_INTERVAL_S: Final = 10.0
_ENDPOINT: Final = re.compile(r"\*|[A-Z]+(?:-[A-Z]+)* \S+")


class NamedPolicies:
    """Knows the compiled policies of the settings, and those of decorators at each endpoint, by their names.

    `endpoint_of` returns the endpoint of a method and a template. `masks_addresses` says whether people read addresses
    without their last part.
    """

    def __init__(
        self, keys: KeyBuilder, endpoint_of: Callable[[str, str], Endpoint], *, masks_addresses: bool = True
    ) -> None:
        self.masks_addresses = masks_addresses
        self._keys, self._endpoint_of = keys, endpoint_of
        self._unapplied = SampledLog(logger, _LOG_INTERVAL_S)
        self._by_name: dict[str, CompiledPolicy] = {}
        self._by_name_and_label: dict[tuple[str, str], CompiledPolicy] = {}

    def add(self, compiled: CompiledPolicy, label: str | None = None) -> None:
        """Make a policy known; with a label, as that of the decorators at the endpoint with that label."""
        self._by_name.setdefault(compiled.policy.name, compiled)
        if label is not None:
            self._by_name_and_label[compiled.policy.name, label] = compiled

    def get(self, policy: str, label: str = "") -> CompiledPolicy:
        """Return a policy of the settings or of a decorator (the one at the endpoint with that label).

        Raises `ConfigurationError` where there is none of that name.
        """
        found = self._by_name_and_label.get((policy, label)) or self._by_name.get(policy)
        if found is None:
            raise ConfigurationError(
                f"policy: {policy!r} is not one of {', '.join(sorted(self._by_name)) or 'none'} [RL303]"
            )
        return found

    def compiled(self) -> list[CompiledPolicy]:
        """Return all policies that are known."""
        return list({id(each): each for each in (*self._by_name.values(), *self._by_name_and_label.values())}.values())

    def counts_by(self, dimension: str) -> bool:
        """Say whether a policy that is known has this dimension."""
        return any(dimension in compiled.per for compiled in self._by_name.values())

    def charged_by_requests(self) -> list[Policy]:
        """Return all policies that are known, apart from those that are charged by name alone."""
        return [compiled.policy for compiled in self._by_name.values() if not compiled.policy.manual]

    def of_a_caller(self, identity: Identity) -> list[str]:
        """Return the policies that count an identity wherever it goes, and not by endpoint."""
        found = [each for each in self._by_name.values() if not {"endpoint", "method"} & set(each.per)]
        anywhere = self._endpoint_of("GET", UNMATCHED)
        return [each.policy.name for each in found if each.counter_name(self.values(identity, each, anywhere))]

    def charge(
        self, policy: str, identity: Identity, amount: int, now: int, *, method: str, endpoint: str
    ) -> Charge | None:
        """Return a charge of `amount` units of one named policy, whatever a request costs there."""
        place = self._endpoint_of(method.upper(), endpoint)
        compiled = self.get(policy, place.label)
        if endpoint == UNMATCHED and "endpoint" in compiled.per:
            raise ConfigurationError(
                f"policy: {policy!r} is counted for each endpoint: say which, by endpoint= [RL305]"
            )
        values = self.values(identity, compiled, place)
        charge = compiled.charge(identity, 1, values, now, {})
        if not compiled.counter_name(values):
            self._unapplied.warning(
                "policy %r does not apply and counts nothing: the identity lacks one of %s [RL507]",
                policy,
                ", ".join(compiled.per),
            )
        return None if charge is None else charge._replace(cost=amount)

    def units(
        self, policy: str, identity: Identity, amount: int, now: int, *, method: str, endpoint: str
    ) -> Charge | None:
        """Do as `charge` for a policy that counts units; raises `ConfigurationError` for one that gives permits."""
        if isinstance(self.get(policy).policy, Concurrency):
            raise ConfigurationError(
                f"policy: {policy!r} is a Concurrency, which gives permits: use slot or check [RL304]"
            )
        return self.charge(policy, identity, amount, now, method=method, endpoint=endpoint)

    def charges(
        self, names: Iterable[str], identity: Identity, cost: int, now: int, *, method: str, endpoint: str
    ) -> list[Charge]:
        """Return what `cost` requests at an endpoint are charged by the policies of these names alone."""
        found = (self.charge(name, identity, cost, now, method=method, endpoint=endpoint) for name in names)
        return [self._with_own_cost(charge, method, endpoint) for charge in found if charge is not None]

    def counter_name(self, policy: str, key: Mapping[str, str]) -> str:
        """Return the name of one counter of a policy, given the values of its dimensions.

        `token_hash` may replace `token`, and so for other dimensions that are hashed. Raises `ConfigurationError` where a dimension is missing, is not the policy's,
        or has no value.
        """
        compiled = self.get(policy)
        names, given = {self._dimension(name) for name in key}, ", ".join(key) or "nothing"
        if names != set(compiled.per) or len(names) < len(key):
            wanted = ", ".join(compiled.per) or "nothing"
            raise ConfigurationError(f"key: {policy!r} is counted by {wanted}, got {given} [RL306]")
        if not _ENDPOINT.fullmatch(key.get("endpoint", UNMATCHED)):
            endpoint = key["endpoint"]
            raise ConfigurationError(
                f"key: endpoint: {endpoint!r} is not an endpoint: write it like 'GET /v1/agents/{{id}}' [RL305]"
            )
        values = {self._dimension(name): self._key_value(name, str(value)) for name, value in key.items()}
        counter = compiled.counter_name(values)
        if not counter:
            raise ConfigurationError("key: a value is empty [RL306]")
        return counter

    def dimension_value(self, identity: Identity, dimension: str) -> str:
        """Return the value of an identity's dimension as keys hold it; empty where unknown."""
        return dimension_values(identity, (dimension,), self._keys)[dimension]

    def hashed(self, value: str) -> str:
        """Return the hash that stands for a token, or for the value of another hashed dimension, in keys."""
        return self._keys.hashed(value)

    def is_hashed(self, dimension: str) -> bool:
        """Say whether keys hold the hashes of a dimension's values."""
        return dimension in self._keys.hashed_dimensions

    def values(self, identity: Identity, compiled: CompiledPolicy, endpoint: Endpoint) -> dict[str, str]:
        """Return the values of a policy's dimensions at an endpoint as keys hold them; empty where unknown."""
        values = {"endpoint": escape(endpoint.label), "method": escape(endpoint.method)}
        return values | dimension_values(identity, compiled.dimensions - values.keys(), self._keys)

    def _dimension(self, name: str) -> str:
        """Return the dimension of a name in a key: `token` for `token_hash`."""
        dimension = name.removesuffix(HASH_SUFFIX)
        return dimension if self.is_hashed(dimension) else name

    def _key_value(self, name: str, value: str) -> str:
        if name != self._dimension(name):  # A hash already.
            return check_hash(name, value) if value else ""
        return self._keys.value(name, value.upper() if name == "method" else value) if value else ""

    def _with_own_cost(self, charge: Charge, method: str, endpoint: str) -> Charge:
        """Return a charge of so many requests as one of units: each request takes the policy's own cost there."""
        compiled = self.get(charge.limit.policy, self._endpoint_of(method.upper(), endpoint).label)
        own = 1 if compiled.has_dynamic_cost or charge.limit.kind == "concurrency" else compiled.policy.cost
        requests = 1 if charge.limit.kind == "concurrency" else charge.cost
        return charge._replace(cost=requests * own if isinstance(own, int) else requests)


def check_hash(name: str, value: str) -> str:
    """Return a hash that a key names, or raise `ConfigurationError` for a part of one, which no caller would have."""
    if not is_hash(value):
        raise ConfigurationError(
            f"key: {name}: {value!r:.50} is not a whole hash, which has {HASH_DIGITS} hex digits [RL306]"
        )
    return value
