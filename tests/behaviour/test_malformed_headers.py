"""Servers that are slow, wrong or hostile: no request waits for ever, and none longer than needed.

Also tests `client.response_limits`.
"""

import asyncio
import io
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import ConfigurationError, Limit, Throttle
from ratelimit.client import (
    CONTRACT_A,
    AsyncRetryTransport,
    RetryPolicy,
    RetryTransport,
    ThrottleTransport,
    WaitEvent,
    wait_retry_after,
)
from ratelimit.client.admission_queue import AdmissionQueue, QueuedRequest, RouteKey
from ratelimit.client.response_limits import parse_response_limits
from tests.behaviour.test_sync_async_parity import Resting
from tests.support.virtual_time import VirtualLoop, virtually
from tests.unit.client.test_admission_queue import Network, app, per_window
from tests.unit.client.test_retry_transport import Sends, Server

URL = "http://api/x"

Says = Callable[[int, httpx.Request], tuple[float, int, dict[str, str]]]


def left(limit: int, remaining: int, reset: float, **more: str) -> dict[str, str]:
    fields = {"limit": str(limit), "remaining": str(remaining), "reset": f"{reset:.0f}", **more}
    return {f"x-ratelimit-{name}": value for name, value in fields.items()}


class Script(httpx.AsyncBaseTransport):
    """Answers the n-th request as `says` returns: after so many seconds, with this status and these headers."""

    def __init__(self, says: Says) -> None:
        self.says, self.sent = says, list[tuple[float, str]]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((asyncio.get_running_loop().time(), request.method))
        delay, status, headers = self.says(len(self.sent), request)
        await asyncio.sleep(delay)
        return httpx.Response(status, headers=headers)

    @property
    def when(self) -> list[float]:
        return [round(at, 2) for at, _ in self.sent]


def client(script: httpx.AsyncBaseTransport, policy: RetryPolicy | None = None, **options: Any) -> httpx.AsyncClient:
    transport = AsyncRetryTransport(script, policy=policy or RetryPolicy(), **options)
    return httpx.AsyncClient(transport=transport, timeout=None)


@pytest.mark.parametrize("headers", [left(10, 0, 0) | {"x-ratelimit-reset": "9" * 400}, {"retry-after": "9" * 400}])
def test_absurd_numbers_hold_nobody(headers: dict[str, str]) -> None:
    """A wait that is beyond all bounds is no wait."""

    async def story(loop: VirtualLoop) -> None:
        async with client(Script(lambda n, _: (0, 429 if "retry-after" in headers else 200, headers))) as http:
            for _ in range(3):
                await http.get(URL)
        assert loop.time() < 1

    virtually(story)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *(
                    "date",
                    "retry-after",
                    "x-ratelimit-limit",
                    "x-ratelimit-remaining",
                    "x-ratelimit-reset",
                    "ratelimit",
                ),
                *("ratelimit-policy", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-scope"),
            ]
        ),
        st.one_of(st.text(max_size=30), st.from_regex(r'"?[a-z]?"?(;[rt]=-?[0-9]{1,20})*|[0-9]{1,400}(\.[0-9]+)?|٣+')),
    )
)
def test_whatever_is_said_is_read(headers: dict[str, str]) -> None:
    """Nothing raises, and what is read is finite and not below zero."""
    limits = parse_response_limits(429, headers, 1_700_000_000.5)
    for value in (limits.retry_after, limits.reset, limits.limit, limits.remaining, limits.available_after):
        assert value is None or 0 <= value < 10**18


