"""What is learned of a server's limits: a whole app of ours behind a network of random delays, in virtual time.

Also tests `client.limit_estimate`.
"""

import asyncio
import random
from collections import Counter
from email.utils import formatdate
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.client import CONTRACT_A, DEFAULT_RETRY_POLICY, AsyncRetryTransport, RetryPolicy
from tests.support.virtual_time import VirtualLoop, virtually

TOKEN = {"authorization": "Bearer t"}


class Seen(NamedTuple):
    at: float
    path: str
    status: int


class Network(httpx.AsyncBaseTransport):
    """Carries requests to an app in this process and back, each way as long as chance will have it."""

    def __init__(self, app: Any, loop: VirtualLoop, delay: float, seed: int) -> None:
        self.seen: list[Seen] = []
        self._within, self._loop, self._delay, self._random = httpx.ASGITransport(app), loop, delay, random.Random(seed)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self._random.random() * self._delay)
        response = await self._within.handle_async_request(request)
        now = self._loop.clock() / 1e6
        self.seen.append(Seen(self._loop.time(), request.url.path, response.status_code))
        response.headers["date"] = formatdate(now // 1, usegmt=True)
        await asyncio.sleep(self._random.random() * self._delay)
        return response


async def ok(_: Request) -> Response:
    return PlainTextResponse("ok")


def app(loop: VirtualLoop, *limits: Limit, **style: Any) -> Starlette:
    limiter = Limiter(RateLimitSettings(limits=list(limits), response=style), MemoryStore(clock=loop.clock), loop.clock)
    routes = [Route(path, ok, methods=["GET", "POST"]) for path in ("/", "/a", "/b/{id}")]
    middleware = Middleware(
        RateLimitMiddleware,
        limiter=limiter,
        identify=lambda connection: Identity(token=connection.headers.get("authorization"), org="o"),
    )
    return Starlette(routes=routes, middleware=[middleware])


def per_window(seen: list[Seen], window: float, after: float) -> int:
    """Return how many refusals the worst window has seen, of those sent once the first refusals were known."""
    refused = [one.at for one in seen if one.status == 429 and one.at > after]
    return max((sum(start <= at < start + window for at in refused) for start in refused), default=0)


@settings(max_examples=40)
@given(
    limit=st.integers(1, 40),
    window=st.sampled_from([1, 2, 10]),
    times=st.integers(2, 5),
    burst=st.sampled_from([0.0, 0.25]),
    headers=st.sampled_from([["x-ratelimit"], ["ietf"], ["x-ratelimit", "ietf"]]),
    policy=st.sampled_from([CONTRACT_A, DEFAULT_RETRY_POLICY]),
    delay=st.sampled_from([0.0, 0.02, 0.3]),
    seed=st.integers(0, 1000),
)
def test_a_burst_loses_nothing_and_learns(  # noqa: PLR0917
    limit: int,
    window: int,
    times: int,
    burst: float,
    headers: list[str],
    policy: RetryPolicy,
    delay: float,
    seed: int,
) -> None:
    """Several times the limit at once: all are served in the end, with one refusal in any window once it has learned."""

    async def story(loop: VirtualLoop) -> None:
        random.seed(seed)
        served = app(loop, Limit(name="t", rate=f"{limit}/{window}s", per="token", burst=burst), headers=headers)
        network = Network(served, loop, delay, seed)
        transport = AsyncRetryTransport(network, policy=policy)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=TOKEN, timeout=None) as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(limit * times)))
        assert Counter(answer.status_code for answer in answers) == {200: limit * times}
        assert per_window(network.seen, window, after=2 * delay + 0.01) <= 1
        # Each window needs its time, the whole seconds of the headers, and a probe's way there and back.
        assert loop.time() <= times * (window + 2 + 4 * delay) * 1.5 + 3

    virtually(story)


@settings(max_examples=20)
@given(
    limit=st.integers(5, 60),
    workers=st.integers(1, 12),
    seed=st.integers(0, 99),
    policy=st.sampled_from([RetryPolicy(slow_below=0.0), DEFAULT_RETRY_POLICY]),
)
def test_who_goes_by_the_headers_is_not_refused(limit: int, workers: int, seed: int, policy: RetryPolicy) -> None:
    """A backfill that learns as it goes: some workers, one after another each, and hardly a refusal."""

    async def story(loop: VirtualLoop) -> None:
        served = app(loop, Limit(name="t", rate=f"{limit}/2s", per="token"), headers=["x-ratelimit", "ietf"])
        network = Network(served, loop, 0.02, seed)
        transport = AsyncRetryTransport(network, policy=policy)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=TOKEN, timeout=None) as client:

            async def work() -> None:
                for number in range(40):
                    await client.get(f"/b/{number}")

            await asyncio.gather(*(work() for _ in range(workers)))
        total = 40 * workers
        assert sum(one.status == 200 for one in network.seen) == total
        # Before the first response, no request is held back.
        assert sum(one.status == 429 for one in network.seen) <= max(0, workers - limit)
        # The limit's own pace, and the way there and back before each window. Spreading the last tenth costs up to three
        # fifths of it here: the headers say whole seconds, and a window takes two.
        assert loop.time() <= total / limit * (3.3 if policy.slow_below else 2.1) + 2

    virtually(story)


