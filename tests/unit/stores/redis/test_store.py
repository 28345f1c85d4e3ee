"""The Redis store: few calls, errors of this package alone, several event loops."""

import asyncio
import gc
import os
from typing import Any

import pytest
import redis

from ratelimit import ConfigurationError, RedisStore, StoreError
from ratelimit.clock import system_clock
from ratelimit.errors import StoreTimeout, StoreUnavailable
from ratelimit.model.calendar_period import end_of, start_of
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis.codec import SCRIPT, SCRIPT_SHA
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, fresh_key, quota_limit, window_limit
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer


async def remaining(store: RedisStore, key: str, limit: int = 10) -> int:
    (service_limit,) = await store.charge([Charge(window_limit(limit), key)])
    return service_limit.remaining


def calls(server: RedisServer) -> Any:
    with server.client() as client:
        info: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in info.items()}


async def test_concurrent_requests_travel_together(redis_server: RedisServer, redis_url: str) -> None:
    """A thousand checks at the same moment take a handful of calls."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()
    await remaining(store, key)
    before = calls(redis_server).get("evalsha", 0)
    await asyncio.gather(*(remaining(store, key, 10**6) for _ in range(1000)))
    assert calls(redis_server)["evalsha"] - before <= 9
    await store.aclose()


async def test_one_batch_reads_once_and_writes_once_per_key(redis_server: RedisServer, redis_url: str) -> None:
    """Sixty requests on three keys in two calls: each has one MGET, and one write for each key."""
    store, keys = RedisStore(redis_url, timeout=10), [fresh_key() for _ in range(3)]
    await asyncio.gather(remaining(store, keys[0]), remaining(store, keys[0]))
    before = calls(redis_server)
    charges = [Charge(window_limit(1000, policy=key), key) for key in keys]
    await asyncio.gather(*(store.charge(charges) for _ in range(60)))
    after = calls(redis_server)
    assert after["evalsha"] - before["evalsha"] == after["mget"] - before["mget"] == 2
    writes = sum(after.get(name, 0) - before.get(name, 0) for name in ("set", "setrange"))
    assert writes == 8  # Three keys and the kept reply, twice.
    await store.aclose()


async def test_expiries_cover_the_state_and_no_more(redis_server: RedisServer, redis_url: str) -> None:
    """A key lives for a window, and for another one where an overage may be carried."""
    store, plain, bursting = RedisStore(redis_url, timeout=10), fresh_key(), fresh_key()
    await store.charge([Charge(window_limit(1000, 100), plain), Charge(window_limit(1000, 100, 250), bursting)])
    with redis_server.client() as client:
        lives: Any = [client.pttl(plain), client.pttl(bursting)]
    assert 100_000 < lives[0] < 110_000
    assert 200_000 < lives[1] < 215_000
    await store.aclose()


async def test_state_is_small(redis_server: RedisServer, redis_url: str, clock: ManualClock) -> None:
    """160 bytes for a key with one request, 1.2 KB at any usual rate, with a key of 40 characters."""
    store, few, full = RedisStore(redis_url, clock=clock, timeout=10), "k" * 40, "f" * 40
    limit = window_limit(10**9, 60, 10**8)
    await store.charge([Charge(limit, few)])
    for _ in range(200):
        clock.advance(ms=938)
        await store.charge([Charge(limit, full, 1000)])
    with redis_server.client() as client:
        sizes: Any = [client.memory_usage(few), client.memory_usage(full)]
    assert sizes[0] <= 160
    assert sizes[1] <= 1200
    await store.aclose()


async def test_a_server_that_does_not_exist(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection raises `StoreUnavailable`, without the address."""
    store = RedisStore(f"redis://user:hunter2@127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable) as error:
        await remaining(store, fresh_key())
    assert "hunter2" not in str(error.value)
    assert "127.0.0.1" not in str(error.value)
    assert "hunter2" not in repr(store)
    await store.aclose()


async def test_a_server_that_does_not_answer() -> None:
    """A call ends after the timeout, with `StoreTimeout`, and so do all callers that wait for it."""
    done = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await done.wait()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    store = RedisStore(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.05)
    results = await asyncio.gather(*(remaining(store, "k") for _ in range(10)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreTimeout}
    await store.aclose()
    done.set()
    server.close()
    await server.wait_closed()


async def test_errors_of_the_server_are_store_errors(redis_server: RedisServer, redis_url: str) -> None:
    """Whatever Redis answers, callers get `StoreError` and never an error of redis-py."""
    store = RedisStore(redis_url, timeout=10)
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        try:
            with pytest.raises(StoreError, match=r"^the store answered -?OOM ") as error:
                await remaining(store, fresh_key())
            assert getattr(error.value, "code", "") == "OOM"
        finally:
            client.config_set("maxmemory", "0")
    assert await remaining(store, fresh_key()) == 9
    await store.aclose()


async def test_foreign_values_are_overwritten(redis_server: RedisServer, redis_url: str) -> None:
    """A foreign value at a key of the limiter neither breaks the batch nor stays."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()
    with redis_server.client() as client:
        for foreign in (b"", b"garbage", b"\x04short", b"\x14" + b"x" * 30, b"\x00" * 100):
            client.set(key, foreign)
            assert [await remaining(store, key), await remaining(store, key)] == [9, 8]
        client.delete(key)
        client.lpush(key, "x")
        assert await remaining(store, key) == 9
    await store.aclose()


@pytest.mark.parametrize("query", ["foo=50", "socket_timeout=soon", "max_connections=many"])
def test_a_url_that_cannot_work_fails_at_construction(query: str) -> None:
    """Options that redis-py does not know raise before the first request."""
    with pytest.raises(ConfigurationError, match="redis-py cannot use this URL"):
        RedisStore(f"redis://user:hunter2@localhost?{query}")


async def test_the_url_cannot_turn_on_options_that_break_counting(redis_url: str) -> None:
    """Replies stay bytes and redis-py sends no charge twice, whatever the URL asks for."""
    store = RedisStore(redis_url + "?decode_responses=true&retry_on_timeout=true", timeout=10)
    assert await remaining(store, fresh_key()) == 9
    kwargs = store.client.redis.connection_pool.connection_kwargs
    assert (kwargs["retry_on_timeout"], kwargs["retry_on_error"]) == (False, [])
    await store.aclose()


async def test_a_refused_login_is_not_an_unreachable_server(redis_server: RedisServer, redis_url: str) -> None:
    """The error says so, and does not repeat the password."""
    store = RedisStore(redis_url.replace("redis://", "redis://stranger:hunter2@"), timeout=10)
    with pytest.raises(StoreError, match=r"refused the login: .*WRONGPASS|refused the login") as error:
        await remaining(store, fresh_key())
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(store)
    await store.aclose()


async def test_without_a_clock_the_servers_time_counts(redis_url: str) -> None:
    """A charge made by the server's clock counts now, and no longer an hour later."""
    limit, key, clock = window_limit(2, 600), fresh_key(), ManualClock(system_clock())
    server, manual = RedisStore(redis_url, timeout=10), RedisStore(redis_url, clock=clock, timeout=10)
    (service_limit,) = await server.charge([Charge(limit, key)])
    assert 599 < service_limit.reset_after < 601
    left = [(await manual.charge([Charge(limit, key)], peek=True))[0].remaining]
    clock.advance(seconds=3600)
    left += [(await manual.charge([Charge(limit, key)], peek=True))[0].remaining]
    assert left == [1, 2]
    await server.aclose()
    await manual.aclose()


def test_several_event_loops_use_one_store(redis_url: str) -> None:
    """Each loop has connections of its own, as under a test client that starts one for each request."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()

    async def once() -> int:
        left = await remaining(store, key)
        await store.aclose()
        return left

    assert [asyncio.run(once()) for _ in range(3)] == [9, 8, 7]


def test_a_forked_process_has_connections_of_its_own(redis_url: str) -> None:
    """A store that was used before the fork counts on in both processes, and no call of one is taken for the other's."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()

    async def once() -> int:
        left = await remaining(store, key)
        await store.aclose()
        return left

    assert asyncio.run(once()) == 9
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(once()) == 8 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(once()) == 7


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_clients_of_closed_loops_are_forgotten(redis_url: str) -> None:
    """An app that never closes its store, under a test client with a loop for each request, holds one client."""
    store, key = RedisStore(redis_url, timeout=10), fresh_key()
    assert [asyncio.run(remaining(store, key)) for _ in range(5)] == [9, 8, 7, 6, 5]
    assert store.client_count == 1
    store.forget_clients()
    assert store.client_count == 0
    gc.collect()


def test_the_script_is_known_by_its_hash(redis_server: RedisServer) -> None:
    """The hash that EVALSHA names is the one under which the server loads the script."""
    with redis_server.client() as client:
        assert client.script_load(SCRIPT) == SCRIPT_SHA
        client.script_flush()
    assert isinstance(client, redis.Redis)


async def test_each_kind_expires_when_it_is_not_needed(redis_server: RedisServer, redis_url: str) -> None:
    """By the server's clock: a month a day after the next, permits with their leases, levels when they are empty."""
    store, day = RedisStore(redis_url, timeout=10), 86_400_000
    month, level = Charge(quota_limit(5, "month"), "m"), Charge(quota_limit(5, None), "l")
    runs = Charge(concurrency_limit(5, 60_000), "s")
    reply = await store.submit(StoreRequest([month, level, runs], Operation.ACQUIRE, 7))
    with redis_server.client() as client:
        ends = end_of("month", end_of("month", start_of("month", reply.store_ms))) + day
        assert abs(client.pttl("m") - (ends - reply.store_ms)) < 60_000
        assert client.pttl("l") == -1
        assert 60_000 < client.pttl("s") <= 60_000 + day
        await store.submit(StoreRequest([level._replace(cost=-1)], Operation.RELEASE))
        assert not client.exists("l")
    await store.aclose()


async def test_expired_leases_are_removed(redis_server: RedisServer, redis_url: str, clock: ManualClock) -> None:
    """When the next permit is taken."""
    store, runs = RedisStore(redis_url, clock=clock, timeout=10), Charge(concurrency_limit(5, 1000), "s")
    for holder in range(1, 5):
        await store.submit(StoreRequest([runs], Operation.ACQUIRE, holder))
        clock.advance(ms=1001)
    with redis_server.client() as client:
        assert client.zrange("s", 0, -1) == [b"4"]
    await store.aclose()


async def test_reading_writes_nothing(redis_server: RedisServer, redis_url: str) -> None:
    """A look at a usage leaves no key, so a server that accepts no writes answers it; a correction keeps its reply."""
    store, charge = RedisStore(redis_url, timeout=10), Charge(quota_limit(9, "day"), fresh_key())
    with redis_server.client() as client:
        client.flushall()
        for operation in (Operation.PEEK, Operation.USAGE):
            await store.submit(StoreRequest([charge], operation))
        assert client.dbsize() == 0
        await store.submit(StoreRequest([charge._replace(cost=-1)], Operation.ADJUST))
        assert client.dbsize() > 0
    await store.aclose()
