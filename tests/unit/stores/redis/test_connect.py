"""From a URL to redis-py's client: a single server, Sentinels or a Cluster."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from ratelimit import ConfigurationError
from ratelimit.stores.redis.connect import connect, no_retries
from ratelimit.stores.urls import open_store


def open_client(url: str) -> Any:
    return connect(url, connect_timeout=0.25, max_connections=3)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+cluster://", "a host is missing"),
        ("redis+cluster://a,,b", "a host is missing"),
        ("redis+cluster://a:70000", "a port is not a number"),
        ("redis+cluster://a/3", "no database but 0"),
        ("redis+sentinel://a:1,b:2", "the name of the master is missing"),
        ("redis+sentinel://user:hunter2@a/name?socket_timeout=soon", "redis-py cannot use this URL"),
    ],
)
def test_a_url_that_cannot_work_fails_at_construction(url: str, message: str) -> None:
    """The message says why, and does not repeat the password."""
    with pytest.raises(ConfigurationError, match=message) as error:
        open_store(url)
    assert "hunter2" not in str(error.value)


async def attempts(retry: Retry) -> int:
    """Return how often redis-py makes a call that always fails."""
    made = 0

    async def fail() -> None:
        nonlocal made
        made += 1
        raise RedisConnectionError

    async def ignore(_: Exception) -> None: ...

    with pytest.raises(RedisConnectionError):
        await retry.call_with_retry(fail, ignore)
    return made


async def test_a_single_server_is_called_with_the_stores_timeout_and_without_retries() -> None:
    """A charge is not idempotent for redis-py: neither the URL nor a default may make it send one twice."""
    client = open_client("redis://user:pass@localhost:6380/2?retry_on_timeout=true&decode_responses=true")
    options = client.connection_pool.connection_kwargs
    assert isinstance(client, Redis)
    assert (options["host"], options["port"], options["db"], options["username"]) == ("localhost", 6380, 2, "user")
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.25, 0.25)
    assert await attempts(options["retry"]) == 1
    assert (options["retry_on_timeout"], options["decode_responses"]) == (False, False)
    assert client.connection_pool.max_connections == 3


async def test_sentinels_are_asked_for_the_master() -> None:
    """Every Sentinel that the URL names, with its default port; the login is for the master."""
    client = open_client("redis+sentinel://user:pass@one,two:26380/main/3")
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    servers = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each.get("username")) for each in servers] == [
        ("one", 26379, None),
        ("two", 26380, None),
    ]
    options = pool.connection_kwargs
    assert (pool.service_name, options["db"], options["username"]) == ("main", 3, "user")
    assert await attempts(options["retry"]) == 1


async def test_a_cluster_starts_from_all_nodes_of_the_url() -> None:
    """Any of them may be down when the topology is read."""
    client = open_client("redis+cluster://user:pass@one:7000,two/0?ssl=true")
    assert isinstance(client, RedisCluster)
    assert {(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()} >= {
        ("one", 7000),
        ("two", 6379),
    }
    assert client.connection_kwargs["username"] == "user"
    # Of four silent nodes each is tried within the connect timeout.
    assert client.connection_kwargs["socket_connect_timeout"] == 0.25 / 4
    assert "SSL" in client.connection_kwargs["connection_class"].__name__
    await client.aclose()


async def test_no_retries_are_none() -> None:
    """Not even for errors that redis-py retries by default."""
    assert await attempts(no_retries()) == 1
