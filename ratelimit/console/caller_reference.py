"""References to callers: an identity as the query of an address, and back; a token stands as its hash."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request

from ratelimit.asgi.callers import IDENTIFY
from ratelimit.asgi.identify import client_address
from ratelimit.limiter import Limiter
from ratelimit.model.identity import HashedValue, Identity
from ratelimit.resolver.compiled_policy import CompiledPolicy
from ratelimit.resolver.named_policies import HASH_SUFFIX, NamedPolicies, check_hash

ATTRIBUTES: Final = ("token", "org", "ip", "plan", "priority")
_DIMENSION: Final = "dimension."
_GRANT: Final = "grant."
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
"""Numbers that are granted: Python refuses to read those of more than 4,300 digits."""


def identity_of_query(query: Mapping[str, str], named: NamedPolicies) -> Identity:
    """Return the identity that a query names; raises `ConfigurationError` for a hash that is none."""
    found: dict[str, str] = {}
    dimensions: dict[str, str] = {}
    rates: dict[str, str | int] = {}
    for field, text in query.items():
        name, value = _named_value(field.removeprefix(_DIMENSION), text, named)
        if field.startswith(_GRANT) and value:
            rates[field.removeprefix(_GRANT)] = int(value) if _NUMBER.fullmatch(value) else value
        elif field.startswith(_DIMENSION) and value:
            dimensions[name] = value
        elif name in ATTRIBUTES and value:
            found[name] = value
    return Identity(**found, dimensions=dimensions, rates=rates)


def _named_value(name: str, text: str, named: NamedPolicies) -> tuple[str, str]:
    plain = name.removesuffix(HASH_SUFFIX)
    if plain != name and named.is_hashed(plain) and text:
        return plain, HashedValue(check_hash(name, text))
    return name, client_address(text) if name == "ip" else text


def query_of(identity: Identity, named: NamedPolicies) -> dict[str, str]:
    """Return the query that names an identity; hashed values stand as their hashes."""
    found: dict[str, str] = {}
    for name in ATTRIBUTES:
        value = getattr(identity, name)
        if value and named.is_hashed(name):
            found[f"{name}{HASH_SUFFIX}"] = named.hashed(value)
        elif value:
            found[name] = value
    for name, value in identity.dimensions.items():
        hashed = named.is_hashed(name)
        found[f"{_DIMENSION}{name}{HASH_SUFFIX if hashed else ''}"] = named.hashed(value) if hashed else value
    return found | {f"{_GRANT}{policy}": str(rate) for policy, rate in identity.rates.items()}


def counter_key(query: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a query that names counters: without what was granted."""
    return {name: value for name, value in query.items() if not name.startswith(_GRANT)}


def query_of_label(label: str, org: str | None = None) -> dict[str, str] | None:
    """Return the query that names the callers of a counter by its label, and that of its organization.

    `None` where a label says too little: of masked addresses, and of values that were too long for a key.
    """
    found: dict[str, str] = {}
    for part in (*label.split(" "), *(() if org is None else (org,))):
        hashed, plain = part.partition("#"), part.partition(":")
        is_hash = bool(hashed[1]) and len(hashed[0]) < len(plain[0])
        name, value = (f"{hashed[0]}{HASH_SUFFIX}", hashed[2]) if is_hash else (plain[0], plain[2])
        if not value or (name == "ip" and value.endswith("*")) or value.startswith("%h"):
            return None
        is_plain = name == "endpoint" or name.removesuffix(HASH_SUFFIX) in ATTRIBUTES
        if name != "method":
            found[name if is_plain else f"{_DIMENSION}{name}"] = unquote(value)
    return found if found.keys() - {"endpoint"} else None


def override_key(identity: Identity, compiled: CompiledPolicy, named: NamedPolicies) -> dict[str, str] | None:
    """Return the key by which an override of a policy names a caller; `None` where it needs more (an endpoint)."""
    query = query_of(identity, named)
    found: dict[str, str] = {}
    for name in compiled.per:
        for field in (name, f"{name}{HASH_SUFFIX}"):
            value = query.get(field) or query.get(f"{_DIMENSION}{field}")
            if value:
                found[field] = value
                break
        else:
            return None
    return found


async def identity_of_token(request: Request, limiter: Limiter, token: str) -> Identity:
    """Return the caller with a token, as the app itself would identify it; without its address.

    Where the app cannot be asked, or does not know the token, it is the token alone. It is hashed at once.
    """
    named = limiter.resolver.named
    for header in ((b"authorization", f"Bearer {token}".encode()), (b"x-api-key", token.encode())):
        found = await _identified(request, header)
        if found is not None and found.token:
            return replace(found, token=HashedValue(named.hashed(found.token)), ip=None)
    return Identity(token=HashedValue(named.hashed(token)))


async def _identified(request: Request, header: tuple[bytes, bytes]) -> Identity | None:
    identify = request.scope.get(IDENTIFY)
    if identify is None or b"\n" in header[1] or b"\r" in header[1]:
        return None
    scope = {**request.scope, "headers": [header], "query_string": b"", "state": {}, "path": "/", "method": "GET"}
    found: Identity = await identify(scope)
    return found


def matches(identity: Identity, query: Mapping[str, str], named: NamedPolicies) -> bool:
    """Say whether a query names this caller, as far as both say something."""
    own = query_of(identity, named)
    shared = [name for name in query if name in own and name not in {"plan", "priority"}]
    return bool(shared) and all(own[name] == query[name] for name in shared)
