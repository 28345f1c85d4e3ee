"""The faults: how each begins and ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.crc import key_slot

from benchmarks.faults.deployments import Deployment, clocked, cluster, far, sentinel, single, tls
from tests.support.redis_cluster import moved

Step = Callable[[Deployment], Awaitable[None]]
"""Begins or ends a fault."""


@dataclass(frozen=True)
class Scenario:
    """One fault.

    `keeps_data` says that earlier charges outlive the fault, so that the quota must be exact at the end. `clock_shifts` are
    the errors of the workers' wall clocks (see `worker`). `outage` says that the store is unavailable during the fault, and
    `heals` that it becomes available by itself. `variant` is how a worker serves (see `worker`).
    """

    name: str
    begin: Step
    end: Step
    keeps_data: bool = True
    outage: bool = True
    heals: bool = False
    variant: str = "plain"
    deploy: Callable[[Path], Awaitable[Deployment]] = single
    clock_shifts: tuple[str, ...] = ("0",)


async def _nothing(deployment: Deployment) -> None:
    pass


def _mode(mode: str, share: float = 1.0) -> Step:
    async def change(deployment: Deployment) -> None:
        deployment.proxy.mode, deployment.proxy.share = mode, share

    return change


async def _refuse(deployment: Deployment) -> None:
    await deployment.proxy.stop()


async def _accept(deployment: Deployment) -> None:
    await deployment.proxy.start()


async def _hang(deployment: Deployment) -> None:
    deployment.server.pause()


async def _resume(deployment: Deployment) -> None:
    deployment.server.go_on()


async def _kill(deployment: Deployment) -> None:
    deployment.server.stop()


async def _restart(deployment: Deployment) -> None:
    await asyncio.to_thread(deployment.server.start)


def _command(*command: Any) -> Step:
    async def run(deployment: Deployment) -> None:
        def execute() -> None:
            with deployment.server.client() as client:
                client.execute_command(*command)

        await asyncio.to_thread(execute)

    return run


def _clock(seconds: int) -> Step:
    async def change(deployment: Deployment) -> None:
        assert deployment.set_clock is not None
        deployment.set_clock(seconds)

    return change


def _again_and_again(act: Step) -> Step:
    async def repeat(deployment: Deployment) -> None:
        while True:
            await act(deployment)

    async def begin(deployment: Deployment) -> None:
        deployment.activity = asyncio.create_task(repeat(deployment))

    return begin


async def _stop_activity(deployment: Deployment) -> None:
    if deployment.activity is not None:
        deployment.activity.cancel()
        await asyncio.gather(deployment.activity, return_exceptions=True)
    deployment.proxy.flow()


async def _stall(deployment: Deployment) -> None:
    deployment.proxy.stall()
    await asyncio.sleep(0.15)
    deployment.proxy.flow()
    await asyncio.sleep(0.25)


async def _reshard(deployment: Deployment) -> None:
    assert deployment.cluster is not None
    for server in deployment.cluster.servers:
        # A move that has begun is completed, since a slot may not be left between two nodes.
        await asyncio.shield(moved(deployment.cluster, key_slot(b"{acme}"), server))
        await asyncio.sleep(0.05)


async def _late(deployment: Deployment) -> None:
    deployment.proxy.mode, deployment.proxy.share, deployment.proxy.delay = "late", 0.02, 0.3


SCENARIOS: Final = [
    Scenario("no fault", _nothing, _nothing, outage=False),
    Scenario("connections refused", _refuse, _accept),
    Scenario("server hung (SIGSTOP)", _hang, _resume),
    Scenario("replies 200 ms late", _mode("slow"), _mode("pass")),
    Scenario("killed and restarted, with its data", _kill, _restart),
    Scenario("cut in the middle of every reply", _mode("cut"), _mode("pass")),
    Scenario("5 % of replies lost", _mode("lost", 0.05), _mode("pass"), outage=False),
    Scenario("5 % of replies cut in the middle", _mode("cut", 0.05), _mode("pass"), outage=False),
    Scenario("5 % of replies come twice", _mode("twice", 0.05), _mode("pass"), outage=False),
    Scenario("SCRIPT FLUSH", _command("SCRIPT", "FLUSH"), _command("SCRIPT", "FLUSH"), outage=False),
    Scenario("FLUSHALL", _command("FLUSHALL"), _nothing, keeps_data=False, outage=False),
    Scenario(
        "out of memory (noeviction)",
        _command("CONFIG", "SET", "maxmemory", "1"),
        _command("CONFIG", "SET", "maxmemory", "0"),
    ),
    Scenario("read only (demoted)", _command("REPLICAOF", "127.0.0.1", "1"), _command("REPLICAOF", "NO", "ONE")),
    Scenario("LOADING", _mode("loading"), _mode("pass")),
    Scenario("Cluster: a master killed, its replica takes over", _kill, _nothing, heals=True, deploy=cluster(1)),
    Scenario("Sentinel: the master killed, the replica takes over", _kill, _nothing, heals=True, deploy=sentinel),
    Scenario("two workers' clocks ±1 h", _nothing, _nothing, outage=False, clock_shifts=("3600", "-3600", "0", "0")),
    Scenario("wall clocks set back 10 min", _nothing, _nothing, outage=False, clock_shifts=("~-600",)),
    Scenario("the store's clock 30 s back", _clock(-30), _nothing, outage=False, deploy=clocked),
    Scenario("the store's clock 1 h back", _clock(-3600), _nothing, outage=False, deploy=clocked),
    Scenario("store 20 ms away", _nothing, _nothing, outage=False, deploy=far(0.02)),
    Scenario("store 40 ms away", _nothing, _nothing, outage=False, deploy=far(0.04)),
    Scenario("TLS, stalls of 150 ms", _again_and_again(_stall), _stop_activity, outage=False, deploy=tls),
    Scenario("2 % of commands 300 ms late", _late, _mode("pass"), outage=False),
    Scenario(
        "Cluster: the hash slot moves all the time",
        _again_and_again(_reshard),
        _stop_activity,
        outage=False,
        deploy=cluster(0),
    ),
    Scenario("two loops, one of them stops in an outage", _refuse, _accept, variant="two loops"),
    Scenario("workers forked from one process, outage", _refuse, _accept, variant="forked"),
]