def run(story_limits: list[Limit], requests: list[tuple[str, str]], **style: Any) -> tuple[list[Seen], float]:
    async def story(loop: VirtualLoop) -> tuple[list[Seen], float]:
        network = Network(app(loop, *story_limits, **style), loop, 0.0, 0)
        transport = AsyncRetryTransport(network)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=TOKEN, timeout=None) as client:
            for method, path in requests:
                await client.request(method, path)
        return network.seen, loop.time()

    return virtually(story)


def test_reads_do_not_wait_for_writes() -> None:
    """Two limits of one scope are distinguished by their numbers."""
    limits = [
        Limit(name="reads", rate="9/minute", per="token", methods=["GET"]),
        Limit(name="writes", rate="2/minute", per="token", methods=["POST"]),
    ]
    seen, took = run(limits, [("POST", "/"), ("POST", "/"), *[("GET", "/")] * 5])
    assert took == 0
    seen, took = run(limits, [("POST", "/"), ("POST", "/"), ("GET", "/"), ("POST", "/")])
    assert 59 < took < 62
    assert {one.status for one in seen} == {200}


def test_endpoints_do_not_wait_for_each_other() -> None:
    """A limit of an endpoint holds back that endpoint, whichever id is asked for."""
    limits = [Limit(name="e", rate="2/minute", per=["endpoint", "token"])]
    seen, took = run(limits, [("GET", "/a"), ("GET", "/a"), ("GET", "/b/1"), ("GET", "/b/2"), ("GET", "/")])
    assert took == 0
    seen, took = run(limits, [("GET", "/b/1"), ("GET", "/b/2"), ("GET", "/b/3")])
    assert 59 < took < 62
    assert {one.status for one in seen} == {200}


def test_a_limit_that_has_plenty_does_not_hold_up() -> None:
    """What was known of the token is kept up to date by answers that speak of the organization."""
    limits = [
        Limit(name="token", rate="6/minute", per="token"),
        Limit(name="org", rate="9/minute", per="org", methods=["POST"]),
    ]
    seen, took = run(limits, [("GET", "/")] * 2 + [("POST", "/")] * 4)
    assert took == 0
    assert {one.status for one in seen} == {200}


def test_a_limit_that_is_gone_is_forgotten() -> None:
    """Where responses report no limits any more, no request waits for a limit that was known before."""

    async def story(loop: VirtualLoop) -> float:
        answers = iter([httpx.Response(429, headers={"retry-after": "3"}), *(httpx.Response(200) for _ in range(20))])

        async def handler(_: httpx.Request) -> httpx.Response:
            answer = next(answers)
            await asyncio.sleep(0.1)
            return answer

        transport = AsyncRetryTransport(httpx.MockTransport(handler))
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=TOKEN, timeout=None) as client:
            await client.get("/")
            await asyncio.gather(*(client.get("/") for _ in range(19)))
        return loop.time()

    assert virtually(story) == pytest.approx(3.3, abs=0.3)


def test_who_is_cancelled_in_the_line_lets_the_next_one_go() -> None:
    """No request waits behind one that was cancelled; a request in flight that is cancelled gives no response."""

    async def story(loop: VirtualLoop) -> None:
        served = app(loop, Limit(name="t", rate="1/10s", per="token"))
        network = Network(served, loop, 0.0, 0)
        async with httpx.AsyncClient(
            transport=AsyncRetryTransport(network), base_url="http://api", headers=TOKEN
        ) as client:
            await client.get("/")
            line = [asyncio.ensure_future(client.get("/")) for _ in range(4)]
            await asyncio.sleep(1)
            for one in (line[0], line[2]):
                one.cancel()
            answers = await asyncio.gather(*line, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in answers] == [True, False, True, False]
        assert 20 < loop.time() < 24
        assert len(network.seen) <= 4

    virtually(story)
