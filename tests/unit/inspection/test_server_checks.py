"""The checks of a server: each planted fault of a real one is found, by its code, and a good one has none."""

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.errors import StoreError
from ratelimit.inspection.server_checks import ServerCheck, check_server, eviction_policy, severity_of_checks
from tests.support.load import until
from tests.support.redis_server import RedisServer

CHECKS = "ratelimit.inspection.server_checks"
LIMITS = [Limit(name="a", rate="100/minute", per="token")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a server of the test's own, which it may spoil."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def worker(server: RedisServer) -> AsyncIterator[Limiter]:
    """Run a worker that has charged something."""
    async with Limiter(RateLimitSettings(store=server.url, store_timeout=5, limits=LIMITS)) as limiter:
        await limiter.check(Identity(token="t"))
        await limiter.enforcer.workers.heartbeat()
        yield limiter


async def problems(limiter: Limiter, **options: Any) -> dict[str, str]:
    """Return the codes that are found, with their severities."""
    found = await check_server(limiter, **options)
    return {check.code: check.severity for check in found if check.code is not None}


async def looked_at(url: str, **options: Any) -> dict[str, str]:
    """Return what an onlooker finds, by another login or another database."""
    settings = RateLimitSettings(store=url, store_timeout=options.pop("store_timeout", 5), limits=LIMITS)
    limiter = Limiter(settings)
    limiter.enforcer.workers.is_onlooker = True
    try:
        return await problems(limiter, **options)
    finally:
        await limiter.aclose()


async def test_a_good_server_has_no_problem(worker: Limiter) -> None:
    """Each check says what it has seen."""
    found = {check.name: check for check in await check_server(worker)}
    assert {check.severity for check in found.values()} == {"ok"}
    assert list(found) == [
        "version",
        "role",
        "rights",
        "memory",
        "eviction",
        "round trip",
        "clock",
        "script",
        "workers",
    ]
    assert found["workers"].message.startswith("1, all with the settings ")
    assert found["workers"].as_dict() == {
        "check": "workers",
        "severity": "ok",
        "code": None,
        "message": found["workers"].message,
    }


async def test_keys_may_be_evicted(server: RedisServer, worker: Limiter) -> None:
    """RL906."""
    with server.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    assert await problems(worker) == {"RL906": "warning"}
    assert await eviction_policy(worker.store) == "allkeys-lru"


@pytest.mark.parametrize(("command", "shown"), [("zadd", "ZADD"), ("hscan", "HSCAN"), ("eval", "EVAL")])
async def test_a_right_is_missing(server: RedisServer, worker: Limiter, command: str, shown: str) -> None:
    """RL903, with the command to allow."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", f"-{command}")
    url = server.url.replace("redis://", "redis://app:pw@")
    limiter = Limiter(RateLimitSettings(store=url, store_timeout=5, limits=LIMITS))
    found = [check for check in await check_server(limiter) if check.code == "RL903"]
    await limiter.aclose()
    assert [check.severity for check in found] == ["error"]
    assert shown in found[0].message


async def test_another_database(server: RedisServer, worker: Limiter) -> None:
    """RL910: the workers are in database 0."""
    assert (await looked_at(f"{server.url.rsplit('/', 1)[0]}/3"))["RL910"] == "error"


async def test_a_slow_server(worker: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """RL907: round trips near to the timeout, and beyond it."""
    assert worker.store is not None
    for seconds, severity in ((0.003, "warning"), (0.009, "error")):
        steps = itertools.count()
        monkeypatch.setattr(f"{CHECKS}.monotonic", lambda steps=steps, s=seconds: next(steps) * s)
        limiter = Limiter(worker.settings.model_copy(update={"store_timeout": 0.005}), worker.store)
        assert (await problems(limiter))["RL907"] == severity


async def test_clocks_that_differ(worker: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """RL908: by a second."""
    monkeypatch.setattr(f"{CHECKS}.system_clock", lambda: time.time_ns() // 1000 + 1_000_000)
    assert await problems(worker) == {"RL908": "warning"}


async def test_a_replica(server: RedisServer, worker: Limiter, tmp_path: Path) -> None:
    """RL902."""
    replica = RedisServer(tmp_path / "replica")
    (tmp_path / "replica").mkdir()
    replica.start()
    try:
        with replica.client() as client:
            client.replicaof("127.0.0.1", server.port)
            await until(lambda: client.info("replication")["master_link_status"] == "up")
        assert (await looked_at(replica.url))["RL902"] == "error"
    finally:
        replica.stop()


async def test_an_old_server(worker: Limiter) -> None:
    """RL901: older than what is asked for."""
    assert await problems(worker, minimum=(99, 0)) == {"RL901": "error"}


async def test_the_script_was_flushed(server: RedisServer, worker: Limiter) -> None:
    """RL909, which mends itself."""
    with server.client() as client:
        client.script_flush()
    assert await problems(worker) == {"RL909": "info"}
    await worker.check(Identity(token="t"))
    assert await problems(worker) == {}


async def test_workers_with_other_settings(server: RedisServer, worker: Limiter) -> None:
    """RL911, until the deployment is done."""
    other = worker.settings.model_copy(update={"exempt": ["/x"]})
    async with Limiter(other) as late:
        await late.enforcer.workers.heartbeat()
        assert await problems(worker) == {"RL911": "warning"}
        await late.reload(worker.settings)
        await late.enforcer.workers.heartbeat()
        assert await problems(worker) == {}
    given = Limiter(other, worker.store)
    assert await problems(given) == {"RL913": "warning"}


async def test_memory_is_full(server: RedisServer, worker: Limiter) -> None:
    """RL905, and RL904: the server refuses writes."""
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
    found = await problems(worker)
    assert (found["RL905"], found["RL904"]) == ("error", "error")


async def test_a_server_that_is_away_is_an_error(worker: Limiter) -> None:
    """And the memory store has nothing to check."""
    away = Limiter(RateLimitSettings(store="redis://127.0.0.1:1"))
    with pytest.raises(StoreError):
        await check_server(away)
    memory = Limiter(RateLimitSettings(quotas=[Quota(name="q", limit=1)]))
    assert [check.severity for check in await check_server(memory)] == ["info"]
    assert await eviction_policy(memory.store) == "noeviction"
    assert severity_of_checks([]) == "ok"
    found = [ServerCheck(name="a", severity=each, message="") for each in ("ok", "warning", "info")]
    assert severity_of_checks(found) == "warning"
