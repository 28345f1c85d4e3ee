"""The middleware: WebSockets, lifespan, the request's state, failures of `identify` and of the store."""

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from ratelimit import (
    ConfigurationError,
    Decision,
    Identity,
    Limit,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitSettings,
    limit,
)
from ratelimit.errors import StoreUnavailable
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, client_for, ok

ONE = {"name": "token", "rate": "1/minute", "per": ["token"]}


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def websocket_client(clock: ManualClock) -> TestClient:
    return client_for(clock, limits=[ONE], routes=[WebSocketRoute("/ws", chat)])


def test_a_handshake_is_charged_and_refused_with_429(clock: ManualClock) -> None:
    """If the server can answer a handshake with HTTP, the refusal is the same as for a request."""
    client = websocket_client(clock)
    with client.websocket_connect("/ws") as websocket:
        assert websocket.receive_text() == "hello"
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/ws"):
        pass
    assert refused.value.status_code == 429
    assert refused.value.headers["x-ratelimit-remaining"] == "0"
    assert refused.value.json()["scope"] == "token"


async def test_a_handshake_is_closed_where_http_cannot_be_answered(clock: ManualClock) -> None:
    """Without the denial extension, the connection is closed with 1013 before it is accepted."""
    limiter = Limiter(RateLimitSettings.model_validate({"limits": [ONE]}), MemoryStore(clock=clock), clock)
    app = RateLimitMiddleware(chat_app, limiter=limiter, identify=lambda connection: Identity(token="t"))
    assert (await handshake(app))[0]["type"] == "websocket.accept"
    sent = await handshake(app)
    assert [(message["type"], message.get("code")) for message in sent] == [("websocket.close", 1013)]


async def chat_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def handshake(app: Any) -> list[Any]:
    """Run a handshake and return what the app sent; sending before `connect` was received is an error."""
    sent: list[Any] = []
    unread = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        return unread.pop()

    async def send(message: Any) -> None:
        assert not unread, "sent before the connection was received"
        sent.append(message)

    await app({"type": "websocket", "path": "/ws", "headers": [], "client": None}, receive, send)
    return sent


def test_the_decision_is_in_the_requests_state(clock: ManualClock) -> None:
    """An endpoint reads the decision on its own request."""
    app = FastAPI()

    @app.get("/")
    async def index(request: Request) -> dict[str, Any]:
        decision: Decision = request.state.ratelimit
        return {"allowed": decision.allowed, "left": [one.remaining for one in decision.limits]}

    assert client_for(clock, app=app, limits=[ONE]).get("/").json() == {"allowed": True, "left": [0]}