def test_dates_are_utc_whatever_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The obsolete forms name no zone (RFC 9110 §5.6.7)."""
    headers = {"date": "Sun, 06 Nov 1994 08:49:07 GMT", "retry-after": "Sun Nov  6 08:49:37 1994"}
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST+5")
        time.tzset()
        assert parse_response_limits(429, headers, 0).retry_after == 30
    time.tzset()


def test_an_answer_that_does_not_come_is_waited_for_so_long() -> None:
    """One that is under way for ever holds up the others for `max_wait`, and not longer."""

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (1e5 if n == 2 else 0, 200, left(10, 0, 1)))
        async with client(script, RetryPolicy(max_wait=5)) as http:
            await http.get(URL)
            slow = asyncio.ensure_future(http.get(URL))
            await asyncio.sleep(2)
            await http.get(URL)
            assert loop.time() == pytest.approx(7)
            slow.cancel()

    virtually(story)


def test_a_slow_answer_does_not_hold_up_what_is_renewed() -> None:
    """While a request in flight leaves the remaining number uncertain, the reset still counts."""

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (10 if n == 2 else 0, 200, left(10, 1 if n == 1 else 9, 1)))
        async with client(script) as http:
            await http.get(URL)
            slow = asyncio.ensure_future(http.get(URL))
            await asyncio.sleep(0.1)
            await http.get(URL)
            assert loop.time() <= 2
            await slow

    virtually(story)


def test_a_refusal_for_another_reason_is_no_used_up_limit() -> None:
    """A 503 while much remains waits for the policy, not for the reset."""

    async def story(loop: VirtualLoop) -> None:
        async with client(Script(lambda n, _: (0, 503 if n == 1 else 200, left(100, 50, 60)))) as http:
            await http.get(URL)
        assert loop.time() < 3

    virtually(story)


def test_an_old_answer_does_not_reopen_what_was_closed_since() -> None:
    """Those under way when a refusal came say nothing of what is left after it."""

    async def story(loop: VirtualLoop) -> None:
        def says(number: int, _: httpx.Request) -> tuple[float, int, dict[str, str]]:
            if number == 11:
                return 0, 429, left(5000, 4990, 3000) | {"retry-after": "60"}
            return (number if number <= 10 else 0), 200, left(5000, 4990, 3000)

        script = Script(says)
        async with client(script) as http:
            tasks = [asyncio.ensure_future(http.get(URL)) for _ in range(11)]
            for _ in range(20):
                await asyncio.sleep(0.5)
                tasks.append(asyncio.ensure_future(http.get(URL)))
            await asyncio.gather(*tasks)
        assert [at for at in script.when if 0 < at < 60] == []

    virtually(story)


def test_slowing_ahead_does_not_end_where_little_is_left() -> None:
    """Requests are spread by `max_wait` at most, and not sent at once where that is not enough."""

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (0, 200, left(1000, 50 - n, 3000)))
        async with client(script, CONTRACT_A) as http:
            for _ in range(49):
                await http.get(URL)
        gaps = [after - before for before, after in zip(script.when[1:], script.when[2:], strict=False)]
        assert min(gaps) > 50
        assert max(gaps) <= 120

    virtually(story)


def test_a_bare_refusal_holds_back_the_others_too() -> None:
    """Where the server does not say how long, all requests wait as long as the policy says."""

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (0.01, 429 if loop.time() < 5 else 200, {}))
        transport = AsyncRetryTransport(script, policy=RetryPolicy(retries=20))
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            await asyncio.gather(*(http.get(URL) for _ in range(50)))
        (queue,) = transport.engine.queues.values()
        assert [list(estimate.in_flight) for estimate in queue.route_estimates.values()] == [[]]
        assert len(script.sent) <= 50 + 50 + 10

    virtually(story)


def test_limits_that_overlap_are_counted_apart() -> None:
    """A token's limit over several endpoints' limits: hardly a refusal in any window, with one client.

    The client's jitter is random: in 5 of 60 runs there were two refusals in a window, else one at most.
    """

    async def story(loop: VirtualLoop) -> None:
        limits = [
            Limit(name="t", rate="20/10s", per="token"),
            Limit(name="e", rate="8/10s", per=["endpoint", "token"]),
        ]
        network = Network(app(loop, *limits), loop, 0.5, 1)
        async with client(network) as http:
            http.headers["authorization"] = "Bearer t"

            async def work(number: int) -> None:
                for _ in range(4):
                    await http.get("http://api" + ("/", "/a", "/b/1")[number % 3])

            await asyncio.gather(*(work(number) for number in range(30)))
        assert per_window(network.seen, 10, after=2) <= 2

    virtually(story)


def test_one_looks_ahead_and_not_two() -> None:
    """A request of another method that meets the limit late is not sent as a second probe."""

    async def story(loop: VirtualLoop) -> None:
        def says(number: int, request: httpx.Request) -> tuple[float, int, dict[str, str]]:
            return {1: 1.7, 3: 5}.get(number, 0), 200, left(10, 0, 1, scope="token")

        script = Script(says)
        async with client(script) as http:
            reading = asyncio.ensure_future(http.get(URL))
            await asyncio.sleep(0)
            await http.post(URL)
            writing = [asyncio.ensure_future(http.post(URL)) for _ in range(2)]
            await asyncio.sleep(4)
            assert [method for _, method in script.sent] == ["GET", "POST", "POST"]
            for task in (reading, *writing):
                task.cancel()
            await asyncio.gather(reading, *writing, return_exceptions=True)

    virtually(story)


def test_scopes_without_end_are_forgotten() -> None:
    """A server that makes up scopes does not fill the client's memory."""

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (0, 200, left(10**6, 10**6, 60, scope=f"s{n}")))
        transport = AsyncRetryTransport(script)
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            for _ in range(300):
                await http.get(URL)
        (queue,) = transport.engine.queues.values()
        assert len(queue.shared_estimates) == 100

    virtually(story)


