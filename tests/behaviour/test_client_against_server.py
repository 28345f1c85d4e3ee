"""The promise: a client with policy A gets all of a burst through our own server, and learns from the first refusals."""

import asyncio
from collections import Counter

import httpx

from ratelimit.client import CONTRACT_A, AsyncRetryTransport, WaitEvent
from tests.support.uvicorn_server import uvicorn

LIMIT, WINDOW = 40, 2


class Counted(httpx.AsyncHTTPTransport):
    """Notes when the server has refused, by the event loop's time."""

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_connections=30))
        self.refused: list[tuple[int, float]] = []
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        number = self.sent
        response = await super().handle_async_request(request)
        if response.status_code == 429:
            self.refused.append((number, asyncio.get_running_loop().time()))
        return response


async def test_a_burst_at_three_times_the_limit_loses_nothing() -> None:
    """All are served; after the first wave, which was sent before any limit was known, at most one refusal a window."""
    settings = {"limits": [{"name": "t", "rate": f"{LIMIT}/{WINDOW}s", "per": ["token"]}]}
    counted = Counted()
    with uvicorn(settings) as url:
        transport = AsyncRetryTransport(counted, policy=CONTRACT_A)
        async with httpx.AsyncClient(transport=transport, base_url=url, timeout=30) as client:
            answers = await asyncio.gather(*(client.get("/", headers={"x-token": "t"}) for _ in range(3 * LIMIT)))
    assert Counter(answer.status_code for answer in answers) == {200: 3 * LIMIT}
    learned = [at for number, at in counted.refused if number > 3 * LIMIT]
    assert all(sum(start <= at < start + WINDOW for at in learned) <= 1 for start in learned)


async def test_reduced_capacity_is_waited_for() -> None:
    """A server whose store is away says 503 and when to come again, never 401; the client stands by."""
    settings = {
        "store": "redis://127.0.0.1:1",
        "limits": [{"name": "t", "rate": "9/second", "per": ["token"], "on_store_failure": "deny"}],
    }
    waits, has_begun = list[WaitEvent](), asyncio.Event()

    def note(wait: WaitEvent) -> None:
        waits.append(wait)
        has_begun.set()

    transport = AsyncRetryTransport(policy=CONTRACT_A, on_wait=note)
    with uvicorn(settings) as url:
        async with httpx.AsyncClient(transport=transport, base_url=url, timeout=30) as client:
            task = asyncio.ensure_future(client.get("/", headers={"x-token": "t"}))
            await has_begun.wait()
            task.cancel()
    assert transport.last_refusal is not None
    assert transport.last_refusal is waits[0].response
    assert (transport.last_refusal.status_code, transport.last_refusal.headers["retry-after"]) == (503, "1")
    assert 1 <= waits[0].seconds_left <= 1.5
