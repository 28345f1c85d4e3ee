"""Background tasks: kept alive, waited for and cancelled, each in its own event loop."""

import asyncio
import gc

import pytest

from ratelimit._utils.tasks import BackgroundTasks, SharedAttempt


async def test_a_task_lives_until_it_ends() -> None:
    """Only `BackgroundTasks` holds the task, and a collection of garbage does not take it away."""
    tasks, done = BackgroundTasks(), list[int]()

    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future
        done.append(1)

    tasks.spawn(work())
    await asyncio.sleep(0)
    gc.collect()
    assert (len(tasks), done) == (1, [])
    await tasks.drain()
    assert (len(tasks), done) == (0, [1])


async def test_a_drain_waits_for_tasks_that_tasks_start() -> None:
    """A task that is started while others are waited for is waited for too."""
    tasks, done = BackgroundTasks(), list[int]()

    async def work(more: int) -> None:
        await asyncio.sleep(0)
        if more:
            tasks.spawn(work(more - 1))
        done.append(more)

    tasks.spawn(work(3))
    await tasks.drain()
    assert done == [3, 2, 1, 0]


async def test_cancelled_tasks_have_ended() -> None:
    """`cancel` returns when every task has handled its cancellation."""
    tasks, ended = BackgroundTasks(), list[str]()

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    tasks.spawn(work("a"))
    tasks.spawn(work("b"))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(ended) == ["a", "b"]
    assert tasks.of_this_loop() == []


def test_another_loops_tasks_are_left_alone() -> None:
    """`drain` and `cancel` concern the running event loop; a task of another one goes on there."""
    tasks = BackgroundTasks()

    async def start() -> "asyncio.Task[int]":
        return tasks.spawn(asyncio.sleep(0, 7))

    async def drain_and_cancel() -> None:
        assert tasks.of_this_loop() == []
        await tasks.drain()
        await tasks.cancel()

    with asyncio.Runner() as one, asyncio.Runner() as two:
        task = one.run(start())
        two.run(drain_and_cancel())
        assert not task.cancelled()
        one.run(tasks.drain())
        assert task.result() == 7


async def test_callers_share_one_attempt_that_outlives_them() -> None:
    """A second caller waits for the attempt that is under way, and a caller that is cancelled does not end it."""
    begun, may_end = 0, asyncio.Event()

    async def act() -> None:
        nonlocal begun
        begun += 1
        await may_end.wait()

    attempt = SharedAttempt(act)
    first, second = asyncio.create_task(attempt.wait()), asyncio.create_task(attempt.wait())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    may_end.set()
    await second
    assert (begun, first.cancelled()) == (1, True)
    await attempt.wait()
    assert begun == 2


async def test_a_failed_attempt_is_made_again() -> None:
    """Its waiting callers get the error; the next one begins another attempt."""
    outcomes = [ValueError("first"), None]

    async def act() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    attempt = SharedAttempt(act)
    with pytest.raises(ValueError, match="first"):
        await attempt.wait()
    await attempt.wait()
    await attempt.cancel()
