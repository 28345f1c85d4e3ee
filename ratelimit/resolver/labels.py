"""Labels: how callers are called where people read, without a credential and without a whole address."""

from collections.abc import Callable
from ipaddress import IPv4Address, ip_network
from typing import Final
from urllib.parse import unquote

from ratelimit.errors import ConfigurationError
from ratelimit.model.identity import Identity
from ratelimit.resolver.keys import MAX_READABLE, escape
from ratelimit.resolver.named_policies import HASH_SUFFIX, NamedPolicies

ANONYMOUS: Final = "anonymous"

_EVERYBODY: Final = "everybody"
_HASH_DIGITS: Final = 8
_MAX_LENGTH: Final = 64


def label_of(identity: Identity, named: NamedPolicies) -> str:
    """Return `token#1a2b3c4d`, else `org:acme`, else `ip:192.0.2.*`, else `anonymous`; the same for the same caller.

    What callers choose is escaped, so that it holds no blank and no control character, and is at most 64 characters.
    """
    if identity.token:
        return f"token#{named.hashed(identity.token)[:_HASH_DIGITS]}"
    if identity.org:
        return f"org:{named.dimension_value(identity, 'org')}"[:_MAX_LENGTH]
    if not identity.ip:
        return ANONYMOUS
    if named.is_hashed("ip"):
        return f"ip#{named.hashed(identity.ip)[:_HASH_DIGITS]}"
    return f"ip:{_shown_address(identity.ip, named)}"


def label_of_counter(key: str, policy: str, named: NamedPolicies) -> str:
    """Return the label of the callers that share a counter, by its key: `token#…`, `org:acme`, several joined by a blank.

    Hashes are whole, so that an override or a block can name the caller. A counter of all callers is `everybody`.
    """
    per = named.get(policy).per
    values = key.rsplit(":", len(per))[1:] if per else []
    return " ".join(_part(name, value, named) for name, value in zip(per, values, strict=True)) or _EVERYBODY


def org_of_counter(key: str, policy: str, named: NamedPolicies) -> str | None:
    """Return the label of the organization with which a counter is kept, where the counter's own label does not say so.

    The counters of a token belong to the organization that the token came with; `None` where none is known.
    """
    per = named.get(policy).per
    if "token" not in per or "org" in per:
        return None
    partition = key.rpartition("}")[0].rpartition("{")[2]
    return None if partition in key.rsplit(":", len(per))[1:] else _part("org", partition, named)


def _part(dimension: str, value: str, named: NamedPolicies) -> str:
    if named.is_hashed(dimension):
        return f"{dimension}#{value}"
    return f"{dimension}:{_shown_address(unquote(value), named) if dimension == 'ip' else value}"


def _shown_address(address: str, named: NamedPolicies) -> str:
    return masked(address) if named.masks_addresses else escape(address)


def masked(address: str) -> str:
    """Return an address without its last part: `192.0.2.*`, and of IPv6 the first two groups; `?` for no address."""
    try:
        found = ip_network(address, strict=False).network_address
    except ValueError:
        return "?"
    if isinstance(found, IPv4Address):
        return str(found).rpartition(".")[0] + ".*"
    return f"{int(found) >> 112:x}:{int(found) >> 96 & 0xFFFF:x}:*"


def key_of_caller(identity: Identity, named: NamedPolicies) -> dict[str, str]:
    """Return what names a caller to an operator, without a credential: `{"token_hash": …, "org": …, "plan": …}`.

    What is unknown or longer than 128 characters is left out, and so is the address where addresses are masked: it is personal data.
    """
    found: dict[str, str] = {}
    address = None if named.masks_addresses else identity.ip
    for name, value in (("token", identity.token), ("org", identity.org), ("plan", identity.plan), ("ip", address)):
        if value and named.is_hashed(name):
            found[f"{name}{HASH_SUFFIX}"] = named.hashed(value)
        elif value and len(value) <= MAX_READABLE:
            found[name] = value
    return found


class CounterLabels:
    """How the callers of a counter are called, by its key; `named()` returns the policies as they are now."""

    def __init__(self, named: Callable[[], NamedPolicies]) -> None:
        self._named = named

    def label(self, key: str, policy: str) -> str:
        """Return `label_of_counter`; of a policy that a reload has removed, the policy's own name."""
        try:
            return label_of_counter(key, policy, self._named())
        except (ConfigurationError, ValueError):
            return policy

    def org(self, key: str, policy: str) -> str | None:
        """Return `org_of_counter`; of a policy that a reload has removed, none."""
        try:
            return org_of_counter(key, policy, self._named())
        except ConfigurationError:
            return None

    def policies(self) -> list[str]:
        """Return the names of all policies."""
        return [each.policy.name for each in self._named().compiled()]
