"""Two processes that deliver webhooks at the same time, and what their receiver saw.

One such process is `python -m tests.support.pace <how> <redis> <receiver> <name> <number of webhooks>`. How: `pacer`,
`throttle` (shared), `alone` (a throttle of half the rate in each). It prints how many reservations it missed, and when
those that it used began.
"""

import asyncio
import json
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

import httpx
import httpx2

from ratelimit import Pacer, Throttle
from tests.support.uvicorn_server import uvicorn

WORKERS = 20
"""Tasks of one process that deliver at the same time."""


class Delivered(NamedTuple):
    """When calls were started and webhooks arrived (seconds, in order), their paths, and the missed reservations."""

    begun: list[float]
    arrived: list[float]
    paths: list[str]
    missed: int


def deliver(store: str, each: int, how: str = "pacer") -> Delivered:
    """Let two processes deliver `each` webhooks, 100 a second together."""
    with uvicorn({}, app="tests.support.hooks:app") as receiver, ExitStack() as stack:
        senders = [stack.enter_context(_sender(how, store, receiver, name, each)) for name in ("one", "two")]
        for sender in senders:
            assert _piped(sender.stdout).readline() == "ready\n"
        for sender in senders:
            _piped(sender.stdin).write("go\n")
            _piped(sender.stdin).flush()
        results = [json.loads(_piped(sender.stdout).read()) for sender in senders]
        assert [sender.wait() for sender in senders] == [0, 0]
        hooks = httpx2.get(f"{receiver}/arrived", timeout=30).json()
    begun = sorted(at for _, starts in results for at in starts)
    missed = sum(number for number, _ in results)
    return Delivered(begun, sorted(at for _, at in hooks), sorted(path for path, _ in hooks), missed)


def busiest(moments: list[float], span: float) -> int:
    """Return the largest number of moments within `span` seconds."""
    return max(bisect_right(moments, start + span) - number for number, start in enumerate(moments))


@contextmanager
def _sender(how: str, store: str, receiver: str, name: str, each: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.pace", how, store, receiver, name, str(each)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            _piped(stream).close()


def _piped(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


async def _send(how: str, store: str, receiver: str, name: str, number: int) -> None:
    """Deliver `number` webhooks, once a line was read from stdin."""
    begun = list[float]()
    pacer = Pacer("100/second", per="subscription", store=store)
    throttle = Throttle("100/second", store=store) if how == "throttle" else Throttle("50/second")
    async with httpx.AsyncClient(base_url=receiver, limits=httpx.Limits(max_connections=WORKERS), timeout=30) as client:
        await client.get("/none")
        numbers = iter(range(number))

        async def work() -> None:
            for each in numbers:
                await (pacer.wait("sub_1") if how == "pacer" else throttle.wait())
                begun.append(asyncio.get_running_loop().time())
                (await client.post(f"/hooks/{name}/{each}")).raise_for_status()

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(work() for _ in range(WORKERS)))
    await pacer.aclose()
    await throttle.aclose()
    sys.stdout.write(json.dumps([pacer.missed, begun]))


if __name__ == "__main__":
    _, how, store, receiver, name, number = sys.argv
    asyncio.run(_send(how, store, receiver, name, int(number)))