def test_many_places_behind_one_limit_cost_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer looks at the heads of the lines once, however many there are."""
    passes, admit_ready = list[int](), AdmissionQueue.admit_ready

    def counted(self: AdmissionQueue, now: float) -> None:
        passes.append(1)
        admit_ready(self, now)

    monkeypatch.setattr(AdmissionQueue, "admit_ready", counted)

    async def story(loop: VirtualLoop) -> None:
        script = Script(lambda n, _: (0.01, 200, left(10**6, 0 if n == 1 else 10, 1, scope="token")))
        async with client(script) as http:
            await http.get(URL)
            names = ["".join(chr(97 + int(digit)) for digit in str(number)) for number in range(200)]
            await asyncio.gather(*(http.get(f"http://api/{name}") for name in names))

    virtually(story)
    assert len(passes) < 200 * 5


class StopError(BaseException):
    """Comes at any moment, as Ctrl-C does."""


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """Also in the middle of the books: the next request goes on."""
    transport = Resting(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=left(9, 0, 1))))
    admit = AdmissionQueue.admit

    def interrupted(self: AdmissionQueue, *arguments: Any) -> None:
        if late:
            admit(self, *arguments)
        raise StopError

    with httpx.Client(transport=transport) as http:
        http.get(URL)
        transport.time.now += 5
        with monkeypatch.context() as patch:
            patch.setattr(AdmissionQueue, "admit", interrupted)
            with pytest.raises(StopError):
                http.get(URL)
        assert http.get("http://api/other").status_code == 200
        assert http.get(URL).status_code == 200
    assert sum(transport.time.pauses) <= 2


def test_an_interrupt_between_two_lines_of_code_leaves_nobody_behind() -> None:
    """An empty line that was not taken away is none, also for who gets an answer."""
    queue = AdmissionQueue(0.0, 60.0)
    queue.waiting[RouteKey("GET", "/interrupted")] = deque()
    request = QueuedRequest(RouteKey("GET", "/"), lambda: None)
    queue.enter(request, 0.0)
    queue.record_response(request, parse_response_limits(200, left(9, 8, 1), 0), 0.0, refused=False)
    queue.record_lost(request, 0.0)
    assert request.is_admitted


def test_what_a_refusal_says_of_itself() -> None:
    """It has its request, and the time waited is that of all waits."""
    waits = list[WaitEvent]()
    transport = Resting(transport=httpx.MockTransport(Server()), on_wait=waits.append)
    with httpx.Client(transport=transport) as http:
        http.get(URL)
    assert waits[0].response is not None
    assert waits[0].response.url == URL
    with pytest.raises(httpx.HTTPStatusError):
        waits[0].response.raise_for_status()
    ahead = Resting(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=left(10, 0, 7))))
    with httpx.Client(transport=ahead) as http:
        http.get(URL)
        assert http.get(URL).extensions["ratelimit"] == {"attempts": 1, "waited": 7.0}


class Endless(httpx.AsyncByteStream):
    """A body that does not end, or that breaks."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.closed = error, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(1)
            yield b"x"
            if self.error is not None:
                raise self.error

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("error", [None, OSError("cut off"), httpx.ReadError("gone")])
def test_a_refusal_is_read_so_far(error: Exception | None) -> None:
    """One whose body does not end, or fails, is given up, and the request sent again; what was read can be."""
    body = Endless(error)

    async def story(loop: VirtualLoop) -> None:
        class Answers(httpx.AsyncBaseTransport):
            sent = 0

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                self.sent += 1
                return httpx.Response(503, stream=body) if self.sent == 1 else httpx.Response(200)

        transport = AsyncRetryTransport(Answers())
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            assert (await http.get(URL)).status_code == 200
            refusal = transport.last_refusal
            assert refusal is not None
            assert (refusal.status_code, refusal.text.strip("x")) == (503, "")
        assert loop.time() < 10
        assert body.closed

    virtually(story)


