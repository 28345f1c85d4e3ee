"""A queue of webhooks in a Redis stream, and a worker that delivers them.

`python -m examples.webhooks.deliveries <redis> <name> [stream]` runs a worker. The stream is the queue, and its consumer
group knows which worker has taken which delivery: it stays pending until it is acknowledged. A worker renews its lease on
the deliveries that it has in flight. A delivery whose lease was not renewed for its backoff, because it failed or its worker
was killed, is claimed by the first worker that sees it. After `MAX_ATTEMPTS` failed attempts it becomes a dead letter, and
so does an entry that cannot be read. Each subscription gets at most 100 webhooks a second, from all workers together. While
Redis is unavailable, workers wait. Delivery is at least once: a receiver recognizes repeated webhooks by `webhook-id`.
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
from functools import partial
from typing import Any, TypeVar

import httpx
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from ratelimit import Pacer

T = TypeVar("T")

GROUP = "delivery"
MAX_ATTEMPTS = 4
"""Attempts after which a delivery becomes a dead letter."""

LEASE = float(os.environ.get("LEASE", "3"))
"""Seconds until other workers may claim a delivery whose lease is not renewed; also the shortest backoff."""

MAX_IN_FLIGHT = 100
"""Deliveries that a worker makes at a time."""

MOVE_TO_DEAD_LETTERS = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
return redis.call('XADD', KEYS[2], '*', 'key', ARGV[2], 'reason', ARGV[3], 'delivery', ARGV[4])
"""
"""Makes a delivery a dead letter, once, even if several workers do so."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a webhook; `attempt` counts from 1."""

    key: str
    subscription: str
    url: str
    body: bytes
    attempt: int


def backoff(attempt: int) -> float:
    """Return the seconds between this failed attempt and the next one."""
    return float(min(LEASE * 2 ** (attempt - 1), 60.0))


