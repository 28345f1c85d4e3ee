"""TLS, by a proxy of our own in front of a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratelimit import Identity, Limiter, RedisStore, StoreError
from ratelimit.charge import Charge
from tests.support.engines import fresh_key, terms
from tests.support.load import Checks, Load, fresh_tag, settings, until
from tests.support.redis_server import RedisServer
from tests.support.tls_proxy import TlsProxy

pytestmark = pytest.mark.topologies


@pytest.fixture
async def proxy(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> AsyncIterator[TlsProxy]:
    made = TlsProxy(tmp_path, redis_server.port)
    await made.start()
    yield made
    await made.stop()


async def test_charges_travel_over_tls(proxy: TlsProxy) -> None:
    """One after the other and many at a time, in several calls under way, and large ones."""
    store, key = RedisStore(proxy.url, timeout=10), fresh_key()
    one = Charge(terms(10**6), key)
    assert (await store.charge([one]))[0].remaining == 10**6 - 1
    told = await asyncio.gather(*(store.charge([one]) for _ in range(1000)))
    assert sorted(limit.remaining for (limit,) in told) == list(range(10**6 - 1001, 10**6 - 1))
    many = [Charge(terms(9), f"{key}:{number}") for number in range(1500)]
    assert {limit.remaining for limit in await store.charge(many)} == {8}
    assert proxy.taken == 1
    await store.aclose()


async def test_a_tls_connection_that_breaks_is_made_anew(proxy: TlsProxy) -> None:
    """Under load: nothing is doubled, and what was acknowledged is there."""
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


@pytest.mark.parametrize("whose", ["nobody's", "another's", "another name's"])
async def test_a_certificate_that_is_not_trusted_is_a_failure(
    proxy: TlsProxy, redis_server: RedisServer, tmp_path: Path, whose: str
) -> None:
    """`StoreError`, and nothing is sent: neither the password nor a charge reaches the server."""
    other = tmp_path / "other"
    other.mkdir()
    url = {
        "nobody's": f"rediss://user:hunter2@localhost:{proxy.port}",
        "another's": f"rediss://user:hunter2@localhost:{proxy.port}?ssl_ca_certs={TlsProxy(other, 1).authority}",
        "another name's": f"rediss://user:hunter2@127.0.0.1:{proxy.port}?ssl_ca_certs={proxy.authority}",
    }[whose]
    store = RedisStore(url, timeout=5)
    for _ in range(2):
        with pytest.raises(StoreError) as error:
            await store.charge([Charge(terms(9), fresh_key())])
        assert "hunter2" not in str(error.value)
    await store.aclose()
    assert proxy.passed == 0
    with redis_server.client() as client:
        assert client.dbsize() == 0


async def test_a_limiter_goes_on_while_tls_is_gone(proxy: TlsProxy) -> None:
    """No check raises, decisions are degraded meanwhile, and the limiter finds the server by itself."""
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
        assert not limiter._guard.absence.away