def test_identify_may_be_async(clock: ManualClock) -> None:
    """An async identify is awaited."""

    async def identify(connection: Any) -> Identity:
        await asyncio.sleep(0)
        return by_headers(connection)

    client = client_for(clock, limits=[ONE], identify=identify)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_a_failing_identify_is_logged(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """In one line of each middleware (here two) for ten seconds, with the error's kind and place, without the token."""

    def identify(connection: Any) -> Identity:
        raise LookupError(connection.headers["authorization"])

    client = client_for(clock, limits=[ONE], identify=identify)
    for _ in range(3):
        client.get("/", headers={"authorization": "Bearer secret"})
    lines = [message for message in caplog.messages if "identify failed" in message]
    assert len(lines) == 2
    assert "LookupError in test_middleware.py, line" in lines[0]
    assert "secret" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_limits_by_token_hold_where_identify_fails(clock: ManualClock) -> None:
    """For the credential as it was sent: a directory that is down is no way round the limits."""

    def identify(connection: Any) -> Identity:
        raise ConnectionError

    client = client_for(clock, limits=[Limit(name="token", rate="1/minute", per="token")], identify=identify)
    for headers in ({"authorization": "Bearer a"}, {"authorization": "Bearer b"}, {"x-api-key": "k"}):
        assert [client.get("/", headers=headers).status_code for _ in range(2)] == [200, 429]


def test_settings_and_a_limiter_are_not_both_accepted() -> None:
    """Handing in both fails at construction."""
    settings = RateLimitSettings()
    with pytest.raises(ConfigurationError, match="not both"):
        RateLimitMiddleware(chat_app, settings=settings, limiter=Limiter(settings))


def test_a_wrong_decorator_keeps_the_app_from_starting() -> None:
    """A decorator with an undeclared dimension fails while the app starts, not at the first request."""
    app = FastAPI()

    @app.get("/x")
    @limit("1/minute", per="tennant")
    async def x() -> str:
        return "x"

    app.add_middleware(RateLimitMiddleware)
    with pytest.raises(ConfigurationError, match=r"GET /x.*'tennant' is not one of"), TestClient(app):
        pass


class Closing(MemoryStore):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def test_its_own_limiter_is_closed_at_shutdown_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middleware closes the limiter that it made, once, and leaves a given one open."""
    own, other = Closing(), Closing()
    monkeypatch.setattr("ratelimit.limiter_core.open_store", lambda *args, **kwargs: own)
    for limiter in (None, Limiter(RateLimitSettings(), other)):
        app = Starlette(routes=[Route("/", ok)])
        app.add_middleware(RateLimitMiddleware, limiter=limiter)
        with TestClient(app) as client:
            client.get("/")
    assert (own.closed, other.closed) == (1, 0)


class Unavailable(MemoryStore):
    async def submit(self, request: Any) -> Any:
        raise StoreUnavailable("the store could not be reached")


@pytest.mark.parametrize(
    ("mode", "statuses", "code"),
    [("local", [200, 429], "rate_limit_exceeded"), ("allow", [200, 200], None), ("deny", [503, 503], None)],
)
def test_an_unavailable_store(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, mode: str, statuses: list[int], code: str | None
) -> None:
    """Each failure mode answers as declared: never 401, never 500, and 429 only by a real count."""
    settings = RateLimitSettings.model_validate({"limits": [{**ONE, "on_store_failure": mode}]})
    app = Starlette(routes=[Route("/", ok)])
    app.add_middleware(RateLimitMiddleware, limiter=Limiter(settings, Unavailable(), clock), identify=by_headers)
    with caplog.at_level(logging.INFO), TestClient(app, headers={"x-token": "t"}) as client:
        answers = [client.get("/") for _ in range(2)]
    assert [answer.status_code for answer in answers] == statuses
    assert [line for line in caplog.messages if line.startswith("store")] == [
        "store unavailable: the store could not be reached <MemoryStore keys=0>; limits follow on_store_failure [RL401]"
    ]
    if mode == "deny":
        refused = answers[0]
        assert refused.json() == {
            "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "title": "Service temporarily unavailable",
            "status": 503,
            "detail": "The service runs at reduced capacity. Try again in 1 second.",
            "code": "rate_limiter_unavailable",
            "instance": refused.json()["instance"],
        }
        assert refused.headers["retry-after"] == "1"
        assert not any(name.startswith("x-ratelimit") for name in refused.headers)
    if mode == "allow":
        assert not any(name.startswith("x-ratelimit") for name in answers[0].headers)


def test_an_outage_is_logged_when_it_begins_and_ends(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each is one line in the log."""

    class Flaky(MemoryStore):
        calls = 0

        async def submit(self, request: Any) -> Any:
            self.calls += 1
            if self.calls in (2, 3):
                raise StoreUnavailable
            return await super().submit(request)

    settings = RateLimitSettings.model_validate({"limits": [{**ONE, "rate": "9/minute"}]})
    app = Starlette(routes=[Route("/", ok)])
    app.add_middleware(RateLimitMiddleware, limiter=Limiter(settings, Flaky(clock=clock), clock), identify=by_headers)
    with TestClient(app, headers={"x-token": "t"}) as client:
        assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    assert [message.partition(":")[0] for message in caplog.messages] == ["store unavailable", "store available"]


def test_a_closed_websocket_is_not_an_error(clock: ManualClock) -> None:
    """A client that leaves a limited WebSocket early causes no error."""

    async def endless(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()

    client = client_for(clock, limits=[{**ONE, "rate": "9/minute"}], routes=[WebSocketRoute("/ws", endless)])
    with client, client.websocket_connect("/ws"):
        pass


@pytest.mark.parametrize("settings", [{"limits": []}, "redis://x", 5])
def test_settings_of_another_kind_are_named(settings: Any) -> None:
    """A dict or a URL in place of settings fails at construction."""
    with pytest.raises(ConfigurationError, match="settings must be a RateLimitSettings"):
        RateLimitMiddleware(chat_app, settings=settings)


@pytest.mark.parametrize("wrong", ["token", 5, lambda: None])
def test_an_identify_that_returns_another_kind_is_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, wrong: Any
) -> None:
    """The log names the type that is neither `Identity` nor `None`, and the caller's address is limited."""
    client = client_for(clock, limits=[{**ONE, "per": "ip"}], identify=lambda connection: wrong)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert f"must return an Identity or None, not {type(wrong).__name__}" in caplog.text


def test_exempt_endpoints_have_a_decision_too(clock: ManualClock) -> None:
    """A handler of exempt and limited routes reads a decision on both."""

    async def index(request: Request) -> Any:
        return JSONResponse({"limits": len(request.state.ratelimit.limits)})

    client = client_for(clock, limits=[ONE], exempt=["/free"], routes=[Route("/free", index), Route("/x", index)])
    assert [client.get(path).json()["limits"] for path in ("/free", "/x")] == [0, 1]


def test_an_accepted_websocket_gets_no_retry_after(clock: ManualClock) -> None:
    """The response to the handshake carries the numbers, and no `Retry-After` although nothing is left."""
    style = {"retry_after": "exhausted"}
    client = client_for(clock, limits=[ONE], routes=[WebSocketRoute("/ws", chat)], response=style)
    with client.websocket_connect("/ws") as websocket:
        extra: Any = websocket.extra_headers
        headers = dict(extra)
    assert headers[b"x-ratelimit-remaining"] == b"0"
    assert b"retry-after" not in headers


def test_a_denial_by_the_app_carries_the_numbers(clock: ManualClock) -> None:
    """If the app answers a handshake with HTTP, its response gets the headers of any other response."""

    async def deny(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", status_code=403))

    client = client_for(clock, limits=[ONE], routes=[WebSocketRoute("/ws", deny)])
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/ws"):
        pass
    assert (refused.value.status_code, refused.value.headers["x-ratelimit-remaining"]) == (403, "0")
