"""Labels: how callers are called where people read, without a credential and without a whole address."""

from typing import Final

from ratelimit.model.identity import Identity
from ratelimit.resolver.named_policies import NamedPolicies

ANONYMOUS: Final = "anonymous"

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
    return f"ip:{masked(identity.ip)}" if identity.ip else ANONYMOUS


def masked(address: str) -> str:
    """Return an address without its last part: `192.0.2.*`, and of IPv6 the first two groups."""
    if ":" in address:
        return ":".join(address.split(":")[:2])[:_MAX_LENGTH] + ":*"
    return address.rpartition(".")[0][:_MAX_LENGTH] + ".*"
