"""What a real Redis goes through: full, busy, loading, flushed, empty after a restart, and read-only."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from ratelimit import Identity, Limiter, RedisStore, StoreError
from ratelimit.charge import Charge
from ratelimit.errors import StoreTimeout
from tests.support.engines import fresh_key, terms
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.topologies

BUSY = """
local function now() local time = redis.call('TIME') return time[1] * 1000000 + time[2] end
local ends = now() + 1000000
repeat until now() >= ends
return 1
"""

BALLAST = 150, 200_000
"""Values, and their bytes: a server that loads looks at its clients after every 2 MB."""


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
    """Under load, with `noeviction`: `StoreError` meanwhile, and nothing of what was refused is charged."""
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
    """Under load, while somebody's script runs for a second: no call hangs, and none is doubled."""
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
    """Under load, while it reads its file again: LOADING is a `StoreError`, and what was saved counts on."""
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
        server._command += ("--key-load-delay", "7500")  # Microseconds for each key.
        await asyncio.to_thread(server.start)  # Returns when it has loaded.
        await load.answered()
    told = {str(error) for error in load.errors}
    assert any("loading" in text.lower() for text in told), told
    made = await load.made()
    assert {made[number] for number in saved} == {1}
    assert set(made) <= {0, 1}


async def test_a_script_that_is_forgotten_is_sent_again(server: RedisServer, store: RedisStore) -> None:
    """Under load, again and again: nobody hears of it."""
    load = Load(store, fresh_tag())
    async with load.running():
        for _ in range(10):
            with server.client() as client:
                client.script_flush()
            await load.answered()
    assert load.errors == []
    assert await load.made() == [1] * load.sent


async def test_a_restart_with_nothing_begins_anew(server: RedisServer, store: RedisStore) -> None:
    """Under load: what was counted is gone, what comes is counted once, on a new connection."""
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


async def test_a_replica_is_no_address_to_charge_at(server: RedisServer, tmp_path: Path) -> None:
    """`StoreError`, time after time, and nothing hangs; when it is made the master, charges are made."""
    folder = tmp_path / "replica"
    folder.mkdir()
    replica = RedisServer(folder, "--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0")
    replica.start()
    store, one = RedisStore(replica.url, timeout=2), Charge(terms(9), fresh_key())
    try:
        with replica.client() as client:
            await until(lambda: client.info("replication")["master_link_status"] == "up")
            for _ in range(3):
                with pytest.raises(StoreError) as error:
                    await store.charge([one])
                assert not isinstance(error.value, StoreTimeout)
            told = await asyncio.gather(*(store.charge([one]) for _ in range(50)), return_exceptions=True)
            assert {isinstance(each, StoreError) for each in told} == {True}
            client.replicaof("NO", "ONE")
        assert (await store.charge([one]))[0].remaining == 8
    finally:
        await store.aclose()
        replica.stop()


async def test_a_server_that_hangs_is_left_after_the_timeout(server: RedisServer, store: RedisStore) -> None:
    """Under load: `StoreTimeout` soon, and when it goes on, whatever was sent is done once."""
    load = Load(store, fresh_tag())
    async with load.running():
        await load.answered()
        server.pause()
        before = len(load.errors)
        await until(lambda: len(load.errors) > before, 10)
        server.go_on()
        await load.answered()
    assert any(isinstance(error, StoreTimeout) for error in load.errors)
    made = await load.made()
    assert {made[number] for number in load.acknowledged} == {1}
    assert set(made) <= {0, 1}


async def test_an_error_says_once_that_the_store_answered(server: RedisServer, store: RedisStore) -> None:
    """However many waited for the call."""
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreError) as error:
        await store.charge([Charge(terms(9), fresh_key())])
    assert len(re.findall("the store", str(error.value))) == 1


async def test_an_error_within_the_script_says_what_it_was(server: RedisServer, store: RedisStore) -> None:
    """That it is full, read-only, or may not do something, is the part that somebody has to read."""
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreError, match="OOM|maxmemory"):
        await store.charge([Charge(terms(9), fresh_key())])


async def test_a_limiter_stays_away_from_a_full_server(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it is full and one when there is room, and no request waits for it between."""
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
    assert sum(record.message.startswith("store away") for record in caplog.records) == 1
    assert isinstance(client, redis.Redis)
