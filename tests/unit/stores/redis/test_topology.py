"""The topology of a Cluster: which node serves a hash slot, and when it is read again."""

import asyncio
from typing import Any

from ratelimit.stores.redis.topology import Topology
from tests.support.virtual_time import virtually


class Nodes:
    """Stands for what redis-py knows of a Cluster."""

    def __init__(self) -> None:
        self.slots_cache: dict[int, list[str]] = {}
        self.reads = 0

    async def initialize(self) -> None:
        self.reads += 1

    def get_node_from_slot(self, slot: int) -> str:
        return self.slots_cache[slot][0]


class Client:
    """Stands for redis-py's client."""

    def __init__(self) -> None:
        self.nodes_manager = Nodes()
        self.reads = 0

    async def initialize(self) -> None:
        self.reads += 1
        self.nodes_manager.slots_cache = {5: ["a"]}


async def test_the_topology_is_read_once_at_first() -> None:
    """By however many calls that need it; afterwards a node is known without waiting."""
    client: Any = Client()
    topology = Topology(client, 2.0)
    assert topology.known_node(5) is None
    assert await asyncio.gather(*(topology.node(5, None, 1.0) for _ in range(3))) == ["a"] * 3
    assert (client.reads, topology.known_node(5), topology.known_node(6)) == (1, "a", None)


def test_it_is_read_again_a_few_times_a_second() -> None:
    """However many calls ask for that."""

    async def ask() -> None:
        client: Any = Client()
        topology = Topology(client, 2.0)
        for _ in range(20):
            topology.schedule_refresh()
            await asyncio.sleep(0.05)
        assert 3 <= client.nodes_manager.reads <= 5
        await topology.aclose()
        assert topology.is_settled

    virtually(lambda _: ask())
