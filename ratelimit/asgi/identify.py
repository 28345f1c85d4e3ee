"""Identifies the caller of a connection: API key, bearer token, client address."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Final

from starlette.requests import HTTPConnection

from ratelimit.errors import ConfigurationError
from ratelimit.model.identity import Identity

Identify = Callable[[HTTPConnection], Identity | Awaitable[Identity | None] | None]
"""Tells who makes a request, or `None` where the caller is unknown; may be async."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_CACHED_ADDRESSES: Final = 4096
"""Texts that are parsed, and addresses that are checked and named, each of which a `ClientAddress` caches."""

UNIX: Final = "unix"
"""Names, among trusted proxies, one that connects by a Unix socket."""

_MAX_HOPS: Final = 50
_MAX_ADDRESS_LENGTH: Final = 64


def bearer_token(connection: HTTPConnection) -> str | None:
    """Return the token of `Authorization: Bearer …` (RFC 6750 §2.1), or `None`; the scheme's case does not matter."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def api_key(connection: HTTPConnection, header: str = "x-api-key") -> str | None:
    """Return the value of an API-key header, or `None`."""
    return connection.headers.get(header, "").strip() or None


class ClientAddress:
    """Tells the client's address, and believes `X-Forwarded-For` only from trusted proxies.

    `trusted` are networks in CIDR notation, and `"unix"` for a proxy that connects by a Unix socket. The header is read from the right, and the first address that is not a
    trusted proxy is the client: entries that the client added itself are ignored. IPv6 clients are named by their
    network of `ipv6_prefix` bits, since one client controls all addresses in it. Returns `None` where the server knows
    no peer (an untrusted Unix socket). A wrong network raises `ConfigurationError`.
    """

    def __init__(self, trusted: Iterable[str] = (), *, header: str = "x-forwarded-for", ipv6_prefix: int = 64) -> None:
        if not 0 < ipv6_prefix <= 128:
            raise ConfigurationError(f"ipv6_prefix: must be between 1 and 128, got {ipv6_prefix} [RL208]")
        self._header = header
        trusted = tuple(trusted)
        self._trusts_sockets = UNIX in trusted
        networks = [_network(text) for text in trusted if text != UNIX]
        cached = lru_cache(MAX_CACHED_ADDRESSES)
        self._trusts = cached(lambda address: any(address in network for network in networks))
        self._read = cached(parse_address)
        self._name = cached(lambda address: _name(address, ipv6_prefix))

    def __call__(self, connection: HTTPConnection) -> str | None:
        """Return the client's address as text."""
        host = next(iter(connection.scope.get("client") or ()), None)
        if not isinstance(host, str) or not host:
            client = self._client_behind(None, connection) if self._trusts_sockets else None
            return None if client is None else self._name(client)
        peer = self._read(host)
        if peer is None:
            return host
        return self._name(self._client_behind(peer, connection) or peer if self._trusts(peer) else peer)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of entries that each cache holds."""
        caches = {"read": self._read, "trusts": self._trusts, "name": self._name}
        return {name: cache.cache_info().currsize for name, cache in caches.items()}

    def _client_behind(self, peer: _Address | None, connection: HTTPConnection) -> _Address | None:
        hops = ",".join(connection.headers.getlist(self._header)).split(",")
        client = peer
        for hop in hops[: -_MAX_HOPS - 1 : -1]:
            address = self._read(hop.strip()[:_MAX_ADDRESS_LENGTH])
            if address is None:
                return client
            client = address
            if not self._trusts(address):
                return client
        return client


def default_identify(trusted_proxies: Iterable[str] = ()) -> Identify:
    """Return the `identify` of an app that hands in none: `unverified_identity`."""
    return unverified_identity(trusted_proxies)


def unverified_identity(trusted_proxies: Iterable[str] = ()) -> Callable[[HTTPConnection], Identity]:
    """Return an `identify` that takes the `X-API-Key` header, else the bearer token, plus the client's address.

    It verifies nothing: whether a token is valid is for the app to decide, and an invented one is a fresh caller. A caller
    known by its API key stays that caller, whatever bearer token it sends beside. An app that knows its callers hands
    in its own `identify`.
    """
    address = ClientAddress(trusted_proxies)

    def identify(connection: HTTPConnection) -> Identity:
        return Identity(token=api_key(connection) or bearer_token(connection), ip=address(connection))

    return identify


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"trusted_proxies: {error} [RL208]") from None


def parse_address(text: str) -> _Address | None:
    """Return the address in a text, with or without a port, or `None` where there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_address(text: str) -> str:
    """Return an address as callers are known by it: of IPv6, its network of 64 bits; a text that is none as it is."""
    address = parse_address(text)
    return text if address is None else _name(address, 64)


def _name(address: _Address, ipv6_prefix: int) -> str:
    if address.version == 4 or ipv6_prefix == 128:
        return str(address)
    return str(ipaddress.ip_network((int(address), ipv6_prefix), strict=False))
