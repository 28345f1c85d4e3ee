"""Deployments in which faults happen: a server behind a proxy, a Cluster, a master with Sentinels."""

import asyncio
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.crc import key_slot

from benchmarks.faults.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import WatchedMaster
from tests.support.redis_server import RedisServer
from tests.support.tls_proxy import TlsProxy


@dataclass
class Deployment:
    """A store: `url` is for the workers, `direct` the same without a proxy, and `server` the one that the fault strikes."""

    url: str
    direct: str
    server: RedisServer
    proxy: Proxy
    stop: Callable[[], Awaitable[None]]
    cluster: RedisCluster | None = None
    set_clock: Callable[[int], None] | None = None
    activity: "asyncio.Task[None] | None" = None


DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")
"""Options of a server that writes every command to disk."""


async def single(folder: Path) -> Deployment:
    """Start a server that writes every command to disk, and a proxy in front of it."""
    return await _behind_a_proxy(RedisServer(folder, *DURABLE))


async def clocked(folder: Path) -> Deployment:
    """Start a server whose wall clock `set_clock` shifts by seconds; this needs a C compiler."""
    library, shift = folder / "shifted_clock.so", folder / "shift"
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).parent / "shifted_clock.c")]
    await asyncio.to_thread(subprocess.run, command, check=True)
    shift.write_bytes(struct.pack("q", 0))
    made = await _behind_a_proxy(
        RedisServer(folder, environment={"LD_PRELOAD": str(library), "SHIFT_FILE": str(shift)})
    )

    def set_clock(seconds: int) -> None:
        with shift.open("r+b") as file:  # The file stays the one that the server has mapped.
            file.write(struct.pack("q", seconds))

    made.set_clock = set_clock
    return made


def far(round_trip: float) -> Callable[[Path], Awaitable[Deployment]]:
    """Return a deployment whose server is `round_trip` seconds away, from the first connection on."""

    async def deploy(folder: Path) -> Deployment:
        made = await single(folder)
        made.proxy.mode, made.proxy.delay = "far", round_trip
        return made

    return deploy


async def tls(folder: Path) -> Deployment:
    """Start a server, TLS in front of it, and the proxy in front of that."""
    server = RedisServer(folder, *DURABLE)
    server.start()
    terminator = TlsProxy(folder, server.port)
    await terminator.start()
    proxy = Proxy(terminator.port)
    await proxy.start()

    async def stop() -> None:
        await proxy.stop()
        await terminator.stop()
        server.stop()

    url = f"rediss://localhost:{proxy.port}?ssl_ca_certs={terminator.authority}"
    return Deployment(url, server.url, server, proxy, stop)


async def _behind_a_proxy(server: RedisServer) -> Deployment:
    server.start()
    proxy = Proxy(server.port)
    await proxy.start()

    async def stop() -> None:
        await proxy.stop()
        server.stop()

    return Deployment(f"redis://127.0.0.1:{proxy.port}/0", server.url, server, proxy, stop)


def cluster(replicas: int) -> Callable[[Path], Awaitable[Deployment]]:
    """Return a deployment of three masters; `server` is the master that holds the counters of `acme`."""

    async def deploy(folder: Path) -> Deployment:
        made = RedisCluster(folder, 3, replicas)
        made.start()
        for server in made.servers:
            made.run(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")

        async def stop() -> None:
            made.stop()

        server = made.owner(key_slot(b"{acme}"))
        return Deployment(made.url, made.url, server, Proxy(server.port), stop, cluster=made)

    return deploy


async def sentinel(folder: Path) -> Deployment:
    """Start a master, its replica and three Sentinels; `server` is the master."""
    made = WatchedMaster(folder)
    made.start()

    async def stop() -> None:
        made.stop()

    server = made.master()
    return Deployment(made.url, made.url, server, Proxy(server.port), stop)
