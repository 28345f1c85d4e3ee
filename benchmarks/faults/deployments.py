"""The three topologies in which faults happen: a single server, a Cluster, and a master with Sentinels."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import trustme
from redis.crc import key_slot

from benchmarks.faults.nodes import Node, Nodes, clock_library
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import WatchedMaster, Watcher
from tests.support.redis_server import RedisServer

SLOT: Final = key_slot(b"{acme}")
"""The hash slot of all counters that the workers use."""

LOGIN: Final = ("worker", "secret")
"""The user and the password of the workers, where they log in."""

_SENTINELS_ADDRESS: Final = "127.0.0.99"
_PATIENT_MS: Final = 60_000
"""Milliseconds after which Sentinels replace a master where they shall not."""


@dataclass(frozen=True)
class Setup:
    """What a fault needs of a deployment.

    `fails_over` gives each master a replica, which replaces it after half a second; without it nothing replaces a master for
    as long as a fault lasts. `clocked` servers have wall clocks that can be shifted, and compile a library for that. With
    `tls` the workers connect by TLS, with `login` they log in. The struck server is `far` seconds away, there and back.
    """

    fails_over: bool = False
    clocked: bool = False
    tls: bool = False
    login: bool = False
    far: float = 0.0


@dataclass
class Deployment:
    """A running store: its `url` for the workers, all its nodes, and the one that the fault strikes.

    The struck node serves all counters of the workers. `cluster` and `watched` are how the nodes belong together.
    """

    url: str
    nodes: list[Node]
    struck: Node
    stop: Callable[[], Awaitable[None]]
    cluster: RedisCluster | None = None
    watched: WatchedMaster | None = None

    @property
    def others(self) -> list[Node]:
        """All nodes but the struck one."""
        return [each for each in self.nodes if each is not self.struck]

    @property
    def replica(self) -> Node:
        """The replica of the struck node."""
        if self.watched is not None:
            return self.others[0]
        assert self.cluster is not None
        number = self.cluster.servers.index(self.struck.server)  # The replicas follow their masters in the same order.
        return self.nodes[number + self.cluster.masters]


Deploy = Callable[[Path, Setup], Awaitable[Deployment]]


async def single(folder: Path, setup: Setup) -> Deployment:
    """Start one server."""
    nodes = await _nodes(folder, setup)
    server = nodes.make(folder)
    await _start(nodes, server.start, server.stop)
    host = "localhost" if setup.tls else "127.0.0.1"
    url = f"redis{'s' * setup.tls}://{_login(setup)}{host}:{server.announced}/0{_query(nodes, {})}"
    return await _ready(setup, Deployment(url, nodes.made, nodes.made[0], partial(_stop, nodes, server.stop)))


async def cluster(folder: Path, setup: Setup) -> Deployment:
    """Start three masters, and three replicas where the fault needs them."""
    nodes = await _nodes(folder, setup, is_cluster=True)
    made = RedisCluster(folder, 3, int(setup.fails_over), make=nodes.make)
    await _start(nodes, made.start, made.stop)
    struck, query = nodes.node_of(made.owner(SLOT)), _query(nodes, {"ssl": "true"})
    url = made.url.replace("://", f"://{_login(setup)}") + query
    return await _ready(setup, Deployment(url, nodes.made, struck, partial(_stop, nodes, made.stop), cluster=made))


async def sentinel(folder: Path, setup: Setup) -> Deployment:
    """Start a master, its replica and three Sentinels."""
    nodes = await _nodes(folder, setup)
    down_after = 500 if setup.fails_over else _PATIENT_MS
    watch = partial(Watcher, down_after=down_after, bind=f"{_SENTINELS_ADDRESS} 127.0.0.1")
    made = WatchedMaster(folder, nodes.make, watch)
    await _start(nodes, made.start, made.stop)
    url = made.url.replace("://", f"://{_login(setup)}") + _query(nodes, {"ssl": "true"})
    struck = nodes.node_of(made.master())
    return await _ready(setup, Deployment(url, nodes.made, struck, partial(_stop, nodes, made.stop), watched=made))


TOPOLOGIES: Final[Mapping[str, Deploy]] = {"single": single, "cluster": cluster, "sentinel": sentinel}


def run(server: RedisServer, *command: object) -> None:
    """Run a command on a server."""
    with server.client() as client:
        client.execute_command(*command)  # type: ignore[no-untyped-call, arg-type, unused-ignore]


async def _nodes(folder: Path, setup: Setup, *, is_cluster: bool = False) -> Nodes:
    clock = await clock_library(folder) if setup.clocked else None
    authority = trustme.CA() if setup.tls else None
    return Nodes(is_cluster, has_buses=is_cluster and setup.fails_over, clock=clock, authority=authority)


async def _start(nodes: Nodes, start: Callable[[], None], stop: Callable[[], None]) -> None:
    await nodes.start_proxies()
    try:
        await asyncio.to_thread(start)
    except BaseException:
        await _stop(nodes, stop)
        raise


async def _stop(nodes: Nodes, stop: Callable[[], None]) -> None:
    await nodes.stop_proxies()
    await asyncio.to_thread(stop)


async def _ready(setup: Setup, made: Deployment) -> Deployment:
    if setup.far:
        made.struck.proxy.mode, made.struck.proxy.delay = "far", setup.far
    if setup.login:
        name, password = LOGIN
        for node in made.nodes:
            run(node.server, "ACL", "SETUSER", name, "on", f">{password}", "~*", "&*", "+@all")
    return made


def _login(setup: Setup) -> str:
    return f"{':'.join(LOGIN)}@" if setup.login else ""


def _query(nodes: Nodes, more: dict[str, str]) -> str:
    tls = nodes.made[0].tls
    return "" if tls is None else f"?{urlencode({'ssl_ca_certs': str(tls.authority), **more})}"
