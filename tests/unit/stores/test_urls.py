"""Which store a URL opens."""

import pytest

from ratelimit import ConfigurationError, MemoryStore, RedisStore
from ratelimit.model.charge import Charge
from ratelimit.model.store_url import SCHEMES
from ratelimit.stores.messages import StoreRequest
from ratelimit.stores.urls import open_store
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import window_limit

URLS = {
    "memory": "memory://",
    "redis": "redis://localhost",
    "rediss": "rediss://localhost",
    "unix": "unix:///run/redis.sock",
    "redis+cluster": "redis+cluster://localhost",
    "redis+sentinel": "redis+sentinel://localhost/name",
}


def test_every_scheme_opens_a_store() -> None:
    """Nothing is connected: the servers need not exist."""
    assert set(URLS) == set(SCHEMES)
    kinds = {scheme: type(open_store(url)) for scheme, url in URLS.items()}
    assert kinds == {scheme: MemoryStore if scheme == "memory" else RedisStore for scheme in SCHEMES}


def test_an_unknown_scheme_raises_without_the_url() -> None:
    """It may hold a password."""
    with pytest.raises(ConfigurationError, match="^store: the URL must begin with one of memory://, redis://") as error:
        open_store("http://user:hunter2@localhost")
    assert "hunter2" not in str(error.value)


async def test_a_store_goes_by_the_clock_that_it_is_given(redis_url: str, clock: ManualClock) -> None:
    """Whichever store the URL opens."""
    for url in ("memory://", redis_url):
        store = open_store(url, clock=clock, timeout=10)
        reply = await store.submit(StoreRequest([Charge(window_limit(5), "k")]))
        assert (reply.now, reply.store_ms) == (clock(), clock() // 1000)
        await store.aclose()