class Deliveries:
    """The queue `stream`, for one worker; the stream `dead_letters` holds the dead letters."""

    def __init__(self, client: redis.asyncio.Redis, worker: str, stream: str = "webhooks") -> None:
        # redis-py's annotations mix the types of its sync and async clients.
        self._redis: Any = client
        self._worker, self._stream, self.dead_letters = worker, stream, f"{stream}:dead"

    async def prepare(self) -> None:
        """Create the stream and its consumer group, unless they exist."""
        try:
            await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def enqueue(self, subscription: str, url: str, event: Mapping[str, Any]) -> None:
        """Append a webhook to the queue."""
        await self._redis.xadd(self._stream, {"subscription": subscription, "url": url, "body": json.dumps(event)})

    async def take(self, max_count: int, in_flight: AbstractSet[str]) -> list[Delivery]:
        """Take deliveries that are due for a retry, except those that are `in_flight` here, and then new ones."""
        taken = await self._claim(max_count, in_flight)
        if len(taken) < max_count:
            new = await self._redis.xreadgroup(
                GROUP, self._worker, {self._stream: ">"}, count=max_count - len(taken), block=100
            )
            taken += [(key, fields, 1) for _, entries in new or () for key, fields in entries]
        deliveries = list[Delivery]()
        for key, fields, attempt in taken:
            try:
                subscription, url = fields[b"subscription"].decode(), fields[b"url"].decode()
                deliveries.append(Delivery(key.decode(), subscription, url, fields[b"body"], attempt))
            except (KeyError, ValueError) as error:
                await self.move_to_dead_letters(key.decode(), f"cannot be read: {error!r}", repr(fields))
        return deliveries

    async def renew(self, keys: list[str]) -> None:
        """Renew the lease on these deliveries; after a failed attempt, their backoff begins now."""
        if keys:
            await self._redis.xclaim(self._stream, GROUP, self._worker, 0, keys, justid=True)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Remove a delivery from the queue."""
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.xack(self._stream, GROUP, delivery.key)
            transaction.xdel(self._stream, delivery.key)
            await transaction.execute()

    async def move_to_dead_letters(self, key: str, reason: str, content: str) -> None:
        """Move a delivery from the queue to the dead letters, in one step."""
        await self._redis.eval(MOVE_TO_DEAD_LETTERS, 2, self._stream, self.dead_letters, GROUP, key, reason, content)

    async def _claim(
        self, max_count: int, in_flight: AbstractSet[str]
    ) -> list[tuple[bytes, Mapping[bytes, bytes], int]]:
        """Claim deliveries whose backoff is over; this renews their lease, so that no other worker claims them too."""
        pending = await self._redis.xpending_range(self._stream, GROUP, "-", "+", 1000, idle=round(LEASE * 1000))
        claimed = list[tuple[bytes, Mapping[bytes, bytes], int]]()
        for entry in pending:
            attempts, key = entry["times_delivered"], entry["message_id"]
            idle = round(backoff(attempts) * 1000)
            if entry["time_since_delivered"] >= idle and len(claimed) < max_count and key.decode() not in in_flight:
                entries = await self._redis.xclaim(self._stream, GROUP, self._worker, idle, [key])
                claimed += [(each, fields, attempts + 1) for each, fields in entries if fields]
        return claimed


def signature(secret: str, key: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a webhook (Standard Webhooks: HMAC-SHA256 over id, timestamp and body)."""
    signed = hmac.new(secret.encode(), f"{key}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


class Worker:
    """Takes deliveries and makes them; after `stop`, it finishes those in flight and returns."""

    def __init__(self, deliveries: Deliveries, pacer: Pacer, client: httpx.AsyncClient, secret: str) -> None:
        self._deliveries, self._pacer, self._client, self._secret = deliveries, pacer, client, secret
        self._in_flight: set[str] = set()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        await self._retry_while_unavailable(self._deliveries.prepare)
        async with asyncio.TaskGroup() as group:
            renewal = group.create_task(self._renew_leases())
            while not self._stopping or self._in_flight:
                free = MAX_IN_FLIGHT - len(self._in_flight)
                if self._stopping or not free:
                    await asyncio.sleep(0.02)
                    continue
                take = partial(self._deliveries.take, free, self._in_flight)
                for delivery in await self._retry_while_unavailable(take):
                    self._in_flight.add(delivery.key)
                    group.create_task(self._deliver(delivery))
            renewal.cancel()

    async def _retry_while_unavailable(self, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat a Redis call until Redis answers; the call must be safe to repeat."""
        while True:
            try:
                return await work()
            except redis.RedisError as error:
                if not isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
                    raise
                await asyncio.sleep(0.2)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            failure = "too many attempts" if delivery.attempt > MAX_ATTEMPTS else await self._attempt(delivery)
            if not failure:
                await self._retry_while_unavailable(lambda: self._deliveries.acknowledge(delivery))
            elif delivery.attempt >= MAX_ATTEMPTS:
                content = f"{delivery.subscription} {delivery.body!r}"
                await self._retry_while_unavailable(
                    lambda: self._deliveries.move_to_dead_letters(delivery.key, failure, content)
                )
            else:
                await self._retry_while_unavailable(lambda: self._deliveries.renew([delivery.key]))
        finally:
            self._in_flight.discard(delivery.key)

    async def _attempt(self, delivery: Delivery) -> str:
        """Send a webhook when the pacer lets it go, and return the reason if it fails, or an empty string."""
        if not delivery.subscription:
            return "has no subscription"
        await self._pacer.wait(delivery.subscription)
        timestamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery.key,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self._secret, delivery.key, timestamp, delivery.body),
            "x-started-at": repr(asyncio.get_running_loop().time()),
        }
        try:
            response = await self._client.post(delivery.url, content=delivery.body, headers=headers)
        except Exception as error:  # noqa: BLE001 - a webhook with a wrong URL must not stop the worker
            return repr(error)
        return "" if response.is_success else f"status {response.status_code}"

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            await self._retry_while_unavailable(lambda: self._deliveries.renew(list(self._in_flight)))


async def main(address: str, name: str, stream: str = "webhooks") -> None:
    client = redis.asyncio.Redis.from_url(address, retry=Retry(NoBackoff(), 0))
    pacer = Pacer("100/second", per="subscription", store=address)
    limits = httpx.Limits(max_connections=MAX_IN_FLIGHT, max_keepalive_connections=MAX_IN_FLIGHT)
    async with httpx.AsyncClient(limits=limits, timeout=5) as http:
        worker = Worker(Deliveries(client, name, stream), pacer, http, os.environ.get("SECRET", ""))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    await pacer.aclose()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
