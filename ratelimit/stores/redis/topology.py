"""Which node of a Redis Cluster serves a hash slot, as redis-py knows it."""

import asyncio
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError

from ratelimit._utils.tasks import BackgroundTasks, SharedAttempt
from ratelimit.stores.redis.errors import translate_errors

_REFRESH_INTERVAL_S: Final = 0.25
"""Seconds at least between two reads of the Cluster's topology."""


class Topology:
    """Reads the topology through redis-py's client, once at first and again in the background, and follows redirections."""

    def __init__(self, client: RedisCluster, connect_timeout: float) -> None:
        self._client: Any = client
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._reading, self._tasks = SharedAttempt(self._read), BackgroundTasks()
        self._refreshed_at = float("-inf")

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs in the background."""
        return not self._tasks

    async def node(self, slot: int, address: str | None, seconds: float) -> Any:
        """Return the node of a hash slot, or the one at an address (`None`: it is not known), within `seconds`."""
        async with translate_errors(seconds):
            if not self._client.nodes_manager.slots_cache:
                await self._reading.wait()
            if address is None:
                return self._client.nodes_manager.get_node_from_slot(slot)
            return await self._node_at(slot, address)

    def known_node(self, slot: int) -> Any:
        """Return the node of a hash slot, or `None` where something has to be found out first."""
        nodes: Any = self._client.nodes_manager
        serving = nodes.slots_cache.get(slot)
        return None if not serving or getattr(nodes, "_moved_exception", None) else serving[0]

    async def aclose(self) -> None:
        """End what runs in the background."""
        await self._tasks.cancel()
        await self._reading.cancel()

    def schedule_refresh(self) -> None:
        """Read the Cluster's topology in the background."""
        if self._loop.time() - self._refreshed_at >= _REFRESH_INTERVAL_S:
            self._refreshed_at = self._loop.time()
            self._tasks.spawn(self._refresh())

    async def _node_at(self, slot: int, address: str) -> Any:
        host, _, port = address.rpartition(":")
        node = self._client.nodes_manager.get_node(host=host, port=int(port))
        if node is None:  # redis-py has not heard of it yet.
            await self.move_slot(AskError(f"{slot} {address}"))
            node = self._client.nodes_manager.get_node(host=host, port=int(port))
        return node

    async def move_slot(self, redirect: MovedError | AskError) -> None:
        """Note where a hash slot is now."""
        nodes = self._client.nodes_manager
        if hasattr(nodes, "move_slot"):
            await nodes.move_slot(redirect)
        else:  # redis-py before 7.1 moves the slot when its node is asked for next.
            nodes._moved_exception = redirect  # noqa: SLF001
            nodes.get_node_from_slot(redirect.slot_id)

    async def _read(self) -> None:
        """Read the topology for the first time; it takes several round trips to each of some nodes."""
        async with translate_errors(self._connect_timeout):
            await self._client.initialize()

    async def _refresh(self) -> None:
        try:
            await self._client.nodes_manager.initialize()
        except (RedisError, RedisClusterException, OSError, TimeoutError):
            return  # The next call that fails schedules another refresh.
