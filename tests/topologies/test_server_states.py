"""The states of a real Redis: full, busy, loading, flushed, empty after a restart, and read-only."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from ratelimit import Identity, Limiter, RedisStore, StoreError
from ratelimit.errors import StoreTimeout
from ratelimit.model.charge import Charge
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_server import RedisServer
from tests.support.stores import fresh_key, window_limit

pytestmark = pytest.mark.topologies

BUSY = """
local function now() local time = redis.call('TIME') return time[1] * 1000000 + time[2] end
local ends = now() + 1000000
repeat until now() >= ends
return 1
"""

BALLAST = 150, 200_000
"""The number of values, and their bytes: a server that loads serves its clients after every 2 MB."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url, timeout=0.5)
    yield opened
    await opened.aclose()


async def test_a_full_server_fails_until_there_is_room(server: RedisServer, store: RedisStore) -> None:
    """While a server with `noeviction` is full, charges raise `StoreError`, and none of those is made."""
    load = Load(store, fresh_tag())
    async with load.running():
        await load.answered()
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")
            before = len(load.errors)
            await until(lambda: len(load.errors) >= before + 20)
            client.config_set("maxmemory", "0")
        await load.answered()
    made = await load.made()
    assert sum(made) == await load.total() == len(load.acknowledged) == load.sent - len(load.errors)
    assert {made[number] for number in load.acknowledged} == {1}
    assert not any(isinstance(error, StoreTimeout) for error in load.errors)


async def test_a_busy_server_fails_until_the_script_has_ended(server: RedisServer, store: RedisStore) -> None:
    """While another client's script runs for a second, no call hangs, and none is made twice."""
    load = Load(store, fresh_tag())
    with server.client() as client:
        client.config_set("lua-time-limit", 10)
        async with load.running():
            await load.answered()
            assert await asyncio.to_thread(client.eval, BUSY, 0) == 1
            await load.answered()
    assert any("BUSY" in str(error) for error in load.errors)
    made = await load.made()
    assert {made[number] for number in load.acknowledged} == {1}
    assert set(made) <= {0, 1}


async def test_a_loading_server_fails_until_it_has_loaded(server: RedisServer, store: RedisStore) -> None:
    """While the server loads its file, LOADING is a `StoreError`; afterwards the saved charges still count."""
    load = Load(store, fresh_tag())
    async with load.running():
        await load.answered()
        with server.client() as client, client.pipeline() as pipe:
            for number in range(BALLAST[0]):
                pipe.set(f"ballast:{number}", secrets.token_bytes(BALLAST[1]))
            await asyncio.to_thread(pipe.execute)
            saved = set(load.acknowledged)
            await asyncio.to_thread(client.save)
        server.stop()
        delay = ("--key-load-delay", "7500")  # Microseconds for each key.
        await asyncio.to_thread(server.start, *delay)  # Returns when it has loaded.
        await load.answered()
    texts = {str(error) for error in load.errors}
    assert any("loading" in text.lower() for text in texts), texts
    made = await load.made()
    assert {made[number] for number in saved} == {1}
    assert set(made) <= {0, 1}


async def test_a_script_that_was_flushed_is_sent_again(server: RedisServer, store: RedisStore) -> None:
    """After SCRIPT FLUSH under load, no call fails."""
    load = Load(store, fresh_tag())
    async with load.running():
        for _ in range(10):
            with server.client() as client:
                client.script_flush()
            await load.answered()
    assert load.errors == []
    assert await load.made() == [1] * load.sent


async def test_a_restart_without_data_counts_from_zero(server: RedisServer, store: RedisStore) -> None:
    """After a restart earlier charges are lost, and later ones are made once, on a new connection."""
    load = Load(store, fresh_tag())
    async with load.running():
        await load.answered()
        server.stop()
        gone = set(load.acknowledged)
        await asyncio.to_thread(server.start)
        await load.answered()
    made = await load.made()
    assert not any(made[number] for number in gone)
    assert {made[number] for number in set(load.acknowledged) - gone} <= {0, 1}
    assert set(made) <= {0, 1}
    assert await load.total() == sum(made) > 0


async def test_a_replica_refuses_charges(server: RedisServer, tmp_path: Path) -> None:
    """Each charge raises `StoreError`, and none hangs; after the replica was promoted, charges are made."""
    folder = tmp_path / "replica"
    folder.mkdir()
    replica = RedisServer(folder, "--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0")
    replica.start()
    store, one = RedisStore(replica.url, timeout=2), Charge(window_limit(9), fresh_key())
    try:
        with replica.client() as client:
            await until(lambda: client.info("replication")["master_link_status"] == "up")
            for _ in range(3):
                with pytest.raises(StoreError) as error:
                    await store.charge([one])
                assert not isinstance(error.value, StoreTimeout)
            results = await asyncio.gather(*(store.charge([one]) for _ in range(50)), return_exceptions=True)
            assert {isinstance(each, StoreError) for each in results} == {True}
            client.replicaof("NO", "ONE")
        assert (await store.charge([one]))[0].remaining == 8
    finally:
        await store.aclose()
        replica.stop()


async def test_a_server_that_hangs_raises_after_the_timeout(server: RedisServer, store: RedisStore) -> None:
    """Calls raise `StoreTimeout`; when the server goes on, every charge that was sent is made once."""
    load = Load(store, fresh_tag())
    async with load.running():
        await load.answered()
        server.pause()
        before = len(load.errors)
        await until(lambda: len(load.errors) > before)
        server.go_on()
        await load.answered()
    assert any(isinstance(error, StoreTimeout) for error in load.errors)
    made = await load.made()
    assert {made[number] for number in load.acknowledged} == {1}
    assert set(made) <= {0, 1}


async def test_an_error_names_the_store_once(server: RedisServer, store: RedisStore) -> None:
    """The text of an error contains `the store` once."""
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreError) as error:
        await store.charge([Charge(window_limit(9), fresh_key())])
    assert len(re.findall("the store", str(error.value))) == 1


async def test_an_error_within_the_script_gives_its_cause(server: RedisServer, store: RedisStore) -> None:
    """The text says that the server is full, which its operator has to know."""
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreError, match="OOM|maxmemory"):
        await store.charge([Charge(window_limit(9), fresh_key())])


async def test_a_full_server_opens_the_circuit_breaker(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """One log line says that the server is full and one that it has room, and in between no request waits for it."""
    async with Limiter(settings(server.url)) as limiter:
        checks = Checks(limiter, Identity(token="t", org=fresh_tag()))
        with server.client() as client:
            async with checks.running():
                await checks.shared()
                client.config_set("maxmemory", "1")
                await checks.degraded()
                asked = client.info("stats")["total_commands_processed"]
                assert isinstance(asked, int)
                await until(lambda: client.info("stats")["total_commands_processed"] > asked + 200)
                client.config_set("maxmemory", "0")
                await checks.shared()
    # The poll for overrides has a line of its own.
    assert sum("limits follow on_store_failure" in record.message for record in caplog.records) == 1
    assert sum("limits are shared again" in record.message for record in caplog.records) == 1
    assert isinstance(client, redis.Redis)
