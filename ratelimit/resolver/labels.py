"""Labels: how callers are called where people read, without a credential and without a whole address."""

from ipaddress import IPv4Address, ip_network
from typing import Final
from urllib.parse import unquote

from ratelimit.model.identity import Identity
from ratelimit.resolver.named_policies import NamedPolicies

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
    return f"ip:{masked(identity.ip)}"


def label_of_counter(key: str, policy: str, named: NamedPolicies) -> str:
    """Return the label of the callers that share a counter, by its key: `token#…`, `org:acme`, several joined by a blank.

    Hashes are whole, so that an override or a block can name the caller. A counter of all callers is `everybody`.
    """
    per = named.get(policy).per
    values = key.rsplit(":", len(per))[1:] if per else []
    return " ".join(_part(name, value, named) for name, value in zip(per, values, strict=True)) or _EVERYBODY


def _part(dimension: str, value: str, named: NamedPolicies) -> str:
    if named.is_hashed(dimension):
        return f"{dimension}#{value}"
    return f"{dimension}:{masked(unquote(value)) if dimension == 'ip' else value}"


def masked(address: str) -> str:
    """Return an address without its last part: `192.0.2.*`, and of IPv6 the first two groups; `?` for no address."""
    try:
        found = ip_network(address, strict=False).network_address
    except ValueError:
        return "?"
    if isinstance(found, IPv4Address):
        return str(found).rpartition(".")[0] + ".*"
    return f"{int(found) >> 112:x}:{int(found) >> 96 & 0xFFFF:x}:*"
