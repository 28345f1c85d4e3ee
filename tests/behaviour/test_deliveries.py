"""The promise of `examples.webhooks.deliveries`: no delivery is lost, and no entry stops the queue."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from examples.webhooks import deliveries
from examples.webhooks.deliveries import Deliveries, Worker
from ratelimit import Pacer
from tests.support.redis_server import RedisServer

STREAM = "hooks"


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the leases, so that the tests do not wait for them."""
    monkeypatch.setattr(deliveries, "LEASE", 0.05)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    opened = redis.asyncio.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=1)
    yield opened
    await opened.aclose()


class Receiver:
    def __init__(self, status: int = 204) -> None:
        self.sent: Counter[str] = Counter()
        self.status = status

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "broken":
            raise OverflowError  # A port of 70000 raises it.
        self.sent[request.headers["webhook-id"]] += 1
        return httpx.Response(self.status)


async def work(client: Any, receiver: Receiver, until: Any) -> None:
    """Run one worker until the condition holds."""
    pacer = Pacer("1000/second", per="subscription")
    async with httpx.AsyncClient(transport=httpx.MockTransport(receiver)) as http:
        worker = Worker(Deliveries(client, "w", STREAM), pacer, http, "secret")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            while not await until():  # noqa: ASYNC110 - the condition asks Redis
                await asyncio.sleep(0)
            worker.stop()
    await pacer.aclose()


def empty(client: Any) -> Any:
    async def is_empty() -> bool:
        return not await client.xlen(STREAM)

    return is_empty


async def test_undeliverable_entries_do_not_stop_the_queue(client: Any) -> None:
    """Wrong URLs, a missing subscription and unreadable entries become dead letters; the others are delivered."""
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
    assert await client.xlen(queue.dead_letters) == 5


async def test_a_failing_delivery_becomes_a_dead_letter(client: Any) -> None:
    """After the last attempt, with the reason of the failure."""
    queue, receiver = Deliveries(client, "e", STREAM), Receiver(500)
    await queue.prepare()
    await queue.enqueue("s", "http://receiver/", {"number": 1})
    await work(client, receiver, empty(client))
    assert list(receiver.sent.values()) == [deliveries.MAX_ATTEMPTS]
    ((_, letter),) = await client.xrange(queue.dead_letters)
    assert letter[b"reason"] == b"status 500"


async def test_two_workers_leave_one_dead_letter(client: Any) -> None:
    """Of one delivery; a delivery that was acknowledged meanwhile does not become one."""
    one, two = Deliveries(client, "one", STREAM), Deliveries(client, "two", STREAM)
    await one.prepare()
    for _ in range(2):
        await one.enqueue("s", "http://receiver/", {})
    first, second = await one.take(2, set())
    await one.move_to_dead_letters(first.key, "reason", "")
    await two.move_to_dead_letters(first.key, "reason", "")
    await two.acknowledge(second)
    await one.move_to_dead_letters(second.key, "reason", "")
    assert await client.xlen(one.dead_letters) == 1
    assert await client.xlen(STREAM) == 0


async def test_a_worker_does_not_claim_its_own_deliveries(client: Any) -> None:
    """However long they take; another worker claims them, unless the first one renews its lease."""
    one, two = Deliveries(client, "one", STREAM), Deliveries(client, "two", STREAM)
    await one.prepare()
    await one.enqueue("s", "http://receiver/", {})
    (taken,) = await one.take(9, set())
    await client.xclaim(STREAM, deliveries.GROUP, "one", 0, [taken.key], idle=60_000, justid=True)
    assert await one.take(9, {taken.key}) == []
    await one.renew([taken.key])
    assert await two.take(9, set()) == []
    await client.xclaim(STREAM, deliveries.GROUP, "one", 0, [taken.key], idle=60_000, justid=True)
    (claimed,) = await two.take(9, set())
    assert (claimed.key, claimed.attempt) == (taken.key, 2)


async def test_a_worker_survives_an_outage_of_redis(client: Any, redis_server: RedisServer) -> None:
    """It waits while Redis hangs, and then delivers the rest."""
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
