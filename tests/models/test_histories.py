"""The promise: what callers of several workers see could come from one counter, also where replies are lost."""

import pytest

from benchmarks.faults.proxy import Proxy
from tests.models.recorder import Work, by_key, not_linearizable
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize("mode", ["lost", "slow"])
async def test_histories_at_a_lossy_network_are_linearizable(
    redis_server: RedisServer, redis_url: str, mode: str
) -> None:
    """Of two processes with four callers each, while a tenth of the replies is lost, or comes too late."""
    proxy = Proxy(redis_server.port)
    await proxy.start()
    proxy.mode, proxy.share, proxy.delay = mode, 0.1, 0.25
    keys = ["rl:{a}:p:1:a", "rl:{b}:p:1:b"]
    try:
        histories = await Work(f"redis://127.0.0.1:{proxy.port}/0", keys, 4, 60).record_with_processes(1)
    finally:
        await proxy.stop()
    found = by_key(histories)
    assert len(found) == 6
    assert sum(map(len, found.values())) > 100
    assert not_linearizable(found) == {}
