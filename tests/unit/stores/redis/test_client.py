"""The client for a single server: charges, other commands and closing, on a real Redis."""

import asyncio

import pytest

from ratelimit import RedisStore, StoreError
from ratelimit.errors import StoreTimeout
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreRequest
from ratelimit.stores.redis.client import RedisClient, StandaloneClient
from ratelimit.testing.factories import fresh_key, window_limit
from tests.support.redis_server import RedisServer


async def test_a_client_charges_and_runs_commands(redis_url: str) -> None:
    """Charges go over a pipelined connection, other commands through redis-py; both are the same server."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()
    client = store.client
    assert isinstance(client, StandaloneClient)
    reply = await client.submit(StoreRequest([Charge(window_limit(5), key)]))
    assert [remaining for remaining, _, _ in reply.readings] == [4]
    assert await client.run("EXISTS", key) == 1
    assert client.is_settled
    assert await client.resolve_in_doubt()
    await store.aclose()


async def test_an_error_of_a_command_is_a_store_error(redis_url: str) -> None:
    """As those of charges are."""
    store = RedisStore(redis_url, timeout=10)
    with pytest.raises(StoreError, match="the store answered ResponseError: "):
        await store.client.run("NOSUCHCOMMAND")
    await store.aclose()


async def test_a_command_ends_after_the_timeout(redis_server: RedisServer, redis_url: str) -> None:
    """A server that hangs costs a caller no more."""
    store = RedisStore(redis_url, timeout=0.05)
    await asyncio.gather(store.client.run("PING"), return_exceptions=True)
    redis_server.pause()
    try:
        with pytest.raises(StoreTimeout):
            await store.client.run("PING")
    finally:
        redis_server.go_on()
    await store.aclose()


async def test_closing_waits_for_the_calls_in_flight(redis_url: str) -> None:
    """A request that was sent gets its reply; closing a second time does nothing."""
    store, charge = RedisStore(redis_url, timeout=10), Charge(window_limit(5), fresh_key())
    task = asyncio.create_task(store.submit(StoreRequest([charge])))
    await asyncio.sleep(0)
    await store.aclose()
    assert task.done()
    assert len(task.result().readings) == 1
    await store.aclose()


async def test_every_kind_of_client_writes_its_own_calls(redis_url: str) -> None:
    """The base class sends commands alone."""
    store = RedisStore(redis_url, timeout=10)
    client = RedisClient(store.client.redis, 10, 10)
    assert await client.run("PING") in (True, b"PONG")
    with pytest.raises(NotImplementedError):
        await client.submit(StoreRequest([]))
    with pytest.raises(NotImplementedError):
        await client.resolve_in_doubt()
    with pytest.raises(NotImplementedError):
        _ = client.is_settled
    await store.aclose()
