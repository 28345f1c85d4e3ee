"""Every store of this package passes the conformance suite (with `testing.one_request`) that stores of users have to pass."""

import pytest

from ratelimit import MemoryStore, RedisStore
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock, StoreConformance


class TestMemory(StoreConformance):
    def make_store(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)


class TestRedis(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self, clock: ManualClock) -> Store:
        return RedisStore(self.url, clock=clock, timeout=10)
