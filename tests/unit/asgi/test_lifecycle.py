"""The lifecycle of a request: which headers its response gets, and when its charges are corrected and released."""

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from ratelimit import Decision, RateLimitSettings, ServiceLimit
from ratelimit.asgi.lifecycle import Connection, RequestContext, serve_with_settlement
from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget, Settlement
from ratelimit.model.charge import Charge
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from tests.support.stores import concurrency_limit, window_limit


def policies_of(*names: str) -> EndpointPolicies:
    resolver = PolicyResolver(
        RateLimitSettings.model_validate({"limits": [{"name": name, "rate": "5/minute"} for name in names]})
    )
    return resolver.policies_at(resolver.endpoint("GET", "/"))


def limit_of(policy: str, remaining: int, wait: float = 0.0) -> ServiceLimit:
    return ServiceLimit(policy, "limit", "token", 5, remaining, 60, 1_700_000_000.0, wait)


class Recorder:
    """A target of corrections, and an app's server, that keep in one list what happens in which order."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.target = CorrectionTarget(self._write, {"p", "requests"}, lambda: False)

    def _write(self, request: StoreRequest) -> Any:
        assert request.operation == Operation.ADJUST
        self.events.append({charge.limit.policy: charge.cost for charge in request.charges})
        return COMPLETED

    def settlement(self) -> Settlement:
        """Return the settlement of a permit `s` and a unit of `p`, which a 404 or 500 refunds."""
        limit = window_limit(5)
        limit.refund_on = (404, 500)
        request = StoreRequest([Charge(concurrency_limit(1), "s"), Charge(limit, "p")], Operation.ACQUIRE, 7)
        return Settlement(self.target, request, StoreReply([(0, 0, 0), (4, 60_000, 0)], 0, 1))

    async def send(self, message: Message) -> None:
        self.events.append(message["type"].rpartition(".")[2])

    @property
    def connection(self) -> Connection:
        async def receive() -> Message:
            raise NotImplementedError

        return {"type": "http"}, receive, self.send


def app_that_sends(*messages: Message, fails: bool = False) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if fails:
            raise LookupError

    return app


START: Message = {"type": "http.response.start", "status": 200}
CHUNK: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"x"}


async def run(recorder: Recorder, app: Any) -> list[object]:
    context = RequestContext(Decision(True), policies_of("p"))
    await serve_with_settlement(app, recorder.settlement(), context, recorder.connection)
    return recorder.events


async def test_a_permit_is_released_after_the_last_chunk() -> None:
    """Not after an earlier chunk, and once."""
    events = await run(Recorder(), app_that_sends(START, CHUNK, END))
    assert events == ["start", "body", "body", {"s": -1}]


async def test_a_status_that_refunds_gives_the_charge_back_before_the_response() -> None:
    """A client that reads the response finds its charge given back already."""
    events = await run(Recorder(), app_that_sends({**START, "status": 404}, END))
    assert events == [{"p": -1}, "start", "body", {"s": -1}]


async def test_an_app_that_fails_before_it_answers_counts_as_a_500() -> None:
    """The server answers for it with that status; the permit is released in any case."""
    recorder = Recorder()
    with pytest.raises(LookupError):
        await run(recorder, app_that_sends(fails=True))
    assert recorder.events == [{"p": -1}, {"s": -1}]


async def test_an_app_that_fails_in_its_response_keeps_its_status() -> None:
    """The client has seen the 200, so a failure afterwards refunds nothing."""
    recorder = Recorder()
    with pytest.raises(LookupError):
        await run(recorder, app_that_sends(START, CHUNK, fails=True))
    assert recorder.events == ["start", "body", {"s": -1}]


async def test_headers_are_those_of_the_decision_when_the_response_starts() -> None:
    """An inner limiter may decide after the outer one has wrapped `send`, and the tightest limit is reported."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    context = RequestContext(Decision.from_limits([limit_of("outer", 4)]), policies_of("outer"))
    wrapped = context.adding_headers(send)
    context.add(Decision.from_limits([limit_of("inner", 2)]), policies_of("inner"))
    await wrapped(START)
    assert dict(sent[0]["headers"])[b"x-ratelimit-remaining"] == b"2"
    assert [policy.name for policy in context.policies] == ["outer", "inner"]


async def test_the_response_of_an_inner_refusal_gets_no_second_headers() -> None:
    """The inner limiter has rendered its own numbers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    context = RequestContext(Decision.from_limits([limit_of("outer", 4)]), policies_of("outer"))
    context.add(Decision.from_limits([limit_of("inner", 0, 3.0)]), policies_of("inner"))
    context.refused = not context.decision.allowed
    await context.adding_headers(send)({**START, "status": 429, "headers": []})
    assert sent == [{**START, "status": 429, "headers": []}]


def test_a_decision_without_the_store_replaces_the_outer_one() -> None:
    """A refusal because the store is unavailable names no limit, so the outer limits are not reported with it."""
    context = RequestContext(Decision.from_limits([limit_of("outer", 4)]), policies_of("outer"))
    unavailable = Decision.unavailable()
    context.add(unavailable, policies_of("inner"))
    assert context.decision is unavailable
