"""Blocking calls: coroutines that run for threads without an event loop."""

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
from typing import Any

import pytest

from ratelimit import ConfigurationError, Pacer, Throttle
from ratelimit._utils.background_loop import run_blocking


async def loop_and_thread() -> tuple[int, str]:
    return id(asyncio.get_running_loop()), threading.current_thread().name


def test_all_threads_share_one_loop_in_a_thread_of_its_own() -> None:
    """So callers in several threads wait in one queue."""
    found = [run_blocking(loop_and_thread())]
    thread = threading.Thread(target=lambda: found.append(run_blocking(loop_and_thread())))
    thread.start()
    thread.join()
    assert found[0] == found[1]
    assert found[0][1] == "ratelimit"


def test_an_error_is_raised_in_the_waiting_thread() -> None:
    """As if the coroutine had run there."""

    async def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        run_blocking(fail())


def test_an_interrupt_cancels_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a waiting thread leaves no caller behind in the background loop."""
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupt(*_: Any) -> None:
        assert started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures.Future, "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_blocking(work())
    assert cancelled.wait(10)


@pytest.mark.parametrize("make", [lambda: Pacer("1/second").wait_sync(), lambda: Throttle("1/second").wait_sync()])
async def test_a_running_loop_is_not_blocked(make: Any) -> None:
    """Blocking in a thread whose event loop runs raises, and the coroutine is closed without a warning."""
    with pytest.raises(
        ConfigurationError, match="this would block the running event loop: use `async with` or `await`"
    ):
        make()


FORKED = """
import os
from ratelimit import Throttle
throttle = Throttle("2/minute")
throttle.wait_sync()
child = os.fork()
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
Throttle("1/minute").wait_sync()
os._exit(7)
"""


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    """The child has none of the parent's threads, so the parent's loop would never run there."""
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=100, check=False)
    assert process.returncode == 7
