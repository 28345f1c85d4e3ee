"""Webhooks queued in a Redis stream, and a worker that delivers them: `python -m examples.deliveries <redis> <name> [stream]`.

The stream is the queue, and its consumer group knows who has taken what: a delivery stays pending until it is
acknowledged. A worker says of what it has under way that it does; what nobody has touched for its backoff, because it
failed or its worker is gone, is claimed by whoever sees it first. What was taken `TRIES` times in vain goes to the dead
letters, and so does what cannot be read. Each subscription gets 100 a second at most, from all workers together. While
Redis is away a worker waits. Delivery is at least once: receivers know a webhook that comes twice by its `webhook-id`.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from ratelimit import Pacer

T = TypeVar("T")

GROUP = "delivery"
TRIES = 4
LEASE = float(os.environ.get("LEASE", "3"))
"""Seconds without a sign of life after which a worker's deliveries are taken over; the least backoff."""

AT_ONCE = 100
"""Deliveries that a worker has under way."""

BURY = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
return redis.call('XADD', KEYS[2], '*', 'key', ARGV[2], 'why', ARGV[3], 'delivery', ARGV[4])
"""
"""Makes a delivery a dead letter, once, whoever says so first."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook, the `times`-th time."""

    key: str
    subscription: str
    url: str
    body: bytes
    times: int


def backoff(times: int) -> float:
    """Return the seconds after which a delivery that was tried so often is tried again."""
    return float(min(LEASE * 2 ** (times - 1), 60.0))


class Deliveries:
    """The queue `stream`, as one worker sees it; the dead letters are in `dead`."""

    def __init__(self, client: redis.asyncio.Redis, worker: str, stream: str = "webhooks") -> None:
        # redis-py's annotations mix both colours of its client.
        self._redis: Any = client
        self._worker, self._stream, self.dead = worker, stream, f"{stream}:dead"

    async def prepare(self) -> None:
        """Make the stream and its group, once."""
        try:
            await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def enqueue(self, subscription: str, url: str, event: Mapping[str, Any]) -> None:
        """Put a webhook at the end of the queue."""
        await self._redis.xadd(self._stream, {"subscription": subscription, "url": url, "body": json.dumps(event)})

    async def take(self, most: int, busy: AbstractSet[str]) -> list[Delivery]:
        """Take deliveries that are due again, but none of those that are `busy`, and new ones."""
        taken = await self._claim(most, busy)
        if len(taken) < most:
            told = await self._redis.xreadgroup(
                GROUP, self._worker, {self._stream: ">"}, count=most - len(taken), block=100
            )
            taken += [(key, fields, 1) for _, entries in told or () for key, fields in entries]
        deliveries = list[Delivery]()
        for key, fields, times in taken:
            try:
                subscription, url = fields[b"subscription"].decode(), fields[b"url"].decode()
                deliveries.append(Delivery(key.decode(), subscription, url, fields[b"body"], times))
            except (KeyError, ValueError) as error:
                await self.bury(key.decode(), f"cannot be read: {error!r}", repr(fields))
        return deliveries

    async def keep(self, keys: list[str]) -> None:
        """Say that these are being worked on, or let their backoff begin now."""
        if keys:
            await self._redis.xclaim(self._stream, GROUP, self._worker, 0, keys, justid=True)

    async def done(self, delivery: Delivery) -> None:
        """Take a delivery out of the queue."""
        async with self._redis.pipeline(transaction=True) as both:
            both.xack(self._stream, GROUP, delivery.key)
            both.xdel(self._stream, delivery.key)
            await both.execute()

    async def bury(self, key: str, why: str, told: str) -> None:
        """Put a delivery among the dead letters, and out of the queue, in one step."""
        await self._redis.eval(BURY, 2, self._stream, self.dead, GROUP, key, why, told)

    async def _claim(self, most: int, busy: AbstractSet[str]) -> list[tuple[bytes, Mapping[bytes, bytes], int]]:
        """Claim what nobody has touched for its backoff; to all others it is fresh then."""
        pending = await self._redis.xpending_range(self._stream, GROUP, "-", "+", 1000, idle=round(LEASE * 1000))
        claimed = list[tuple[bytes, Mapping[bytes, bytes], int]]()
        for entry in pending:
            times, key = entry["times_delivered"], entry["message_id"]
            idle = round(backoff(times) * 1000)
            if entry["time_since_delivered"] >= idle and len(claimed) < most and key.decode() not in busy:
                told = await self._redis.xclaim(self._stream, GROUP, self._worker, idle, [key])
                claimed += [(each, fields, times + 1) for each, fields in told if fields]
        return claimed


def signature(secret: str, key: str, stamp: str, body: bytes) -> str:
    """Return the signature of a webhook (Standard Webhooks: HMAC-SHA256 over id, timestamp and body)."""
    signed = hmac.new(secret.encode(), f"{key}.{stamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


class Worker:
    """Takes deliveries and makes them, until it is told to stop; then it finishes those under way."""

    def __init__(self, deliveries: Deliveries, pacer: Pacer, client: httpx.AsyncClient, secret: str) -> None:
        self._deliveries, self._pacer, self._client, self._secret = deliveries, pacer, client, secret
        self._under_way: set[str] = set()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        await self._insist(self._deliveries.prepare)
        async with asyncio.TaskGroup() as group:
            pulse = group.create_task(self._pulse())
            while not self._stopping or self._under_way:
                free = AT_ONCE - len(self._under_way)
                if self._stopping or not free:
                    await asyncio.sleep(0.02)
                    continue
                for delivery in await self._insist(lambda free=free: self._deliveries.take(free, self._under_way)):  # type: ignore[misc]
                    self._under_way.add(delivery.key)
                    group.create_task(self._deliver(delivery))
            pulse.cancel()

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what can be done again, until Redis lets it; what it has is safe meanwhile."""
        while True:
            try:
                return await work()
            except redis.RedisError as error:
                if not isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
                    raise
                await asyncio.sleep(0.2)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            why = "taken too often" if delivery.times > TRIES else await self._attempt(delivery)
            if not why:
                await self._insist(lambda: self._deliveries.done(delivery))
            elif delivery.times >= TRIES:
                told = f"{delivery.subscription} {delivery.body!r}"
                await self._insist(lambda: self._deliveries.bury(delivery.key, why, told))
            else:
                await self._insist(lambda: self._deliveries.keep([delivery.key]))
        finally:
            self._under_way.discard(delivery.key)

    async def _attempt(self, delivery: Delivery) -> str:
        """Send a webhook when it is its turn, and return what went wrong, if anything."""
        if not delivery.subscription:
            return "has no subscription"
        await self._pacer.wait(delivery.subscription)
        stamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery.key,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self._secret, delivery.key, stamp, delivery.body),
            "x-turn": repr(asyncio.get_running_loop().time()),
        }
        try:
            answer = await self._client.post(delivery.url, content=delivery.body, headers=headers)
        except Exception as error:  # noqa: BLE001 - one webhook with a wrong address is no reason to stop all
            return repr(error)
        return "" if answer.is_success else f"answered {answer.status_code}"

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            await self._insist(lambda: self._deliveries.keep(list(self._under_way)))


async def main(address: str, name: str, stream: str = "webhooks") -> None:
    client = redis.asyncio.Redis.from_url(address, retry=Retry(NoBackoff(), 0))
    pacer = Pacer("100/second", per="subscription", store=address)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=5) as http:
        worker = Worker(Deliveries(client, name, stream), pacer, http, os.environ.get("SECRET", ""))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    await pacer.aclose()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
