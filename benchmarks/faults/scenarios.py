"""The faults: how each begins and ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.deployments import Deployment, cluster, sentinel, single

Step = Callable[[Deployment], Awaitable[None]]
"""Begins or ends a fault."""


@dataclass(frozen=True)
class Scenario:
    """One fault.

    `keeps_data` says that earlier charges outlive the fault, so that the quota must be exact at the end. `clock_shifts` are
    the errors of the workers' wall clocks (see `worker`). `outage` says that the store is unavailable during the fault, and
    `heals` that it becomes available by itself.
    """

    name: str
    begin: Step
    end: Step
    keeps_data: bool = True
    outage: bool = True
    heals: bool = False
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
    Scenario("Cluster: a master killed, its replica takes over", _kill, _nothing, heals=True, deploy=cluster),
    Scenario("Sentinel: the master killed, the replica takes over", _kill, _nothing, heals=True, deploy=sentinel),
    Scenario("two workers' clocks ±1 h", _nothing, _nothing, outage=False, clock_shifts=("3600", "-3600", "0", "0")),
    Scenario("wall clocks set back 10 min", _nothing, _nothing, outage=False, clock_shifts=("~-600",)),
]
