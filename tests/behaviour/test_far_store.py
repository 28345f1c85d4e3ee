"""A store that is many milliseconds away is reached with the default settings, and by few connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ratelimit import Identity, Limit, Limiter, RateLimitSettings
from tests.support.redis_server import RedisServer


class FarProxy:
    """Forwards bytes to a server, each after half of a round trip; counts connections."""

    def __init__(self, port: int, round_trip: float) -> None:
        self._behind, self._delay = port, round_trip / 2
        self.port, self.connections = 0, 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FarProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        for source, target in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.create_task(self._forward(source, target))
            self._tasks.add(task)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(65536):
                loop.call_later(self._delay, self._write, target, data)
        except OSError:
            pass
        finally:
            target.close()

    @staticmethod
    def _write(target: asyncio.StreamWriter, data: bytes) -> None:
        if not target.is_closing():
            target.write(data)


@pytest.mark.parametrize("round_trip", [0.02, 0.04])
async def test_a_far_store_decides(redis_server: RedisServer, redis_url: str, round_trip: float) -> None:
    """Connecting takes longer than one call may; it goes on in the background, and then the store decides all."""
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    async with FarProxy(redis_server.port, round_trip).running() as proxy:
        settings = RateLimitSettings(store=f"redis://127.0.0.1:{proxy.port}", limits=limits)
        async with Limiter(settings) as limiter:
            decisions = [await limiter.check(Identity(token="t")) for _ in range(40)]
            assert [decision.degraded for decision in decisions[-20:]] == [False] * 20
        assert proxy.connections <= 4


async def test_slow_replies_open_no_second_connection_each(redis_server: RedisServer, redis_url: str) -> None:
    """Where every reply takes longer than half of the timeout, a second connection is tried once in a second."""
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    async with FarProxy(redis_server.port, 0.07).running() as proxy:
        settings = RateLimitSettings(store=f"redis://127.0.0.1:{proxy.port}", limits=limits)
        async with Limiter(settings) as limiter:
            for _ in range(40):
                await limiter.check(Identity(token="t"))
        assert proxy.connections <= 15
