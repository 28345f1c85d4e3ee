"""The promise of `examples.deliveries`: nothing is lost and nothing stops the queue, whatever lies in it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from examples import deliveries
from examples.deliveries import Deliveries, Worker
from ratelimit import Pacer
from tests.support.redis_server import RedisServer

STREAM = "hooks"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases be over soon, so that nobody waits for them."""
    monkeypatch.setattr(deliveries, "LEASE", 0.05)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    opened = redis.asyncio.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=1)
    yield opened
    await opened.aclose()


class Receiver:
    def __init__(self, answer: int = 204) -> None:
        self.sent: Counter[str] = Counter()
        self.answer = answer

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "broken":
            raise OverflowError  # As a port of 70000 does.
        self.sent[request.headers["webhook-id"]] += 1
        return httpx.Response(self.answer)


async def work(client: Any, receiver: Receiver, until: Any) -> None:
    """Let one worker work until the queue is empty, or so far."""
    pacer = Pacer("1000/second", per="subscription")
    async with httpx.AsyncClient(transport=httpx.MockTransport(receiver)) as http:
        worker = Worker(Deliveries(client, "w", STREAM), pacer, http, "secret")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            while not await until():  # noqa: ASYNC110 - it asks Redis
                await asyncio.sleep(0)
            worker.stop()
    await pacer.aclose()


def empty(client: Any) -> Any:
    async def told() -> bool:
        return not await client.xlen(STREAM)

    return told


async def test_what_cannot_be_delivered_stops_nobody(client: Any) -> None:
    """Wrong addresses, no subscription, entries that are none: dead letters, and the others are delivered."""
    queue, receiver = Deliveries(client, "e", STREAM), Receiver()
    await queue.prepare()
    for number in range(20):
        await queue.enqueue("s", "http://receiver/", {"number": number})
    for url in ("http://broken/", "http://broken/again", "http://a\x00b/"):
        await queue.enqueue("s", url, {})
    await queue.enqueue("", "http://receiver/", {})
    await client.xadd(STREAM, {"something": "else"})
    await work(client, receiver, empty(client))
    assert sorted(receiver.sent.values()) == [1] * 20
    assert await client.xlen(queue.dead) == 5


async def test_what_fails_is_tried_so_often(client: Any) -> None:
    """And is a dead letter then, with what was said."""
    queue, receiver = Deliveries(client, "e", STREAM), Receiver(500)
    await queue.prepare()
    await queue.enqueue("s", "http://receiver/", {"number": 1})
    await work(client, receiver, empty(client))
    assert list(receiver.sent.values()) == [deliveries.TRIES]
    ((_, letter),) = await client.xrange(queue.dead)
    assert letter[b"why"] == b"answered 500"


async def test_two_who_bury_leave_one_letter(client: Any) -> None:
    """Whoever says so first; and what was delivered meanwhile is none."""
    one, two = Deliveries(client, "one", STREAM), Deliveries(client, "two", STREAM)
    await one.prepare()
    for _ in range(2):
        await one.enqueue("s", "http://receiver/", {})
    first, second = await one.take(2, set())
    await one.bury(first.key, "why", "")
    await two.bury(first.key, "why", "")
    await two.done(second)
    await one.bury(second.key, "why", "")
    assert await client.xlen(one.dead) == 1
    assert await client.xlen(STREAM) == 0


async def test_a_worker_does_not_take_over_what_it_has(client: Any) -> None:
    """However long that takes; another one does, unless the first says that it is at work."""
    one, two = Deliveries(client, "one", STREAM), Deliveries(client, "two", STREAM)
    await one.prepare()
    await one.enqueue("s", "http://receiver/", {})
    (taken,) = await one.take(9, set())
    await client.xclaim(STREAM, deliveries.GROUP, "one", 0, [taken.key], idle=60_000, justid=True)
    assert await one.take(9, {taken.key}) == []
    await one.keep([taken.key])
    assert await two.take(9, set()) == []
    await client.xclaim(STREAM, deliveries.GROUP, "one", 0, [taken.key], idle=60_000, justid=True)
    (over,) = await two.take(9, set())
    assert (over.key, over.times) == (taken.key, 2)


async def test_a_worker_outlives_an_absence_of_redis(client: Any, redis_server: RedisServer) -> None:
    """It hangs for a while, and goes on."""
    queue, receiver = Deliveries(client, "e", STREAM), Receiver()
    await queue.prepare()
    for number in range(300):
        await queue.enqueue("s", "http://receiver/", {"number": number})
    loop, paused = asyncio.get_running_loop(), list[bool]()

    async def done() -> bool:
        if len(receiver.sent) >= 50 and not paused:
            paused.append(True)
            redis_server.pause()
            loop.call_later(1.5, redis_server.go_on)
        try:
            return not await client.xlen(STREAM)
        except redis.RedisError:
            return False

    try:
        await work(client, receiver, done)
    finally:
        redis_server.go_on()
    assert len(receiver.sent) == 300
    assert paused
