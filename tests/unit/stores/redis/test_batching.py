"""Batching: requests that wait at the same moment travel in one call, first come first served."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ratelimit._utils.histogram import Histogram
from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis.batching import MAX_BATCH_CHARGES, MAX_BATCH_REQUESTS, SECOND_CALL_MIN, Batcher


class Calls:
    """Takes the calls that a batcher starts; the test ends each of them with `reply`."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []
        self._open: list[Callable[[Any], None]] = []

    def send(self, requests: Sequence[StoreRequest], on_result: Callable[[Any], None]) -> None:
        self.sent.append([request.charges[0] for request in requests])
        self._open.append(on_result)

    def reply(self, error: Exception | None = None) -> None:
        """End the oldest call that is in flight, with its charges as their own replies."""
        charges = self.sent[len(self.sent) - len(self._open)]
        self._open.pop(0)(error or charges)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.sent]


def submit(batcher: Batcher, numbers: Sequence[int]) -> list[asyncio.Task[Any]]:
    # A number stands for the charge of each request: a batcher does not look into charges.
    requests: list[Any] = [StoreRequest([n]) for n in numbers]  # type: ignore[list-item]
    return [asyncio.create_task(_submit(batcher, request)) for request in requests]


async def _submit(batcher: Batcher, request: StoreRequest) -> Any:
    return await batcher.submit(request)


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_go_in_one_call() -> None:
    """Three requests of one turn of the event loop are one call, and each gets its own reply."""
    calls = Calls()
    tasks = submit(Batcher(calls.send), [1, 2, 3])
    await turns()
    assert calls.sent == [[1, 2, 3]]
    calls.reply()
    assert await asyncio.gather(*tasks) == [1, 2, 3]


async def test_requests_during_a_call_go_together_in_order() -> None:
    """While a call is in flight the others wait, and all of them go together when it returns."""
    calls = Calls()
    batcher = Batcher(calls.send)
    submit(batcher, [0])
    await turns()
    for n in (1, 2, 3):
        submit(batcher, [n])
        await turns()
    assert calls.sent == [[0]]
    calls.reply()
    await turns()
    assert calls.sent == [[0], [1, 2, 3]]
    calls.reply()


async def test_batches_and_calls_in_flight_are_bounded() -> None:
    """No call carries more than the bound, and there are two at a time."""
    calls = Calls()
    tasks = submit(Batcher(calls.send), range(3 * MAX_BATCH_REQUESTS))
    await turns()
    assert calls.sizes == [MAX_BATCH_REQUESTS, MAX_BATCH_REQUESTS]
    calls.reply()
    await turns()
    assert calls.sizes == [MAX_BATCH_REQUESTS] * 3
    calls.reply()
    calls.reply()
    assert await asyncio.gather(*tasks) == list(range(3 * MAX_BATCH_REQUESTS))


