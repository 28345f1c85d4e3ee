"""Where the servers are: one, a master that Sentinels know, or the nodes of a Cluster."""

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from ratelimit.errors import ConfigurationError

SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel")

_PORTS: Final = {"redis+cluster": 6379, "redis+sentinel": 26379}


class _Several(NamedTuple):
    """An address that names several servers: the first as an address of its own, all of them, and the service."""

    first: str
    servers: list[tuple[str, int]]
    service: str


def connect(url: str, *, timeout: float, max_connections: int) -> "redis.asyncio.Redis | RedisCluster":
    """Return redis-py's client for an address; it connects to nothing yet.

    `redis+cluster://[user:password@]host[:port][,host[:port]…]`, with `?ssl=true` for TLS, names nodes to begin with.
    `redis+sentinel://[user:password@]host[:port][,…]/service[/database]` names Sentinels, and what they call the
    master. What redis-py cannot read raises `ConfigurationError`.
    """
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "max_connections": max_connections}
    try:
        scheme = url.partition("://")[0]
        if scheme == "redis+cluster":
            return _cluster(_several(url), options)
        client = _sentinel(_several(url), options) if scheme == "redis+sentinel" else _single(url, options)
        make: Any = client.connection_pool.make_connection
        make()
    except _AddressError as error:
        raise ConfigurationError(f"store: {error}") from None
    except (ValueError, TypeError, AttributeError, RedisError, RedisClusterException) as error:
        # redis-py's own message may repeat the URL, and with it the password.
        raise ConfigurationError(f"store: redis-py cannot use this URL ({type(error).__name__})") from None
    return client


class _AddressError(ValueError):
    """Says what is wrong with an address, without what may be secret in it."""


def never_again() -> Retry:
    """Return the rule that nothing is sent twice: a script that charges is not idempotent by itself."""
    return Retry(NoBackoff(), 0)


def _single(url: str, options: dict[str, Any]) -> "redis.asyncio.Redis":
    client = redis.asyncio.Redis.from_url(url, **options)
    # The URL may not change these.
    client.connection_pool.connection_kwargs.update(_fixed())
    return client


def _fixed() -> dict[str, Any]:
    return {"retry": never_again(), "retry_on_timeout": False, "retry_on_error": [], "decode_responses": False}


def _sentinel(address: _Several, options: dict[str, Any]) -> "redis.asyncio.Redis":
    asked = redis.asyncio.connection.parse_url(address.first)
    wanted = {name: value for name, value in asked.items() if name not in ("host", "port", "connection_class")}
    if address.first.startswith("rediss"):
        wanted["ssl"] = True
    sockets = {name: value for name, value in options.items() if name.startswith("socket_")}
    make: Any = Sentinel
    sentinel = make(address.servers, sentinel_kwargs={**sockets, "retry": never_again()})
    client: redis.asyncio.Redis = sentinel.master_for(address.service, **{**options, **wanted, "retry": never_again()})
    client.connection_pool.connection_kwargs.update(_fixed())
    return client


def _cluster(address: _Several, options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.servers]
    return RedisCluster.from_url(address.first, **options, startup_nodes=nodes, retry=never_again())


def _several(url: str) -> _Several:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    servers = [_server(text, _PORTS[parts.scheme]) for text in hosts.split(",")]
    service, _, database = parts.path.strip("/").partition("/")
    if parts.scheme == "redis+sentinel" and not service:
        raise _AddressError("the name of the master is missing: redis+sentinel://host/name")
    if parts.scheme == "redis+cluster" and service.strip("0"):
        raise _AddressError("a Cluster has no database but 0")
    query = parse_qs(parts.query)
    secure = query.pop("ssl", ["false"])[0].lower() in ("true", "1", "yes")
    host, port = servers[0]
    more = f"?{urlencode(query, doseq=True)}" if query else ""
    whole = f"redis{'s' * secure}://{login}{at}{f'[{host}]' if ':' in host else host}:{port}/{database or 0}{more}"
    return _Several(whole, servers, service)


def _server(text: str, usual: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise _AddressError("a host is missing")
    try:
        return parts.hostname, parts.port or usual
    except ValueError:
        raise _AddressError("a port is not a number between 0 and 65535") from None
