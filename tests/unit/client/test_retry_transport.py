"""The transports: what is sent again, and what is waited for, as a caller sees it.

Also tests `client.base_transport`, `client.retry_engine` and `client.throttle_transport`.
"""

import asyncio
import builtins
import importlib
import io
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from ratelimit import ConfigurationError, LimitExceeded, Throttle
from ratelimit.client import (
    CONTRACT_B,
    DEFAULT_RETRY_POLICY,
    AsyncRetryTransport,
    AsyncThrottleTransport,
    RetryTransport,
    ThrottleTransport,
    WaitEvent,
)
from tests.behaviour.test_sync_async_parity import Resting
from tests.support.virtual_time import VirtualLoop, virtually

URL = "http://api/x"


class Server:
    """Refuses so many times, then serves."""

    def __init__(self, refusals: int = 1, status: int = 429, **headers: str) -> None:
        self.refusals, self.status, self.bodies = refusals, status, list[bytes]()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()} or {"retry-after": "3"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        return self.answer()

    async def asynchronous(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(await request.aread())
        return self.answer()

    def answer(self) -> httpx.Response:
        refused = len(self.bodies) <= self.refusals
        return httpx.Response(self.status if refused else 200, headers=self.headers if refused else {}, text="said")


def numbers() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


class Sends(httpx.BaseTransport):
    """Takes the body from the request, as a connection does."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.server.bodies.append(b"".join(request.stream))
        return self.server.answer()


class AsyncSends(httpx.AsyncBaseTransport):
    def __init__(self, server: Server) -> None:
        self.server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.server.bodies.append(b"".join([chunk async for chunk in request.stream]))
        return self.server.answer()


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({}, 2),
        ({"content": b"bytes"}, 2),
        ({"json": {"a": 1}}, 2),
        ({"data": {"a": "1"}}, 2),
        ({"data": {"a": "1"}, "files": {"f": io.BytesIO(b"file")}}, 2),
        ({"files": {"f": b"bytes"}}, 2),
        ({"content": numbers()}, 1),
        ({"files": {"f": Unseekable(b"file")}}, 1),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_can_be_sent_again_is(method: str, body: dict[str, Any], sent: int) -> None:
    """Whatever the method, with the same body; a body that is gone goes to the caller as the refusal that it is."""
    server = Server()
    for file in body.get("files", {}).values():
        if isinstance(file, io.BytesIO):
            file.seek(0)
    with httpx.Client(transport=Resting(transport=Sends(server))) as client:
        answer = client.request(method, URL, **({"content": numbers()} if sent == 1 and "content" in body else body))
    assert answer.status_code == (200 if sent == 2 else 429)
    assert answer.text == "said"
    assert len(server.bodies) == sent
    assert len(set(server.bodies)) == 1


def test_a_success_is_not_read() -> None:
    """A stream is handed on as it comes."""
    chunks = list[str]()

    def produce() -> Iterator[bytes]:
        for chunk in (b"a", b"b"):
            chunks.append("made")
            yield chunk

    transport = RetryTransport(httpx.MockTransport(lambda _: httpx.Response(200, content=produce())))
    with httpx.Client(transport=transport) as client, client.stream("GET", URL) as answer:
        assert chunks == []
        assert answer.read() == b"ab"


def test_the_last_response_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """Returned once the policy has enough, with how it came to that; each refusal is a line in the log, without secrets."""
    transport = Resting(transport=httpx.MockTransport(Server(9)), policy=CONTRACT_B)
    with caplog.at_level(logging.INFO, "ratelimit.client"), httpx.Client(transport=transport) as client:
        answer = client.get(URL, params={"key": "secret"})
    assert (answer.status_code, answer.text) == (429, "said")
    assert answer.extensions["ratelimit"] == {"attempts": 3, "waited": 6.0}
    assert transport.last_refusal is not None
    assert transport.last_refusal.status_code == 429
    assert [record.message for record in caplog.records] == [
        "GET http://api/x: refused with 429 (Retry-After 3), attempt 1; retry in 3 s",
        "GET http://api/x: refused with 429 (Retry-After 3), attempt 2; retry in 3 s",
        "GET http://api/x: refused with 429 (Retry-After 3), attempt 3; not retried",
    ]


def test_long_waits_are_told_every_second() -> None:
    """With what is left of them, and the response that asked for it, which is read."""
    events = list[WaitEvent]()
    transport = Resting(transport=httpx.MockTransport(Server()), policy=CONTRACT_B, on_wait=events.append)
    with httpx.Client(transport=transport) as client:
        assert client.get(URL).status_code == 200
    assert [(wait.reason, wait.seconds_left, wait.attempt) for wait in events] == [
        ("refused", n, 1) for n in (3.0, 2.0, 1.0)
    ]
    assert events[0].response is not None
    assert events[0].response.text == "said"
    assert events[0].request.url == URL


def test_who_waits_ahead_is_told_too() -> None:
    """That a limit is waited for, and how long."""
    headers = {"x-ratelimit-limit": "9", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3"}
    events = list[WaitEvent]()
    transport = Resting(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=headers)), on_wait=events.append
    )
    with httpx.Client(transport=transport) as client:
        client.get(URL)
        client.get(URL)
    assert [(wait.reason, wait.seconds_left, wait.response) for wait in events] == [
        ("ahead", n, None) for n in (3.0, 2.0, 1.0)
    ]


class EnoughError(Exception):
    """Raised by a callback that wants to end the wait."""


def test_a_callback_may_end_the_wait() -> None:
    """What it raises goes to the caller, and the line goes on without it."""

    def enough(wait: WaitEvent) -> None:
        raise EnoughError

    transport = Resting(transport=httpx.MockTransport(Server()), on_wait=enough)
    with httpx.Client(transport=transport) as client:
        with pytest.raises(EnoughError):
            client.get(URL)
        transport.time.now += 3
        assert client.get(URL).status_code == 200


def test_errors_of_the_network_go_to_the_caller() -> None:
    """They are not refusals, and no later request waits for a response to the failed one."""
    answers: Iterator[httpx.Response | Exception] = iter(
        [httpx.Response(429, headers={"retry-after": "1"}), httpx.ReadTimeout("slow"), httpx.Response(200)]
    )

    def handler(_: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    transport = Resting(transport=httpx.MockTransport(handler))
    with httpx.Client(transport=transport) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(URL)
        assert client.get(URL).status_code == 200


def test_a_cancelled_wait_ends_at_once() -> None:
    """By a timeout around it; the refusal is still there to be looked at."""

    async def story(loop: VirtualLoop) -> None:
        transport = AsyncRetryTransport(httpx.MockTransport(Server(retry_after="100").asynchronous))
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await client.get(URL)
            assert loop.time() == 5
            assert transport.last_refusal is not None
            assert (transport.last_refusal.status_code, transport.last_refusal.text) == (429, "said")
            assert (await client.get(URL)).status_code == 200
            assert loop.time() == 100

    virtually(story)


async def test_an_async_body_that_is_gone_is_not_sent_again() -> None:
    """A generator was used up by the first try."""

    async def produce() -> AsyncIterator[bytes]:
        yield b"once"

    server = Server()
    async with httpx.AsyncClient(transport=AsyncRetryTransport(AsyncSends(server))) as client:
        assert (await client.post(URL, content=produce())).status_code == 429
    assert server.bodies == [b"once"]


def test_threads_stand_in_one_line() -> None:
    """What one thread learns holds back the others, and each is woken when its turn comes."""
    lock, sent = threading.Lock(), list[int]()

    def handler(_: httpx.Request) -> httpx.Response:
        with lock:
            sent.append(1)
            left = 5 - len(sent) % 6
        headers = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": str(left), "x-ratelimit-reset": "0"}
        return httpx.Response(200, headers=headers)

    with httpx.Client(transport=RetryTransport(httpx.MockTransport(handler))) as client:
        threads = [threading.Thread(target=client.get, args=(URL,)) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(sent) == 30


def test_callers_are_told_apart() -> None:
    """What one token has used up does not hold back another; a key of one's own decides otherwise."""
    headers = {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}
    for options, pauses in (({}, []), ({"key": lambda request: request.url.host}, [9])):
        transport = Resting(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=headers)), **options)
        with httpx.Client(transport=transport) as client:
            client.get(URL, headers={"authorization": "Bearer one"})
            client.get(URL, headers={"authorization": "Bearer two"})
        assert transport.time.pauses == pauses


