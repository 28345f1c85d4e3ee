"""A request is read several times, each from its start, and then by the app as if nothing had been read."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from ratelimit.asgi.request_reader import BodyTooLargeError, RequestReader

PARTS = [b"one", b"two", b"three"]


class Body:
    """Hands out the messages of a body, and counts them."""

    def __init__(self) -> None:
        self.taken = 0

    async def receive(self) -> Message:
        self.taken += 1
        return {"type": "http.request", "body": PARTS[self.taken - 1], "more_body": self.taken < len(PARTS)}


def scope(**headers: str) -> dict[str, Any]:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/", "headers": raw}


def request_of(connection: object) -> Request:
    assert isinstance(connection, Request)
    return connection


async def test_each_reader_and_then_the_app_reads_from_the_start() -> None:
    """However much another one has read."""
    body = Body()
    reader = RequestReader(scope(), body.receive)
    async for part in request_of(reader.connection()).stream():
        assert part == b"one"
        break
    assert body.taken == 1
    assert await request_of(reader.connection()).body() == b"onetwothree"
    assert await Request(scope(), reader.receive).body() == b"onetwothree"
    assert body.taken == 3


async def test_an_unread_request_is_not_touched() -> None:
    """The app then receives by the server's own callable."""
    body = Body()
    assert RequestReader(scope(), body.receive).receive == body.receive


async def test_a_large_body_is_read_no_further_than_its_bound() -> None:
    """What was read up to there the app receives nevertheless."""
    body = Body()
    reader = RequestReader(scope(), body.receive)
    with pytest.raises(BodyTooLargeError):
        await request_of(reader.connection(max_body=5)).body()
    assert body.taken == 2
    assert await Request(scope(), reader.receive).body() == b"onetwothree"


async def test_a_body_that_is_announced_as_large_is_not_read() -> None:
    """Its `Content-Length` says so before its first byte; one that is no number says nothing."""
    body = Body()
    reader = RequestReader(scope(**{"content-length": "11"}), body.receive)
    with pytest.raises(BodyTooLargeError):
        await request_of(reader.connection(max_body=10)).body()
    assert body.taken == 0
    odd = RequestReader(scope(**{"content-length": "11x"}), Body().receive)
    assert await request_of(odd.connection(max_body=11)).body() == b"onetwothree"
