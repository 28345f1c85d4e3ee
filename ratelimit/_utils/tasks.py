"""Background tasks that are kept alive until they end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """Start tasks and hold a reference to each until it ends, since an event loop holds only weak ones.

    Tasks of several event loops may be started on one object; every other method concerns the running loop alone.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start `work` in the running event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def of_this_loop(self) -> list["asyncio.Task[Any]"]:
        """Return the unfinished tasks of the running event loop."""
        loop = asyncio.get_running_loop()
        return [task for task in list(self._tasks) if task.get_loop() is loop]

    async def drain(self) -> None:
        """Wait until every task has ended, including those that are started meanwhile."""
        while tasks := self.of_this_loop():
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # Lets the done callbacks of finished tasks run.

    async def cancel(self) -> None:
        """Cancel every task and wait until it has ended."""
        tasks = self.of_this_loop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SharedAttempt:
    """An action that several callers may wait for: one attempt runs at a time, also where they are all cancelled."""

    def __init__(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._action = action
        self._task: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Wait for the attempt that is under way, or begin one; raises what the action raises."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._action())
            self._task.add_done_callback(_retrieve)
        await asyncio.shield(self._task)

    async def cancel(self) -> None:
        """Cancel the attempt that is under way, and wait until it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Read the error of an attempt, so that one without a waiting caller is not reported."""
    if not task.cancelled():
        task.exception()