def test_it_goes_into_the_other_httpx_too() -> None:
    """The next generation hands over requests of the same shape."""
    bodies = list[bytes]()

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.read())
        return httpx2.Response(429 if len(bodies) == 1 else 200, headers={"retry-after": "2"})

    transport: Any = Resting()
    transport.wrapped = httpx2.MockTransport(handler)
    with httpx2.Client(transport=transport) as client:
        assert client.post(URL, json={"a": 1}).status_code == 200
    assert bodies == [b'{"a":1}'] * 2
    assert transport.time.pauses == [pytest.approx(2, abs=0.3)]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RetryTransport(httpx.AsyncHTTPTransport()), "must be an httpx.BaseTransport, not Async"),  # type: ignore[arg-type]
        (lambda: AsyncRetryTransport(httpx.HTTPTransport()), "transport: must be an httpx.AsyncBaseTransport"),  # type: ignore[arg-type]
        (lambda: RetryTransport(policy="A"), "policy: must be a RetryPolicy"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_fail_at_once(make: Callable[[], Any], named: str) -> None:
    """With the name of the field."""
    with pytest.raises(ConfigurationError, match=named):
        make()


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "tenacity":
            raise ImportError(name=name)
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.startswith("ratelimit.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs tenacity.*pip install 'ratelimit-asgi\[client\]'"):
        importlib.import_module("ratelimit.client")


def test_a_throttle_goes_between() -> None:
    """Sent no faster than it lets, also what is sent again."""

    async def story(loop: VirtualLoop) -> None:
        server = Server()
        throttle = Throttle("2/10s", clock=loop.clock, max_wait=60)
        within = AsyncThrottleTransport(throttle, httpx.MockTransport(server.asynchronous))
        async with httpx.AsyncClient(transport=AsyncRetryTransport(within, policy=DEFAULT_RETRY_POLICY)) as client:
            for _ in range(3):
                assert (await client.get(URL)).status_code == 200
        assert len(server.bodies) == 4
        assert 13 < loop.time() < 14
        await throttle.aclose()

    virtually(story)


def test_a_throttle_goes_between_for_threads() -> None:
    """What would wait too long is not sent."""
    server, throttle = Server(0), Throttle("1/minute", max_wait=1)
    with httpx.Client(transport=ThrottleTransport(throttle, httpx.MockTransport(server))) as client:
        assert client.get(URL).status_code == 200
        with pytest.raises(LimitExceeded):
            client.get(URL)
    assert len(server.bodies) == 1
    throttle.close()
