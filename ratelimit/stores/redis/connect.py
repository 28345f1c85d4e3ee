"""Makes redis-py's client for a URL: a single server, the master that Sentinels name, or a Cluster."""

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from ratelimit.errors import ConfigurationError

_NODES_TRIED: Final = 4
"""How many silent nodes of a Cluster are tried within the connect timeout."""

_DEFAULT_PORTS: Final = {"redis+cluster": 6379, "redis+sentinel": 26379}


class _MultiHostUrl(NamedTuple):
    """A URL that names several servers: the first one as a URL of its own, all of them, and the Sentinel service."""

    first: str
    servers: list[tuple[str, int]]
    service: str


def connect(url: str, *, connect_timeout: float, max_connections: int) -> "redis.asyncio.Redis | RedisCluster":
    """Return redis-py's client for a URL; nothing is connected yet.

    `redis+cluster://[user:password@]host[:port][,host[:port]…]`, with `?ssl=true` for TLS, names nodes of the Cluster to
    start from. `redis+sentinel://[user:password@]host[:port][,…]/service[/database]` names Sentinels, and the service
    that is their name for the master. A URL that redis-py cannot read raises `ConfigurationError`.
    """
    scheme = url.partition("://")[0]
    # Each call has a timeout of its own: these bound the steps of connecting. Of a Cluster several nodes are tried in turn.
    step = connect_timeout / _NODES_TRIED if scheme == "redis+cluster" else connect_timeout
    options = {"socket_timeout": step, "socket_connect_timeout": step, "max_connections": max_connections}
    try:
        if scheme == "redis+cluster":
            return _cluster(_parse_multi_host(url), options)
        client = _sentinel(_parse_multi_host(url), options) if scheme == "redis+sentinel" else _single(url, options)
        make: Any = client.connection_pool.make_connection
        make()
    except _UrlError as error:
        raise ConfigurationError(f"store: {error} [RL120]") from None
    except (ValueError, TypeError, AttributeError, RedisError, RedisClusterException) as error:
        # redis-py's own message may repeat the URL, and with it the password.
        raise ConfigurationError(f"store: redis-py cannot use this URL ({type(error).__name__}) [RL120]") from None
    return client


class _UrlError(ValueError):
    """Says what is wrong with a URL, without the parts that may be secret."""


def no_retries() -> Retry:
    """Return the retry policy that never retries: a script that charges is not idempotent by itself."""
    return Retry(NoBackoff(), 0)


def _single(url: str, options: dict[str, Any]) -> "redis.asyncio.Redis":
    client = redis.asyncio.Redis.from_url(url, **options)
    # The query of the URL must not turn retries on.
    client.connection_pool.connection_kwargs.update(_no_retry_options())
    return client


def _no_retry_options() -> dict[str, Any]:
    return {"retry": no_retries(), "retry_on_timeout": False, "retry_on_error": [], "decode_responses": False}


def _sentinel(address: _MultiHostUrl, options: dict[str, Any]) -> "redis.asyncio.Redis":
    parsed = redis.asyncio.connection.parse_url(address.first)
    wanted = {name: value for name, value in parsed.items() if name not in ("host", "port", "connection_class")}
    if address.first.startswith("rediss"):
        wanted["ssl"] = True
    sockets = {name: value for name, value in options.items() if name.startswith("socket_")}
    make: Any = Sentinel
    sentinel = make(address.servers, sentinel_kwargs={**sockets, "retry": no_retries()})
    client: redis.asyncio.Redis = sentinel.master_for(address.service, **{**options, **wanted, "retry": no_retries()})
    client.connection_pool.connection_kwargs.update(_no_retry_options())
    return client


def _cluster(address: _MultiHostUrl, options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.servers]
    return RedisCluster.from_url(address.first, **options, startup_nodes=nodes, retry=no_retries())


def _parse_multi_host(url: str) -> _MultiHostUrl:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    servers = [_server(text, _DEFAULT_PORTS[parts.scheme]) for text in hosts.split(",")]
    service, _, database = parts.path.strip("/").partition("/")
    if parts.scheme == "redis+sentinel" and not service:
        raise _UrlError("the name of the master is missing: write redis+sentinel://host/name")
    if parts.scheme == "redis+cluster" and service.strip("0"):
        raise _UrlError("a Cluster has no database but 0")
    query = parse_qs(parts.query)
    secure = query.pop("ssl", ["false"])[0].lower() in ("true", "1", "yes")
    host, port = servers[0]
    more = f"?{urlencode(query, doseq=True)}" if query else ""
    whole = f"redis{'s' * secure}://{login}{at}{f'[{host}]' if ':' in host else host}:{port}/{database or 0}{more}"
    return _MultiHostUrl(whole, servers, service)


def _server(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise _UrlError("a host is missing")
    try:
        return parts.hostname, parts.port or default_port
    except ValueError:
        raise _UrlError("a port is not a number between 0 and 65535") from None
