"""The promise: what callers of a Cluster see could come from one counter for each key, also while its nodes falter."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle

import pytest

from tests.models.recorder import Work, by_key, not_linearizable
from tests.support.redis_cluster import RedisCluster

pytestmark = pytest.mark.topologies


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path_factory.mktemp("histories"), 3)
    made.start()
    yield made
    made.stop()


async def disturb(cluster: RedisCluster) -> None:
    """Let one node after another hang for longer than its clients wait, and then lose all its connections."""
    for server in cycle(cluster.servers):
        server.pause()
        try:
            await asyncio.sleep(0.25)  # The servers are real, and so are the clients' timeouts.
        finally:
            server.go_on()
        cluster.run(server, "CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(0.15)


async def test_histories_at_a_cluster_that_falters_are_linearizable(cluster: RedisCluster) -> None:
    """Of three processes with four callers each, at six owners in as many hash slots, on all nodes."""
    keys = [f"rl:{{{owner}}}:p:1:{owner}" for owner in "abcdef"]
    disturbing = asyncio.create_task(disturb(cluster))
    try:
        histories = await Work(cluster.url, keys, 4, 150).record_with_processes(2)
    finally:
        disturbing.cancel()
        with suppress(asyncio.CancelledError):
            await disturbing
    found = by_key(histories)
    assert len(found) == 18
    assert sum(map(len, found.values())) > 500
    assert not_linearizable(found) == {}
