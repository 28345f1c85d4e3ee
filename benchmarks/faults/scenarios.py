"""The faults, each as what is done to a store at its time, and undone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.places import Place, cluster, sentinel, single

Step = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One fault: how it begins and ends, and what of the counts it leaves.

    `keeps` says that what was charged before outlives it, so that the quota must be exact at the end. `shifts` are what
    the wall clocks of the four workers are off by. `outage` says that the store is away meanwhile, and `heals` that it
    comes back by itself.
    """

    name: str
    begin: Step
    end: Step
    keeps: bool = True
    outage: bool = True
    heals: bool = False
    where: Callable[[Path], Awaitable[Place]] = single
    shifts: tuple[str, ...] = ("0",)


async def _nothing(place: Place) -> None:
    pass


def _mode(mode: str, share: float = 1.0) -> Step:
    async def change(place: Place) -> None:
        place.proxy.mode, place.proxy.share = mode, share

    return change


async def _refuse(place: Place) -> None:
    await place.proxy.stop()


async def _accept(place: Place) -> None:
    await place.proxy.start()


async def _hang(place: Place) -> None:
    place.server.pause()


async def _go_on(place: Place) -> None:
    place.server.go_on()


async def _kill(place: Place) -> None:
    place.server.stop()


async def _restart(place: Place) -> None:
    await asyncio.to_thread(place.server.start)


def _command(*command: Any) -> Step:
    async def run(place: Place) -> None:
        def execute() -> None:
            with place.server.client() as client:
                client.execute_command(*command)

        await asyncio.to_thread(execute)

    return run


SCENARIOS: Final = [
    Scenario("no fault", _nothing, _nothing, outage=False),
    Scenario("connections refused", _refuse, _accept),
    Scenario("server hung (SIGSTOP)", _hang, _go_on),
    Scenario("replies 200 ms late", _mode("slow"), _mode("pass")),
    Scenario("killed and restarted, with its data", _kill, _restart),
    Scenario("cut in the middle of every reply", _mode("cut"), _mode("pass")),
    Scenario("5 % of replies lost", _mode("lost", 0.05), _mode("pass"), outage=False),
    Scenario("5 % of replies cut in the middle", _mode("cut", 0.05), _mode("pass"), outage=False),
    Scenario("5 % of replies come twice", _mode("twice", 0.05), _mode("pass"), outage=False),
    Scenario("SCRIPT FLUSH", _command("SCRIPT", "FLUSH"), _command("SCRIPT", "FLUSH"), outage=False),
    Scenario("FLUSHALL", _command("FLUSHALL"), _nothing, keeps=False, outage=False),
    Scenario(
        "out of memory (noeviction)",
        _command("CONFIG", "SET", "maxmemory", "1"),
        _command("CONFIG", "SET", "maxmemory", "0"),
    ),
    Scenario("read only (demoted)", _command("REPLICAOF", "127.0.0.1", "1"), _command("REPLICAOF", "NO", "ONE")),
    Scenario("LOADING", _mode("loading"), _mode("pass")),
    Scenario("Cluster: a master killed, its replica takes over", _kill, _nothing, heals=True, where=cluster),
    Scenario("Sentinel: the master killed, the replica takes over", _kill, _nothing, heals=True, where=sentinel),
    Scenario("two workers' clocks ±1 h", _nothing, _nothing, outage=False, shifts=("3600", "-3600", "0", "0")),
    Scenario("wall clocks set back 10 min", _nothing, _nothing, outage=False, shifts=("~-600",)),
]
