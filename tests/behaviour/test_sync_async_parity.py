"""The promise: a sync and an async client do the same, for one table of 40 responses, over real HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import pytest

from ratelimit.client import CONTRACT_B, AsyncRetryTransport, RetryTransport
from ratelimit.client.retry_engine import Sleep
from tests.support.scripted import TABLE, Row
from tests.support.uvicorn_server import uvicorn

POLICY = replace(CONTRACT_B, retry_on=[401], max_wait=90, retry_on_for=30, slow_below=0.0)


class Outcome(NamedTuple):
    """The response that a caller gets, and the pauses before it."""

    pauses: tuple[float, ...]
    status: int
    attempts: int
    body: str


class Time:
    """A clock that moves when a transport sleeps, and records for how long."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def pass_by(self, action: Sleep) -> None:
        self.pauses.append(round(action.seconds, 6))
        self.now += action.seconds


class Resting(RetryTransport):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.time = self.engine.clock = Time()

    def sleep(self, action: Sleep, woken: Any) -> None:
        self.time.pass_by(action)


class AsyncResting(AsyncRetryTransport):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.time = self.engine.clock = Time()

    async def sleep(self, action: Sleep, woken: Any) -> None:
        self.time.pass_by(action)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with uvicorn({}, "--no-date-header", app="tests.support.scripted:app") as url:
        yield url


def outcome(transport: Resting | AsyncResting, answer: httpx.Response) -> Outcome:
    return Outcome(
        tuple(transport.time.pauses), answer.status_code, answer.extensions["ratelimit"]["attempts"], answer.text
    )


def sync(url: str) -> Outcome:
    transport = Resting(policy=POLICY)
    with httpx.Client(transport=transport) as client:
        return outcome(transport, client.post(url, content=b"body"))


async def asynchronous(url: str) -> Outcome:
    transport = AsyncResting(policy=POLICY)
    async with httpx.AsyncClient(transport=transport) as client:
        return outcome(transport, await client.post(url, content=b"body"))


def test_there_are_forty() -> None:
    """As many as were promised."""
    assert len(TABLE) == 40


@pytest.mark.parametrize(("number", "row"), list(enumerate(TABLE)), ids=lambda each: str(each)[:60])
async def test_both_do_what_the_row_says(server: str, number: int, row: Row) -> None:
    """The same pauses, the same number of tries, and the same response at the end, which can be read."""
    name = "r" * (number + 1)
    first, second = sync(f"{server}/sync/{name}"), await asynchronous(f"{server}/async/{name}")
    assert first == second
    assert (first.pauses, first.status) == (tuple(p for p in row.pauses if p), row.final)
    assert first.body == str(first.attempts)
