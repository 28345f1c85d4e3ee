from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from starlette.testclient import TestClient

from ratelimit import MemoryStore, RedisStore
from ratelimit.stores import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import client_for
from tests.support.engines import Engine, MemoryEngine, RedisEngine
from tests.support.redis_server import RedisServer

# A shared machine may stop for a while in the middle of any example.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def nobody_waits() -> Iterator[None]:
    """Let a worker that finds its store again be back at once: nothing sleeps here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ratelimit.absence.GRACE", 0.0)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(Path(tmp_path_factory.mktemp("redis")))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Return the address of a real, empty Redis."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limited(clock: ManualClock) -> Iterator[Callable[..., TestClient]]:
    """Return a maker of clients, each of an app with the settings that it is given, limited twice on purpose."""
    with ExitStack() as stack:

        def make(**settings: Any) -> TestClient:
            return stack.enter_context(client_for(clock, **settings))

        yield make


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Store]:
    """Each store in turn, on the manual clock."""
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    remote = RedisStore(request.getfixturevalue("redis_url"), clock=clock, timeout=10)
    yield remote
    await remote.aclose()


@pytest.fixture(scope="module", params=["memory", "redis"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn, kept for all examples of a module: every example uses keys of its own."""
    if request.param == "memory":
        yield MemoryEngine()
        return
    remote = RedisEngine(request.getfixturevalue("redis_server").url)
    yield remote
    remote.close()


@pytest.fixture(scope="module")
def redis_engine(redis_server: RedisServer) -> Iterator[RedisEngine]:
    remote = RedisEngine(redis_server.url)
    yield remote
    remote.close()