class Body(httpx.SyncByteStream):
    closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"later"

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("wrong", ["wait", "file"])
def test_what_fails_between_leaks_no_connection(wrong: str) -> None:
    """A wait of the caller's that raises, or a file that is closed by now: the refusal is closed, or handed on."""
    body, file = Body(), io.BytesIO(b"file")

    class Refuses(Sends):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            super().handle_request(request)
            file.close()
            return httpx.Response(429, stream=body)

    def broken(_: Any) -> float:
        raise ZeroDivisionError

    policy = RetryPolicy(wait=broken) if wrong == "wait" else RetryPolicy()  # type: ignore[arg-type]
    with httpx.Client(transport=RetryTransport(Refuses(Server()), policy=policy)) as http, suppress(ZeroDivisionError):
        answer = http.post(URL, **({"files": {"f": file}} if wrong == "file" else {"content": b"x"}))
        assert answer.status_code == 429
    assert body.closed


def test_a_throttle_keeps_no_loops_that_have_ended() -> None:
    """One throttle in many event loops, one after the other."""
    throttle = Throttle("1000/second")

    async def story() -> None:
        await asyncio.gather(*(throttle.wait() for _ in range(5)))

    for _ in range(3):
        asyncio.run(story())
    assert len(throttle.queues) == 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RetryTransport(on_wait=5), "on_wait"),  # type: ignore[arg-type]
        (lambda: RetryTransport(key=5), "key"),  # type: ignore[arg-type]
        (lambda: ThrottleTransport(5), "throttle"),  # type: ignore[arg-type]
        (lambda: ThrottleTransport(Throttle("1/s"), httpx.AsyncHTTPTransport()), "transport"),  # type: ignore[arg-type]
        (lambda: Throttle("1/s", store=5), "store"),  # type: ignore[arg-type]
        (lambda: wait_retry_after(5), "missing"),  # type: ignore[arg-type]
        (lambda: asyncio.run(Throttle("1/s").wait(cost="1")), "cost"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_fail_at_once(make: Callable[[], Any], named: str) -> None:
    """With the name of the field."""
    with pytest.raises(ConfigurationError, match=named):
        make()
