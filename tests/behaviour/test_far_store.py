"""A store that is many milliseconds away is reached with the default settings, and by few connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from ratelimit import Identity, Limit, Limiter, RateLimitSettings
from tests.support.load import until
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer


class FarProxy:
    """Forwards bytes to a server, each after half of a round trip; counts connections."""

    def __init__(self, port: int, round_trip: float) -> None:
        self._behind, self._delay = port, round_trip / 2
        self.port, self.connections = 0, 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

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
            for writer in self._writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        serving = asyncio.current_task()
        assert serving is not None
        self._tasks.add(serving)
        self._writers.add(writer)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        self._writers.add(server_writer)
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
            began, decided = monotonic(), list[bool]()
            async with asyncio.timeout(60):
                while decided[-5:] != [True] * 5:  # A slow machine may miss a deadline now and then.
                    decided.append(not (await limiter.check(Identity(token="t"))).degraded)
                    await asyncio.sleep(0.001)  # While the store is unavailable, a check waits for nothing.
        missed = decided[decided.index(True) :].count(False)
        assert proxy.connections <= 4 + 2 * missed + (monotonic() - began)


async def test_a_far_cluster_decides(tmp_path: Path) -> None:
    """Its topology is read in the background too: that takes several round trips to several nodes."""
    cluster = RedisCluster(tmp_path)
    cluster.start()
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    try:
        async with AsyncExitStack() as stack:
            ports = []
            for server in cluster.servers:
                proxy = await stack.enter_async_context(FarProxy(server.port, 0.04).running())
                ports.append(proxy.port)
                for name, port in (
                    ("cluster-announce-bus-port", server.port + 10_000),
                    ("cluster-announce-port", proxy.port),
                ):
                    cluster.run(server, "CONFIG", "SET", name, port)
            # An old Redis goes on to name its own port where it is asked itself.
            seen_by = list(zip(cluster.servers, ports, strict=True))
            await until(lambda: all({*ports} - {own} <= cluster.ports(server) for server, own in seen_by))
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
            async with Limiter(RateLimitSettings(store=f"redis+cluster://{hosts}", limits=limits)) as limiter:

                async def degraded() -> int:
                    callers = [Identity(token=f"t{n}", org=f"o{n}") for n in range(5)]
                    return sum([(await limiter.check(caller)).degraded for caller in callers])

                async with asyncio.timeout(120):
                    while await degraded():  # noqa: ASYNC110 - a slow machine may miss a deadline now and then
                        await asyncio.sleep(0.01)
    finally:
        cluster.stop()


async def test_the_first_request_waits_for_a_silent_store_once(redis_server: RedisServer, redis_url: str) -> None:
    """Its overrides and its charge share one `store_timeout`, of which nothing is left after the overrides."""
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    redis_server.pause()
    try:
        limiter = Limiter(RateLimitSettings(store=redis_url, store_timeout=1.5, limits=limits))
        began = asyncio.get_running_loop().time()
        decision = await limiter.check(Identity(token="t"))
        assert (decision.allowed, decision.degraded) == (True, True)
        assert asyncio.get_running_loop().time() - began < 2.9
    finally:
        redis_server.go_on()
    assert not (await limiter.check(Identity(token="t"))).degraded
    await limiter.aclose()


async def test_slow_replies_open_no_second_connection_each(redis_server: RedisServer, redis_url: str) -> None:
    """Where every reply takes longer than half of the timeout, a second connection is tried once in a second."""
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    async with FarProxy(redis_server.port, 0.07).running() as proxy:
        settings = RateLimitSettings(store=f"redis://127.0.0.1:{proxy.port}", limits=limits)
        async with Limiter(settings) as limiter:
            for _ in range(40):
                await limiter.check(Identity(token="t"))
        assert proxy.connections <= 15


@pytest.mark.parametrize("round_trip", [0.096, 0.104, 0.112, 0.12])
async def test_a_connection_that_is_made_at_the_last_moment_is_kept(
    redis_server: RedisServer, round_trip: float
) -> None:
    """The request that has waited for it is decided without the store; it does not take the connection from the next one."""
    limits = [Limit(name="far", rate="1000/minute", per="token")]
    async with FarProxy(redis_server.port, round_trip).running() as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with Limiter(RateLimitSettings(store=url, store_timeout=0.4, limits=limits)) as limiter:
            decided = list[bool]()
            async with asyncio.timeout(60):
                while decided[-10:] != [True] * 10:
                    decided.append(not (await limiter.check(Identity(token="t"))).degraded)
                    await asyncio.sleep(0.02)
        first = decided.index(True)
        missed = decided[first:].count(False)  # By a machine that stands still.
        assert proxy.connections <= 4 + 2 * missed
        assert first <= 15
