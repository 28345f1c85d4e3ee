"""TLS, terminated by a proxy in front of a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.faults.proxy import Proxy
from ratelimit import Identity, Limiter, RedisStore, StoreError
from ratelimit.model.charge import Charge
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_server import RedisServer
from tests.support.stores import fresh_key, window_limit
from tests.support.tls_proxy import TlsProxy

pytestmark = pytest.mark.topologies


@pytest.fixture
async def proxy(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> AsyncIterator[TlsProxy]:
    made = TlsProxy(tmp_path, redis_server.port)
    await made.start()
    yield made
    await made.stop()


async def test_charges_travel_over_tls(proxy: TlsProxy) -> None:
    """Charges travel one after the other, many at a time in several pipelined calls, and in large calls."""
    store, key = RedisStore(proxy.url, timeout=10), fresh_key()
    one = Charge(window_limit(10**6), key)
    assert (await store.charge([one]))[0].remaining == 10**6 - 1
    replies = await asyncio.gather(*(store.charge([one]) for _ in range(1000)))
    assert sorted(limit.remaining for (limit,) in replies) == list(range(10**6 - 1001, 10**6 - 1))
    many = [Charge(window_limit(9), f"{key}:{number}") for number in range(1500)]
    assert {limit.remaining for limit in await store.charge(many)} == {8}
    assert proxy.taken == 1
    await store.aclose()


async def test_a_tls_connection_that_breaks_is_replaced(proxy: TlsProxy) -> None:
    """Under load no charge is made twice, and every acknowledged charge is there."""
    store = RedisStore(proxy.url, timeout=0.5)
    load = Load(store, fresh_tag())
    async with load.running():
        for _ in range(3):
            await load.answered()
            await proxy.stop()
            await proxy.start()
        await load.answered()
    made = await load.made()
    assert {made[number] for number in load.acknowledged} == {1}
    assert set(made) <= {0, 1}
    await store.aclose()


async def test_stalls_open_few_connections_and_leave_none(proxy: TlsProxy) -> None:
    """A second connection for a slow call is closed with its transport, also where it was still connecting."""
    between = Proxy(proxy.port)
    await between.start()
    url = f"rediss://localhost:{between.port}?ssl_ca_certs={proxy.authority}"
    store = RedisStore(url, timeout=0.1)
    for _ in range(20):
        async with asyncio.timeout(30):
            while await failed(store):  # noqa: ASYNC110 - until it is connected again
                await asyncio.sleep(0.01)
        between.stall()
        assert await failed(store)
        between.flow()
    await store.aclose()
    await until(lambda: not between.open_connections)
    print(f"\n20 stalls over TLS: {between.connections} connections")  # noqa: T201 - what a stall costs
    # Each stall breaks the connection, and a second one is tried at most once in a second.
    assert between.connections <= 2 * 20 + 1
    await between.stop()


async def failed(store: RedisStore) -> bool:
    try:
        await store.charge([Charge(window_limit(10**6), fresh_key())])
    except StoreError:
        return True
    return False


@pytest.mark.parametrize("problem", ["no authority", "other authority", "other name"])
async def test_a_certificate_that_is_not_trusted_is_a_failure(
    proxy: TlsProxy, redis_server: RedisServer, tmp_path: Path, problem: str
) -> None:
    """Charges raise `StoreError`, and nothing is sent: neither the password nor a charge reaches the server."""
    other = tmp_path / "other"
    other.mkdir()
    url = {
        "no authority": f"rediss://user:hunter2@localhost:{proxy.port}",
        "other authority": f"rediss://user:hunter2@localhost:{proxy.port}?ssl_ca_certs={TlsProxy(other, 1).authority}",
        "other name": f"rediss://user:hunter2@127.0.0.1:{proxy.port}?ssl_ca_certs={proxy.authority}",
    }[problem]
    store = RedisStore(url, timeout=5)
    for _ in range(2):
        with pytest.raises(StoreError) as error:
            await store.charge([Charge(window_limit(9), fresh_key())])
        assert "hunter2" not in str(error.value)
    await store.aclose()
    assert proxy.passed == 0
    with redis_server.client() as client:
        assert client.dbsize() == 0


async def test_a_limiter_decides_while_the_proxy_is_down(proxy: TlsProxy) -> None:
    """No check raises, decisions are degraded during the outage, and the limiter finds the server again."""
    async with Limiter(settings(proxy.url)) as limiter:
        checks = Checks(limiter, Identity(token="t", org=fresh_tag()))
        async with checks.running():
            await checks.shared()
            await proxy.stop()
            await checks.degraded()
            await until(lambda: checks.was_away)
            await proxy.start()
            await checks.shared()
        assert checks.was_away
        assert not limiter.enforcer.circuit_breaker.is_open