@pytest.mark.parametrize(
    "waiting", [1, SECOND_CALL_MIN, SECOND_CALL_MIN + 1, 2 * SECOND_CALL_MIN, 64, 2 * MAX_BATCH_REQUESTS]
)
async def test_many_requests_go_in_two_halves(waiting: int) -> None:
    """So that this process works while the server does; a few requests go in one call, at once."""
    calls = Calls()
    tasks = submit(Batcher(calls.send), range(waiting))
    await turns()
    first = min(waiting, max(SECOND_CALL_MIN, -(-waiting // 2)))
    second = waiting - first
    assert calls.sizes == ([first, second] if second >= SECOND_CALL_MIN else [first])
    calls.reply()
    if second:
        calls.reply()
    assert await asyncio.gather(*tasks) == list(range(waiting))


async def test_a_second_call_waits_for_enough_requests() -> None:
    """With one call in flight, a few requests wait for its end, and enough of them go at once."""
    calls = Calls()
    batcher = Batcher(calls.send)
    submit(batcher, [0])
    await turns()
    submit(batcher, range(1, SECOND_CALL_MIN))
    await turns()
    assert calls.sizes == [1]
    submit(batcher, [SECOND_CALL_MIN])
    await turns()
    assert calls.sizes == [1, SECOND_CALL_MIN]
    submit(batcher, range(100))
    await turns()
    assert calls.sizes == [1, SECOND_CALL_MIN]
    calls.reply()
    await turns()
    assert calls.sizes == [1, SECOND_CALL_MIN, 100]


async def test_a_cancelled_request_leaves_the_others_alone() -> None:
    """Cancelled before the call it is not sent; cancelled during it the others get their replies."""
    calls = Calls()
    tasks = submit(Batcher(calls.send), [1, 2, 3])
    await asyncio.sleep(0)
    tasks[1].cancel()
    await turns()
    assert calls.sent == [[1, 3]]
    tasks[0].cancel()
    await turns()
    calls.reply()
    assert await tasks[2] == 3


async def test_a_failure_reaches_all_of_its_batch_and_no_other() -> None:
    """Each caller gets an error of its own with a common cause, and the next batch is sent."""
    calls = Calls()
    batcher = Batcher(calls.send)
    first = submit(batcher, [1, 2])
    await turns()
    later = submit(batcher, [3])
    await turns()
    calls.reply(StoreError("BUSY"))
    errors = await asyncio.gather(*first, return_exceptions=True)
    assert [type(error) for error in errors] == [StoreError] * 2
    assert errors[0] is not errors[1]
    assert errors[0].__cause__ is errors[1].__cause__ is not None
    await turns()
    calls.reply()
    assert await asyncio.gather(*later) == [3]


@pytest.mark.parametrize("error", [StoreTimeout("late"), StoreUnavailable("gone")])
async def test_requests_do_not_wait_behind_a_call_without_a_reply(error: StoreError) -> None:
    """Requests that have waited behind it fail with it; a later request is sent."""
    calls = Calls()
    batcher = Batcher(calls.send)
    tasks = submit(batcher, [1])
    await turns()
    tasks += submit(batcher, [2, 3])
    await turns()
    calls.reply(error)
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [type(error)] * 3
    assert calls.sent == [[1]]
    later = submit(batcher, [4])
    await turns()
    calls.reply()
    assert await asyncio.gather(*later) == [4]


async def test_corrections_are_sent_after_a_call_without_a_reply() -> None:
    """A correction is due in any case: it goes with the next call."""
    calls = Calls()
    batcher = Batcher(calls.send)
    tasks = submit(batcher, [1])
    await turns()
    correction: Any = StoreRequest([2], Operation.ADJUST)  # type: ignore[list-item]
    tasks.append(asyncio.create_task(_submit(batcher, correction)))
    await turns()
    calls.reply(StoreTimeout("late"))
    assert calls.sent == [[1], [2]]
    calls.reply()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [StoreTimeout, int]


async def test_closing_waits_for_the_calls_in_flight() -> None:
    """Every request that was sent gets its reply."""
    calls = Calls()
    batcher = Batcher(calls.send)
    tasks = submit(batcher, [1])
    await turns()
    closing = asyncio.create_task(batcher.drain())
    await turns()
    assert not closing.done()
    calls.reply()
    await closing
    assert await asyncio.gather(*tasks) == [1]


async def test_an_unexpected_error_reaches_the_callers(caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log, and every caller of the batch gets `StoreError`."""
    calls = Calls()
    tasks = submit(Batcher(calls.send), [1])
    await turns()
    calls.reply(ZeroDivisionError())
    with pytest.raises(StoreError, match="ZeroDivisionError"):
        await tasks[0]
    assert "store call failed with an unexpected error" in caplog.text


async def test_the_charges_of_a_call_are_bounded() -> None:
    """Requests with very many charges travel in several calls; one that exceeds the bound alone goes alone."""
    calls = Calls()
    batcher = Batcher(calls.send)
    sizes = [MAX_BATCH_CHARGES + 1, MAX_BATCH_CHARGES, 1]
    requests: list[Any] = [StoreRequest([n] * size) for n, size in enumerate(sizes)]  # type: ignore[list-item]
    tasks = [asyncio.create_task(_submit(batcher, request)) for request in requests]
    for _ in sizes:
        await turns()
        calls.reply()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert calls.sent == [[0], [1], [2]]


@pytest.mark.parametrize("error", [None, StoreTimeout("late")])
async def test_the_reply_to_a_cancelled_caller_goes_to_on_orphaned(error: StoreError | None) -> None:
    """So that what was charged can be undone; `None` says that the outcome is unknown."""
    calls, orphaned = Calls(), list[Any]()
    request: Any = StoreRequest([7], on_orphaned=lambda _, reply: orphaned.append(reply))  # type: ignore[list-item]
    task = asyncio.create_task(_submit(Batcher(calls.send), request))
    await turns()
    task.cancel()
    await turns()
    calls.reply(error)
    assert orphaned == [7 if error is None else None]


async def test_a_caller_that_is_cancelled_with_its_reply_orphans_it() -> None:
    """The reply has arrived in the same turn of the event loop, and the caller has not seen it."""
    calls, orphaned = Calls(), list[Any]()
    request: Any = StoreRequest([7], on_orphaned=lambda _, reply: orphaned.append(reply))  # type: ignore[list-item]
    task = asyncio.create_task(_submit(Batcher(calls.send), request))
    await turns()
    calls.reply()
    task.cancel()
    await turns()
    assert (task.cancelled(), orphaned) == (True, [7])


async def test_a_callback_that_cancels_its_caller_leaves_the_others_alone() -> None:
    """The others get their results, and what was done for the caller that went is orphaned."""
    calls, orphans = Calls(), list[Any]()
    batcher = Batcher(calls.send)
    futures: list[asyncio.Future[Any]] = []

    def then(request: StoreRequest, outcome: object) -> object:
        if request.charges[0] == 1:  # type: ignore[comparison-overlap]
            futures[0].cancel()
        if request.charges[0] == 2:  # type: ignore[comparison-overlap]
            raise LookupError
        return outcome

    for number in (1, 2, 3):
        request: Any = StoreRequest([number], on_orphaned=lambda *pair: orphans.append(pair[1]))  # type: ignore[list-item]
        futures.append(batcher.submit_soon(request, then))
    await turns()
    calls.reply()
    assert [future.done() for future in futures] == [True] * 3
    assert orphans == [1]
    assert isinstance(futures[1].exception(), LookupError)
    assert futures[2].result() == 3


async def test_closing_ends_where_those_that_waited_have_gone() -> None:
    """A request that is cancelled while it waits needs no call."""
    calls = Calls()
    batcher = Batcher(calls.send)
    submit(batcher, [0])
    await turns()
    (waiting,) = submit(batcher, [1])
    await turns()
    closing = asyncio.create_task(batcher.drain())
    await turns()
    waiting.cancel()
    await turns()
    calls.reply()
    await turns()
    assert closing.done()


async def test_what_counts_batches_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, called no more, and changes nothing."""
    calls, sizes = Calls(), Histogram((1, 2, 4))

    def fail(value: float) -> None:
        raise LookupError

    sizes.relays.append(fail)
    tasks = submit(Batcher(calls.send, sizes.observe), [1, 2])
    await turns()
    calls.reply()
    assert await asyncio.gather(*tasks) == [1, 2]
    assert (sizes.relays, sizes.number) == ([], 1)
    assert "an observation could not be handed on" in caplog.text
