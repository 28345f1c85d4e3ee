"""How faults of a Cluster, and of a master with Sentinels, begin and end."""

import asyncio
from collections.abc import Callable

from benchmarks.faults.deployments import SLOT, Deployment, run
from benchmarks.faults.nodes import Node
from benchmarks.faults.proxy import is_client
from benchmarks.faults.steps import Stage, Step
from tests.support.redis_cluster import moved, opened
from tests.support.redis_sentinel import NAME


async def reshard(stage: Stage) -> None:
    """Move the hash slot to each node of the Cluster."""
    assert stage.store.cluster is not None
    for server in stage.store.cluster.servers:
        # A move that has begun is completed, since a slot may not be left between two nodes.
        await asyncio.shield(moved(stage.store.cluster, SLOT, server))
        await asyncio.sleep(0.05)


async def open_slot(stage: Stage) -> None:
    """Move half of the keys of the hash slot, and leave it between two nodes."""
    made, there = stage.store.cluster, stage.store.others[0].server
    assert made is not None
    keys = made.run(made.owner(SLOT), "CLUSTER", "GETKEYSINSLOT", SLOT, 100)[::2]
    stage.migration = opened(made, SLOT, there, keys)
    await asyncio.to_thread(stage.migration.__enter__)


async def close_slot(stage: Stage) -> None:
    """Complete the move."""
    assert stage.migration is not None
    await asyncio.to_thread(stage.migration.__exit__, None, None, None)


async def promote(stage: Stage) -> None:
    """Let the replica replace its master by command."""
    if stage.store.watched is not None:
        await asyncio.to_thread(run, stage.store.watched.watchers[0], "SENTINEL", "FAILOVER", NAME)
    else:
        await asyncio.to_thread(run, stage.store.replica.server, "CLUSTER", "FAILOVER")


async def partition(stage: Stage) -> None:
    """Cut the struck node off from all servers, not from clients."""
    address = stage.store.struck.address
    stage.proxy.stall(lambda other: not is_client(other))
    if stage.store.struck.bus is not None:
        stage.store.struck.bus.stall(lambda _: True)
    for node in stage.store.others:
        for proxy in (node.proxy, node.bus):
            if proxy is not None:
                proxy.stall(lambda other: other == address)


async def unite(stage: Stage) -> None:
    """End the partition."""
    for node in stage.store.nodes:
        for proxy in (node.proxy, node.bus):
            if proxy is not None:
                proxy.flow()


def replica(store: Deployment) -> list[Node]:
    """Return the replica of the struck node."""
    return [store.replica]


def every(store: Deployment) -> list[Node]:
    """Return all nodes."""
    return store.nodes


def another(store: Deployment) -> list[Node]:
    """Return a node that serves none of the workers' counters."""
    return store.others[:1]


def kill_nodes(which: Callable[[Deployment], list[Node]]) -> Step:
    """Return a step that kills some nodes."""

    async def do(stage: Stage) -> None:
        for node in which(stage.store):
            node.server.stop()

    return do


def restart_nodes(which: Callable[[Deployment], list[Node]]) -> Step:
    """Return a step that starts these nodes again."""

    async def do(stage: Stage) -> None:
        for node in which(stage.store):
            await asyncio.to_thread(node.server.start)

    return do


async def kill_sentinels(stage: Stage) -> None:
    """Kill all Sentinels."""
    assert stage.store.watched is not None
    for watcher in stage.store.watched.watchers:
        watcher.stop()


async def restart_sentinels(stage: Stage) -> None:
    """Start all Sentinels."""
    assert stage.store.watched is not None
    for watcher in stage.store.watched.watchers:
        await asyncio.to_thread(watcher.start)


async def hang_sentinels(stage: Stage) -> None:
    """Stop the processes of the first two Sentinels."""
    assert stage.store.watched is not None
    for watcher in stage.store.watched.watchers[:2]:
        watcher.pause()


async def resume_sentinels(stage: Stage) -> None:
    """Let these Sentinels go on."""
    assert stage.store.watched is not None
    for watcher in stage.store.watched.watchers[:2]:
        watcher.go_on()
