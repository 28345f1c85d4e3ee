"""Deployments in which faults happen: one server behind a proxy, a Cluster with replicas, or a master with Sentinels."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from redis.crc import key_slot

from benchmarks.faults.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import WatchedMaster
from tests.support.redis_server import RedisServer


@dataclass
class Deployment:
    """A store: `url` is for the workers, `direct` the same without a proxy, and `server` the one that the fault strikes."""

    url: str
    direct: str
    server: RedisServer
    proxy: Proxy
    stop: Callable[[], Awaitable[None]]


async def single(folder: Path) -> Deployment:
    """Start a server that writes every command to disk, and a proxy in front of it."""
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")
    server.start()
    proxy = Proxy(server.port)
    await proxy.start()

    async def stop() -> None:
        await proxy.stop()
        server.stop()

    return Deployment(f"redis://127.0.0.1:{proxy.port}/0", server.url, server, proxy, stop)


async def cluster(folder: Path) -> Deployment:
    """Start three masters with a replica each; `server` is the master that holds the counters of `acme`."""
    made = RedisCluster(folder, 3, 1)
    made.start()
    for server in made.servers:
        made.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")

    async def stop() -> None:
        made.stop()

    server = made.owner(key_slot(b"{acme}"))
    return Deployment(made.url, made.url, server, Proxy(server.port), stop)


async def sentinel(folder: Path) -> Deployment:
    """Start a master, its replica and three Sentinels; `server` is the master."""
    made = WatchedMaster(folder)
    made.start()

    async def stop() -> None:
        made.stop()

    server = made.master()
    return Deployment(made.url, made.url, server, Proxy(server.port), stop)
