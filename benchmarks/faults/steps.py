"""How faults of the network and of workers begin and end: they strike the proxy of the struck server, or a worker."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import redis

from benchmarks.faults.deployments import Deployment
from benchmarks.faults.fleet import Fleet
from benchmarks.faults.proxy import Proxy


@dataclass
class Stage:
    """A deployment and the workers that use it; and what a fault keeps from its beginning to its end.

    `activity` goes on in between, `admin` is a connection to the struck server, and `migration` a hash slot between nodes.
    """

    store: Deployment
    fleet: Fleet
    activity: "asyncio.Task[None] | None" = None
    admin: "redis.Redis | None" = None
    migration: AbstractContextManager[None] | None = None

    @property
    def proxy(self) -> Proxy:
        """The proxy in front of the struck server."""
        return self.store.struck.proxy


Step = Callable[[Stage], Awaitable[None]]
"""Begins or ends a fault."""


async def nothing(stage: Stage) -> None:
    """Change nothing."""


def both(*steps: Step) -> Step:
    """Return a step that does all of these, one after the other."""

    async def do(stage: Stage) -> None:
        for step in steps:
            await step(stage)

    return do


def wait(seconds: float) -> Step:
    """Return a step that takes so many seconds."""

    async def do(_: Stage) -> None:
        await asyncio.sleep(seconds)

    return do


def again_and_again(*steps: Step) -> Step:
    """Return a step that repeats these until `stop_activity`."""

    async def repeat(stage: Stage) -> None:
        while True:
            await both(*steps)(stage)

    async def begin(stage: Stage) -> None:
        stage.activity = asyncio.create_task(repeat(stage))

    return begin


async def stop_activity(stage: Stage) -> None:
    """End what goes on; raises what it raised."""
    if stage.activity is not None:
        stage.activity.cancel()
        (result,) = await asyncio.gather(stage.activity, return_exceptions=True)
        if isinstance(result, Exception):
            raise result


def mode(name: str, share: float = 1.0, delay: float = 0.2) -> Step:
    """Return a step that changes the proxy's mode."""

    async def change(stage: Stage) -> None:
        stage.proxy.mode, stage.proxy.share, stage.proxy.delay = name, share, delay

    return change


async def refuse(stage: Stage) -> None:
    """Refuse connections, and break the open ones."""
    await stage.proxy.stop()


async def accept(stage: Stage) -> None:
    """Accept connections."""
    await stage.proxy.stop()  # Where it listens already.
    await stage.proxy.start()


async def stall(stage: Stage) -> None:
    """Hold back all that clients send and get."""
    stage.proxy.stall()


async def flow(stage: Stage) -> None:
    """Let it flow again."""
    stage.proxy.flow()


async def silence(stage: Stage) -> None:
    """Let the open connections fall silent for good."""
    stage.proxy.silence()


def connecting(seconds: float) -> Step:
    """Return a step after which connecting takes so much longer."""

    async def change(stage: Stage) -> None:
        stage.proxy.connecting = seconds

    return change


async def replace_worker(stage: Stage) -> None:
    """Kill the first worker (SIGKILL), and start another one."""
    await stage.fleet.replace(0)


def signal_worker(number: signal.Signals) -> Step:
    """Return a step that sends a signal to the first worker."""

    async def do(stage: Stage) -> None:
        stage.fleet.workers[0].send_signal(number)

    return do
