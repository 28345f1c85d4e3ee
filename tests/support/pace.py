"""Two processes that deliver webhooks at the same time, and what their receiver saw."""

import json
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

import httpx2

from tests.support.uvicorn_server import uvicorn


class Delivered(NamedTuple):
    """When turns began and webhooks arrived, in order (seconds), which these were, and the turns that were missed."""

    begun: list[float]
    arrived: list[float]
    paths: list[str]
    missed: int


def deliver(store: str, each: int, how: str = "pacer") -> Delivered:
    """Let two processes deliver `each` webhooks, 100 a second together."""
    with uvicorn({}, app="tests.support.hooks:app") as receiver, ExitStack() as stack:
        senders = [stack.enter_context(_paced(how, store, receiver, name, each)) for name in ("one", "two")]
        for sender in senders:
            assert _piped(sender.stdout).readline() == "ready\n"
        for sender in senders:
            _piped(sender.stdin).write("go\n")
            _piped(sender.stdin).flush()
        told = [json.loads(_piped(sender.stdout).read()) for sender in senders]
        assert [sender.wait() for sender in senders] == [0, 0]
        hooks = httpx2.get(f"{receiver}/arrived", timeout=30).json()
    begun = sorted(at for _, turns in told for at in turns)
    return Delivered(begun, sorted(at for _, at in hooks), sorted(p for p, _ in hooks), sum(told[i][0] for i in (0, 1)))


def busiest(moments: list[float], span: float) -> int:
    """Return the largest number of moments within `span` seconds."""
    return max(bisect_right(moments, start + span) - number for number, start in enumerate(moments))


@contextmanager
def _paced(how: str, store: str, receiver: str, name: str, each: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.paced", how, store, receiver, name, str(each)]
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
