"""The transports: what is sent again, and what is waited for, as a caller sees it.

Also tests `client.base_transport`, `client.bodies`, `client.refusal_log`, `client.request_keys`,
`client.retry_engine` and `client.throttle_transport`.
"""

import asyncio
import builtins
import importlib
import io
import logging
import math
import sys
import threading
from collections import Counter
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


class BrokenOff(httpx.AsyncByteStream):
    """A body that breaks off before its end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(1)
        raise httpx.ReadError("gone")


class Slow(httpx.AsyncBaseTransport):
    """Takes so many seconds for each request, and records when each began, and how many there were at once."""

    def __init__(self, *answers: httpx.Response | Exception, seconds: float = 1) -> None:
        self.seconds = seconds
        self.answers, self.began, self.now, self.peak = iter(answers), list[tuple[str, float]](), 0, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.began.append((str(request.url), asyncio.get_running_loop().time()))
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now -= 1
        answer = next(self.answers, httpx.Response(200))
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_requests_beyond_the_bound_wait_in_turn() -> None:
    """For as long as it takes, each server by itself; the response says how long."""

    async def story(loop: VirtualLoop) -> None:
        slow = Slow()
        transport = AsyncRetryTransport(slow, max_concurrency=2)
        async with httpx.AsyncClient(transport=transport) as client:
            urls = [f"http://api/{number}" for number in range(400)]
            answers = await asyncio.gather(*map(client.get, ["http://other/", *urls]))
        assert slow.began == [("http://other/", 0), *((url, number // 2) for number, url in enumerate(urls))]
        assert [each.extensions["ratelimit"]["waited"] for each in answers] == [0, *(n // 2 for n in range(400))]
        assert slow.peak == 3
        assert transport.engine.permits.queues == {}

    virtually(story)


def test_a_wait_for_others_is_told_every_second() -> None:
    """How long it lasts is not known: it ends with another response."""
    events = list[WaitEvent]()

    async def story(loop: VirtualLoop) -> None:
        transport = AsyncRetryTransport(Slow(seconds=1.25), max_concurrency=1, on_wait=events.append)
        async with httpx.AsyncClient(transport=transport) as client:
            await asyncio.gather(*(client.get(f"http://api/{number}") for number in range(4)))

    virtually(story)
    assert {(each.reason, each.seconds_left, each.response) for each in events} == {("concurrency", math.inf, None)}
    assert Counter(str(each.request.url)[-1] for each in events) == {"1": 2, "2": 3, "3": 4}


def test_a_cancelled_request_leaves_the_line_or_the_wire() -> None:
    """The next one goes on at once, in the same order; so it does after an error."""
    went = [(2, 1.5), (4, 2.5), (5, 3.5)]

    async def story(loop: VirtualLoop) -> None:
        slow = Slow(httpx.ConnectError("down"))
        async with httpx.AsyncClient(transport=AsyncRetryTransport(slow, max_concurrency=1)) as client:
            tasks = [asyncio.ensure_future(client.get(f"http://api/{number}")) for number in range(6)]
            await asyncio.sleep(1.5)
            for cancelled in (1, 3):  # One is on the wire, one waits.
                tasks[cancelled].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert slow.began == [("http://api/0", 0), ("http://api/1", 1), *((f"http://api/{n}", t) for n, t in went)]
        assert [type(each).__name__ for each in answers] == [
            *("ConnectError", "CancelledError", "Response", "CancelledError", "Response", "Response")
        ]

    virtually(story)


def test_one_that_is_cancelled_as_its_turn_comes_loses_no_permit() -> None:
    """It was woken, and passes the permit on."""

    async def story(loop: VirtualLoop) -> None:
        slow = Slow(httpx.Response(200, stream=BrokenOff()))
        async with httpx.AsyncClient(transport=AsyncRetryTransport(slow, max_concurrency=1)) as client:
            async with client.stream("GET", "http://api/0") as first:
                second, third = (asyncio.ensure_future(client.get(f"http://api/{number}")) for number in (1, 2))
                await asyncio.sleep(1)
                await first.aclose()
                second.cancel()
            await third
        assert slow.began == [("http://api/0", 0), ("http://api/2", 2)]
        assert second.cancelled()

    virtually(story)


def test_what_waits_for_a_retry_is_not_on_the_wire() -> None:
    """Nor is what waits for a limit: others go meanwhile."""

    async def story(loop: VirtualLoop) -> None:
        nothing_left = {"x-ratelimit-limit": "9", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "50"}
        slow = Slow(httpx.Response(429, headers={"retry-after": "9"}), httpx.Response(200, headers=nothing_left))
        transport = AsyncRetryTransport(slow, policy=CONTRACT_B, max_concurrency=1)
        async with httpx.AsyncClient(transport=transport) as client:
            paths = ("a", "b", "b", "c")
            await asyncio.gather(*(client.get(f"http://api/{path}") for path in paths))
        began = [(url.rpartition("/")[2], at) for url, at in slow.began]
        assert began == [("a", 0), ("b", 1), ("c", 2), ("a", 10), ("b", 52)]
        assert slow.peak == 1

    virtually(story)


def test_what_a_limit_held_back_goes_first_and_not_all_at_once() -> None:
    """Once the limit admits several requests together, each waits for its permit again, before those that came later."""
    went = [("held", 0), ("held", 6), ("held", 7), ("held", 8), ("later", 9)]

    async def story(loop: VirtualLoop) -> None:
        numbers = ((9, 0, 5), (9, 8, 60), (9, 7, 60), (9, 6, 60))
        limits = [
            {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(left), "x-ratelimit-reset": str(reset)}
            for limit, left, reset in numbers
        ]
        slow = Slow(*(httpx.Response(200, headers=headers) for headers in limits))
        async with httpx.AsyncClient(transport=AsyncRetryTransport(slow, max_concurrency=1)) as client:
            held = [asyncio.ensure_future(client.get("http://api/held")) for _ in range(4)]
            await asyncio.sleep(6.5)
            await asyncio.gather(*held, client.get("http://api/later"))
        assert slow.began == [(f"http://api/{name}", at) for name, at in went]
        assert slow.peak == 1

    virtually(story)


def test_a_stream_that_fails_or_is_dropped_frees_its_permit() -> None:
    """Also a refusal whose body does not end."""

    async def story(loop: VirtualLoop) -> None:
        answers = [httpx.Response(status, stream=BrokenOff()) for status in (200, 200, 503)]
        transport = AsyncRetryTransport(Slow(*answers), policy=CONTRACT_B, max_concurrency=1)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ReadError):
                await client.get(URL)
            async with client.stream("GET", URL):
                pass
            assert (await client.get(URL)).status_code == 200
        assert loop.time() == 2 + 1 + (1 + 1 + 1 + 1)
        assert transport.engine.permits.queues == {}

    virtually(story)


def test_a_bound_for_the_other_httpx_too() -> None:
    """Its client checks the class of the stream, and closes it."""
    transport: Any = RetryTransport(max_concurrency=1)
    transport.wrapped = httpx2.MockTransport(lambda _: httpx2.Response(200, content=iter([b"a", b"b"])))
    with httpx2.Client(transport=transport) as client:
        for _ in range(3):
            assert client.get(URL).content == b"ab"
        with client.stream("GET", URL):
            (queue,) = transport.engine.permits.queues.values()
            assert len(queue.holders) == 1
    assert transport.engine.permits.queues == {}


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
        (lambda: RetryTransport(max_concurrency=0), "max_concurrency: must be an integer, 1 or more, or None; got 0"),
        (lambda: AsyncRetryTransport(max_concurrency=-1), "max_concurrency"),
        (lambda: AsyncRetryTransport(max_concurrency=True), "max_concurrency"),
        (lambda: AsyncRetryTransport(max_concurrency=1.5), "max_concurrency"),  # type: ignore[arg-type]
        (lambda: RetryTransport(max_concurrency="2"), "max_concurrency"),  # type: ignore[arg-type]
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


def test_a_throttle_bounds_the_requests_on_the_wire() -> None:
    """Each until its response is closed, or sending it fails."""

    async def story(loop: VirtualLoop) -> None:
        slow, throttle = Slow(httpx.ConnectError("down")), Throttle(concurrency=2, clock=loop.clock)
        async with httpx.AsyncClient(transport=AsyncThrottleTransport(throttle, slow)) as client:
            answers = await asyncio.gather(*(client.get(URL) for _ in range(6)), return_exceptions=True)
            assert [isinstance(each, httpx.Response) for each in answers] == [False] + [True] * 5
            assert [at for _, at in slow.began] == pytest.approx([0, 0, 1, 1, 2, 2])
            slow.answers = iter([httpx.Response(200, stream=BrokenOff()) for _ in range(2)])
            async with client.stream("GET", URL), client.stream("GET", URL):
                waiting = asyncio.ensure_future(client.get(URL))
                await asyncio.sleep(10)
                assert len(slow.began) == 8
            assert (await waiting).status_code == 200
        await throttle.aclose()

    virtually(story)


def test_a_throttle_bounds_the_requests_of_threads() -> None:
    """As in an event loop."""
    throttle = Throttle(concurrency=1, max_wait=0)
    streams = [httpx.Response(200, content=iter([b"a"])) for _ in range(3)]
    answers: Iterator[httpx.Response | Exception] = iter([httpx.ConnectError("down"), *streams])

    def handler(_: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with httpx.Client(transport=ThrottleTransport(throttle, httpx.MockTransport(handler))) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(URL)
        assert client.get(URL).text == "a"
        with client.stream("GET", URL), pytest.raises(LimitExceeded):
            client.get(URL)
        assert client.get(URL).text == "a"
    throttle.close()
