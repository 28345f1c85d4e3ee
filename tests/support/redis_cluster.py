"""A real Redis Cluster on this machine, with or without replicas."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_server import RedisServer
from tests.support.waiting import until

SLOTS = 16384


class RedisCluster:
    """Masters, each with its share of the hash slots, and `replicas` replicas of each; `make` makes a server."""

    def __init__(
        self, folder: Path, masters: int = 3, replicas: int = 0, make: Callable[..., RedisServer] = RedisServer
    ) -> None:
        self.folder, self.masters, self.replicas, self._make = folder, masters, replicas, make
        self.servers = [self._server(number) for number in range(masters * (1 + replicas))]

    def _server(self, number: int) -> RedisServer:
        folder = self.folder / f"node{number}"
        folder.mkdir()
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1500",
            "--cluster-replica-validity-factor",
            "0",
        )
        return self._make(folder, *options)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.announced}' for server in self.servers[: self.masters])}"

    def start(self) -> None:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for server in self.servers:
            server.start()
        first = self.servers[0]
        for number, server in enumerate(self.servers[: self.masters]):
            share = range(number * SLOTS // self.masters, (number + 1) * SLOTS // self.masters)
            self.run(server, "CLUSTER", "ADDSLOTS", *share)
        for server in self.servers[1:]:
            self.run(server, "CLUSTER", "MEET", "127.0.0.1", first.announced, first.bus)
        until(lambda: all(self._knows(server) == len(self.servers) for server in self.servers), "nodes do not meet")
        for number, server in enumerate(self.servers[self.masters :]):
            self.run(server, "CLUSTER", "REPLICATE", self.name(self.servers[number % self.masters]))
        until(lambda: all(self.is_well(server) for server in self.servers), "the Cluster did not come up")

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def run(self, server: RedisServer, *command: Any) -> Any:
        with server.client() as client:
            return client.execute_command(*command)

    def name(self, server: RedisServer) -> str:
        return str(self.run(server, "CLUSTER", "MYID").decode())

    def owner(self, slot: int) -> RedisServer:
        """Return the master of a hash slot, by the first node that answers."""
        for server in self.servers:
            try:
                slots = self.run(server, "CLUSTER", "SLOTS")
            except redis.RedisError:
                continue
            for low, high, master, *_ in slots:
                if low <= slot <= high:
                    return next(each for each in self.servers if each.announced == master[1])
        msg = f"no node has hash slot {slot}"
        raise AssertionError(msg)

    def ports(self, server: RedisServer) -> set[int]:
        """Return the ports that a server names to clients."""
        return {master[1] for _, _, master, *_ in self.run(server, "CLUSTER", "SLOTS")}

    def _knows(self, server: RedisServer) -> int:
        return len(self.run(server, "CLUSTER", "SLOTS")) if not self.replicas else len(self._nodes(server))

    def _nodes(self, server: RedisServer) -> list[str]:
        return [line for line in self.run(server, "CLUSTER", "NODES").decode().splitlines() if "handshake" not in line]

    def is_well(self, server: RedisServer) -> bool:
        """Return whether all hash slots are served, as this server sees it, and whether it follows its master."""
        state = self.run(server, "CLUSTER", "INFO").decode()
        well = "cluster_state:ok" in state and f"cluster_slots_ok:{SLOTS}" in state
        with server.client() as client:
            info: Any = client.info("replication")
        return well and (info["role"] == "master" or info["master_link_status"] == "up")


async def moved(cluster: RedisCluster, slot: int, there: RedisServer) -> None:
    """Move a hash slot to another node, key by key, as `redis-cli --cluster reshard` does."""
    here = cluster.owner(slot)

    def move() -> None:
        cluster.run(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.name(here))
        cluster.run(here, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.name(there))
        while keys := cluster.run(here, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            cluster.run(here, "MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)
        for server in (there, here):
            cluster.run(server, "CLUSTER", "SETSLOT", slot, "NODE", cluster.name(there))

    await asyncio.to_thread(move)


@contextmanager
def opened(cluster: RedisCluster, slot: int, there: RedisServer, keys: list[str]) -> Iterator[None]:
    """Leave a hash slot between two nodes, with only these keys moved; at the end the move is completed."""
    here = cluster.owner(slot)

    def move(moving: list[Any]) -> None:
        if moving:
            cluster.run(here, "MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *moving)

    cluster.run(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.name(here))
    cluster.run(here, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.name(there))
    move(keys)
    try:
        yield
    finally:
        move(cluster.run(here, "CLUSTER", "GETKEYSINSLOT", slot, 1000))
        for server in (there, here):
            cluster.run(server, "CLUSTER", "SETSLOT", slot, "NODE", cluster.name(there))
