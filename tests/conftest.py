import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from starlette.testclient import TestClient

from ratelimit import MemoryStore, RedisStore
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import client_for
from tests.support.redis_server import RedisServer
from tests.support.server_binary import ServerMissingError, binary, version
from tests.support.stores import SyncMemoryStore, SyncRedisStore, SyncStore

# A shared machine may stop for a while in the middle of any example.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_configure() -> None:
    """Choose the server once, for workers and examples too."""
    try:
        os.environ["REDIS_SERVER"] = binary()
    except ServerMissingError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header() -> str:
    return f"server: {version(binary())} ({binary()})"


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
    """Return a function that makes a client of an app with the given settings, limited twice on purpose."""
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
    # On a slow machine a limiter that the test has not closed may poll just now, and connect again.
    polling = asyncio.all_tasks() - {asyncio.current_task()}
    for task in polling:
        task.cancel()
    await asyncio.gather(*polling, return_exceptions=True)
    await remote.aclose()


@pytest.fixture(scope="module", params=["memory", "redis"])
def sync_store(request: pytest.FixtureRequest) -> Iterator[SyncStore]:
    """Each store in turn, kept for all examples of a module: every example uses keys of its own."""
    if request.param == "memory":
        yield SyncMemoryStore()
        return
    remote = SyncRedisStore(request.getfixturevalue("redis_server").url)
    yield remote
    remote.close()


@pytest.fixture(scope="module")
def sync_redis(redis_server: RedisServer) -> Iterator[SyncRedisStore]:
    """Return the Redis store alone, kept for all examples of a module."""
    remote = SyncRedisStore(redis_server.url)
    yield remote
    remote.close()
