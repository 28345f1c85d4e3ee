"""Group commit: who waits at the same moment travels together, first come first served."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores import Op, Request
from ratelimit.stores.group_commit import MAX_BATCH, MAX_CHARGES, WORTH_A_CALL, GroupCommit


class Line:
    """A store's end of the line, which answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []
        self._waiting: list[Callable[[Any], None]] = []

    def send(self, requests: Sequence[Request], then: Callable[[Any], None]) -> None:
        self.sent.append([request.charges[0] for request in requests])
        self._waiting.append(then)

    def answer(self, error: Exception | None = None) -> None:
        answered = self.sent[len(self.sent) - len(self._waiting)]
        self._waiting.pop(0)(error or answered)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.sent]


def submit(commit: GroupCommit, numbers: Sequence[int]) -> list[asyncio.Task[Any]]:
    # A request's one charge stands for it: what travels here is of no concern to group commit.
    requests: list[Any] = [Request([n]) for n in numbers]  # type: ignore[list-item]
    return [asyncio.create_task(_submit(commit, request)) for request in requests]


async def _submit(commit: GroupCommit, request: Request) -> Any:
    return await commit.submit(request)


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_what_arrives_in_one_turn_goes_in_one_call() -> None:
    """Three requests of one turn are one call, and each gets its own answer."""
    line = Line()
    tasks = submit(GroupCommit(line.send), [1, 2, 3])
    await turns()
    assert line.sent == [[1, 2, 3]]
    line.answer()
    assert await asyncio.gather(*tasks) == [1, 2, 3]


async def test_what_arrives_meanwhile_goes_together_in_order() -> None:
    """While a call is under way the others wait, and all of them go along when it returns."""
    line = Line()
    commit = GroupCommit(line.send)
    submit(commit, [0])
    await turns()
    for n in (1, 2, 3):
        submit(commit, [n])
        await turns()
    assert line.sent == [[0]]
    line.answer()
    await turns()
    assert line.sent == [[0], [1, 2, 3]]
    line.answer()


async def test_batches_and_calls_under_way_are_bounded() -> None:
    """No call carries more than the bound, and there are two at a time."""
    line = Line()
    tasks = submit(GroupCommit(line.send), range(3 * MAX_BATCH))
    await turns()
    assert line.sizes == [MAX_BATCH, MAX_BATCH]
    line.answer()
    await turns()
    assert line.sizes == [MAX_BATCH] * 3
    line.answer()
    line.answer()
    assert await asyncio.gather(*tasks) == list(range(3 * MAX_BATCH))


@pytest.mark.parametrize("waiting", [1, WORTH_A_CALL, WORTH_A_CALL + 1, 2 * WORTH_A_CALL, 64, 2 * MAX_BATCH])
async def test_what_is_worth_it_goes_in_two_halves(waiting: int) -> None:
    """So that this process works while the server does; what is less goes alone, and as soon as it may."""
    line = Line()
    tasks = submit(GroupCommit(line.send), range(waiting))
    await turns()
    first = min(waiting, max(WORTH_A_CALL, -(-waiting // 2)))
    second = waiting - first
    assert line.sizes == ([first, second] if second >= WORTH_A_CALL else [first])
    line.answer()
    if second:
        line.answer()
    assert await asyncio.gather(*tasks) == list(range(waiting))


async def test_a_second_call_waits_until_it_is_worth_it() -> None:
    """With one under way, a few wait for it, and enough go at once."""
    line = Line()
    commit = GroupCommit(line.send)
    submit(commit, [0])
    await turns()
    submit(commit, range(1, WORTH_A_CALL))
    await turns()
    assert line.sizes == [1]
    submit(commit, [WORTH_A_CALL])
    await turns()
    assert line.sizes == [1, WORTH_A_CALL]
    submit(commit, range(100))
    await turns()
    assert line.sizes == [1, WORTH_A_CALL]
    line.answer()
    await turns()
    assert line.sizes == [1, WORTH_A_CALL, 100]


async def test_a_cancelled_request_is_not_sent_and_hurts_nobody() -> None:
    """Cancelled before the call it is left out; cancelled during it the others are answered."""
    line = Line()
    tasks = submit(GroupCommit(line.send), [1, 2, 3])
    await asyncio.sleep(0)
    tasks[1].cancel()
    await turns()
    assert line.sent == [[1, 3]]
    tasks[0].cancel()
    await turns()
    line.answer()
    assert await tasks[2] == 3


async def test_a_failure_reaches_all_of_the_batch_and_no_more() -> None:
    """Each waiter gets an error of its own, and the next batch goes on."""
    line = Line()
    commit = GroupCommit(line.send)
    first = submit(commit, [1, 2])
    await turns()
    later = submit(commit, [3])
    await turns()
    line.answer(StoreError("BUSY"))
    errors = await asyncio.gather(*first, return_exceptions=True)
    assert [type(error) for error in errors] == [StoreError] * 2
    assert errors[0] is not errors[1]
    assert errors[0].__cause__ is errors[1].__cause__ is not None
    await turns()
    line.answer()
    assert await asyncio.gather(*later) == [3]


@pytest.mark.parametrize("error", [StoreTimeout("late"), StoreUnavailable("gone")])
async def test_nobody_waits_twice_for_a_store_that_is_away(error: StoreError) -> None:
    """Whoever has waited behind a call that got no answer is told with it; who comes later asks anew."""
    line = Line()
    commit = GroupCommit(line.send)
    tasks = submit(commit, [1])
    await turns()
    tasks += submit(commit, [2, 3])
    await turns()
    line.answer(error)
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [type(error)] * 3
    assert line.sent == [[1]]
    later = submit(commit, [4])
    await turns()
    line.answer()
    assert await asyncio.gather(*later) == [4]


async def test_corrections_wait_for_the_next_call() -> None:
    """Whoever corrects something does not do without it: what has not set out yet does so next."""
    line = Line()
    commit = GroupCommit(line.send)
    tasks = submit(commit, [1])
    await turns()
    correction: Any = Request([2], Op.ADJUST)  # type: ignore[list-item]
    tasks.append(asyncio.create_task(_submit(commit, correction)))
    await turns()
    line.answer(StoreTimeout("late"))
    assert line.sent == [[1], [2]]
    line.answer()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [StoreTimeout, int]


async def test_closing_waits_for_what_is_under_way() -> None:
    """Nobody who was sent is left without an answer."""
    line = Line()
    commit = GroupCommit(line.send)
    tasks = submit(commit, [1])
    await turns()
    closing = asyncio.create_task(commit.aclose())
    await turns()
    assert not closing.done()
    line.answer()
    await closing
    assert await asyncio.gather(*tasks) == [1]


async def test_an_unforeseen_error_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the call is in the log, and those who wait get an error of ours."""
    line = Line()
    tasks = submit(GroupCommit(line.send), [1])
    await turns()
    line.answer(ZeroDivisionError())
    with pytest.raises(StoreError, match="ZeroDivisionError"):
        await tasks[0]
    assert "not foreseen" in caplog.text


async def test_the_charges_of_a_call_are_bounded_too() -> None:
    """Requests with very many charges travel in several calls, but never in none."""
    line = Line()
    commit = GroupCommit(line.send)
    sizes = [MAX_CHARGES + 1, MAX_CHARGES, 1]
    requests: list[Any] = [Request([n] * size) for n, size in enumerate(sizes)]  # type: ignore[list-item]
    tasks = [asyncio.create_task(_submit(commit, request)) for request in requests]
    for _ in sizes:
        await turns()
        line.answer()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert line.sent == [[0], [1], [2]]
