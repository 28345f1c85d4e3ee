"""Calls without a reply: looked up when the store answers again, and what is still due is sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ratelimit.errors import StorePartiallyUnavailable, StoreTimeout, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import BatchResult
from ratelimit.stores.redis.in_doubt import MAX_IN_DOUBT, MAX_UNSENT, InDoubtCalls
from ratelimit.stores.redis.pending_call import PendingCall
from ratelimit.testing.factories import window_limit

CHARGE = Charge(window_limit(5), "{a}k")
REPLY = StoreReply([(4, 1000, -1)], 0, 0)


class Client:
    """Answers each look-up with what `kept` says, and each request that is sent again with `errors`, one after the other."""

    def __init__(self, *kept: BatchResult, errors: list[Exception] | None = None) -> None:
        self.kept, self.errors = list(kept), errors or []
        self.sent: list[StoreRequest] = []
        self.looked_up = 0
        self.calls = InDoubtCalls(self.look_up, self.submit, 30.0)

    def look_up(self, call: PendingCall, on_result: Callable[[BatchResult], None]) -> None:
        self.looked_up += 1
        on_result(self.kept.pop(0))

    async def submit(self, request: StoreRequest) -> StoreReply:
        self.sent.append(request)
        if self.errors:
            raise self.errors.pop(0)
        return REPLY


def call(*requests: StoreRequest, is_named: bool = True) -> PendingCall:
    made = PendingCall(requests, lambda _: None, None)
    made.is_named = is_named
    return made


async def test_what_was_done_for_a_gone_caller_goes_to_it() -> None:
    """`on_orphaned` gets the kept reply, and nothing is sent again."""
    orphaned = list[Any]()
    client = Client([REPLY])
    client.calls.add(call(StoreRequest([CHARGE], on_orphaned=lambda _, reply: orphaned.append(reply))))
    assert await client.calls.resolve()
    assert (orphaned, client.sent, client.calls.is_empty) == ([REPLY], [], True)


@pytest.mark.parametrize(("operation", "sent"), [(Operation.CHARGE, 0), (Operation.ADJUST, 1), (Operation.RENEW, 1)])
async def test_what_was_not_done_is_sent_if_it_is_still_due(operation: Operation, sent: int) -> None:
    """The caller of a charge has decided without it; a correction is due."""
    client = Client([])
    client.calls.add(call(StoreRequest([CHARGE], operation)))
    assert await client.calls.resolve()
    assert len(client.sent) == sent


async def test_a_look_up_that_fails_leaves_the_call_in_doubt() -> None:
    """It is looked up again, for as long as that takes."""
    client = Client(StoreTimeout("away"), StoreTimeout("away"), [REPLY])
    client.calls.add(call(StoreRequest([CHARGE])))
    assert [await client.calls.resolve() for _ in range(3)] == [False, False, True]
    assert client.looked_up == 3


async def test_a_correction_that_could_not_be_sent_is_sent_later() -> None:
    """Also where the next attempt does not reach its node either; charges are not kept."""
    client = Client(errors=[StorePartiallyUnavailable("a node is down")])
    client.calls.add_unsent([StoreRequest([CHARGE], Operation.ADJUST), StoreRequest([CHARGE])])
    assert not client.calls.is_empty
    assert [await client.calls.resolve() for _ in range(2)] == [False, True]
    assert [request.operation for request in client.sent] == [Operation.ADJUST] * 2


async def test_a_correction_that_fails_after_it_was_sent_is_the_executors_business() -> None:
    """It is in doubt, or kept as unsent, by the executor that it was given to; to keep it here would count it twice."""
    client = Client(errors=[StoreUnavailable("away")])
    client.calls.add_unsent([StoreRequest([CHARGE], Operation.ADJUST)])
    assert await client.calls.resolve()
    assert len(client.sent) == 1


async def test_the_next_reply_starts_the_look_ups_but_not_at_every_reply() -> None:
    """At most every 0.3 s: a server that has just come back has enough to do."""
    client = Client(StoreTimeout("away"), [REPLY])
    client.calls.add(call(StoreRequest([CHARGE])))
    client.calls.resolve_soon()
    client.calls.resolve_soon()
    await asyncio.sleep(0)
    assert client.looked_up == 1


async def test_an_unprotected_call_without_a_kept_reply_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """In a slot that is being migrated the reply may not have been kept: sent again, it might be counted twice."""
    client = Client([])
    client.calls.add(call(StoreRequest([CHARGE], Operation.ADJUST), is_named=False))
    assert await client.calls.resolve()
    assert client.sent == []
    assert "may be missing" in caplog.text


async def test_both_bounds_are_kept_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The oldest goes: a store that is down for long does not fill the memory."""
    client = Client(*[[]] * MAX_IN_DOUBT)
    for _ in range(MAX_IN_DOUBT + 1):
        client.calls.add(call(StoreRequest([CHARGE])))
    client.calls.add_unsent([StoreRequest([CHARGE], Operation.ADJUST)] * (MAX_UNSENT + 1))
    assert await client.calls.resolve()
    assert (client.looked_up, len(client.sent)) == (MAX_IN_DOUBT, MAX_UNSENT)
    assert caplog.text.count(f"more than {MAX_IN_DOUBT} store calls are in doubt") == 1
    assert caplog.text.count(f"more than {MAX_UNSENT} corrections could not be sent") == 1
    await client.calls.aclose()
