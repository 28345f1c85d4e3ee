"""Where faults happen: one server behind a proxy, a Cluster with replicas, or a master that Sentinels know."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from redis.crc import key_slot

from benchmarks.faults.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import WatchedMaster
from tests.support.redis_server import RedisServer


@dataclass
class Place:
    """A store: `url` is what the workers are given, `direct` the same without a proxy, `server` what is done to."""

    url: str
    direct: str
    server: RedisServer
    proxy: Proxy
    stop: Callable[[], Awaitable[None]]


async def single(folder: Path) -> Place:
    """Start a server that keeps what it is told, and a proxy before it."""
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")
    server.start()
    proxy = Proxy(server.port)
    await proxy.start()

    async def stop() -> None:
        await proxy.stop()
        server.stop()

    return Place(f"redis://127.0.0.1:{proxy.port}/0", server.url, server, proxy, stop)


async def cluster(folder: Path) -> Place:
    """Start three masters and a replica of each; the server is the one that keeps the counters of `acme`."""
    made = RedisCluster(folder, 3, 1)
    made.start()
    for server in made.servers:
        made.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")

    async def stop() -> None:
        made.stop()

    server = made.owner(key_slot(b"{acme}"))
    return Place(made.url, made.url, server, Proxy(server.port), stop)


async def sentinel(folder: Path) -> Place:
    """Start a master, its replica and three Sentinels."""
    made = WatchedMaster(folder)
    made.start()

    async def stop() -> None:
        made.stop()

    server = made.master()
    return Place(made.url, made.url, server, Proxy(server.port), stop)
