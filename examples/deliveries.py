"""Webhooks queued in a Redis stream, and a worker that delivers them: `python -m examples.deliveries <redis> <name>`.

The stream is the queue, and its consumer group knows who has taken what: a delivery stays pending until it is
acknowledged. A worker that is at work says so every second (LEASE / 3); what nobody has touched for its backoff, because it failed or its
worker is gone, is claimed by whoever sees it first. After `TRIES` times it goes to the dead letters. Each
subscription gets 100 a second at most, from all workers together. Delivery is at least once: receivers know a webhook
that comes twice by its `webhook-id`.
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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import redis.asyncio
from redis.exceptions import ResponseError

from ratelimit import Pacer

STREAM, GROUP, DEAD = "webhooks", "delivery", "webhooks:dead"
TRIES = 4
LEASE = float(os.environ.get("LEASE", "3"))
"""Seconds without a sign of life after which a worker's deliveries are taken over; the least backoff."""

PULSE = LEASE / 3
AT_ONCE = 100
"""Deliveries that a worker has under way."""


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
    """The queue, as one worker sees it."""

    def __init__(self, client: redis.asyncio.Redis, worker: str) -> None:
        # redis-py's annotations mix both colours of its client.
        self._redis: Any = client
        self._worker = worker

    async def prepare(self) -> None:
        """Make the stream and its group, once."""
        try:
            await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def enqueue(self, subscription: str, url: str, event: Mapping[str, Any]) -> None:
        """Put a webhook at the end of the queue."""
        await self._redis.xadd(STREAM, {"subscription": subscription, "url": url, "body": json.dumps(event)})

    async def take(self, most: int) -> list[Delivery]:
        """Take deliveries that are due again, and new ones."""
        due = await self._claim(most)
        if len(due) == most:
            return due
        told = await self._redis.xreadgroup(GROUP, self._worker, {STREAM: ">"}, count=most - len(due), block=100)
        return [*due, *(_delivery(key, fields, 1) for _, entries in told or () for key, fields in entries)]

    async def keep(self, keys: list[str]) -> None:
        """Say that these are being worked on."""
        if keys:
            await self._redis.xclaim(STREAM, GROUP, self._worker, 0, keys, justid=True)

    async def done(self, delivery: Delivery) -> None:
        """Take a delivery out of the queue."""
        async with self._redis.pipeline(transaction=True) as both:
            both.xack(STREAM, GROUP, delivery.key)
            both.xdel(STREAM, delivery.key)
            await both.execute()

    async def bury(self, delivery: Delivery, why: str) -> None:
        """Put a delivery among the dead letters, in the same step."""
        letter = {"key": delivery.key, "subscription": delivery.subscription, "body": delivery.body, "why": why}
        async with self._redis.pipeline(transaction=True) as both:
            both.xadd(DEAD, letter)
            both.xack(STREAM, GROUP, delivery.key)
            both.xdel(STREAM, delivery.key)
            await both.execute()

    async def _claim(self, most: int) -> list[Delivery]:
        """Claim what nobody has touched for its backoff: who is first wakes it, and others see that it is fresh."""
        pending = await self._redis.xpending_range(STREAM, GROUP, "-", "+", 10 * most, idle=round(LEASE * 1000))
        claimed = list[Delivery]()
        for entry in pending:
            times, idle = entry["times_delivered"], backoff(entry["times_delivered"])
            if entry["time_since_delivered"] >= idle * 1000 and len(claimed) < most:
                told = await self._redis.xclaim(STREAM, GROUP, self._worker, round(idle * 1000), [entry["message_id"]])
                claimed += [_delivery(key, fields, times + 1) for key, fields in told if fields]
        return claimed


def _delivery(key: bytes, fields: Mapping[bytes, bytes], times: int) -> Delivery:
    return Delivery(key.decode(), fields[b"subscription"].decode(), fields[b"url"].decode(), fields[b"body"], times)


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
        async with asyncio.TaskGroup() as group:
            pulse = group.create_task(self._pulse())
            while not self._stopping or self._under_way:
                free = AT_ONCE - len(self._under_way)
                if self._stopping or not free:
                    await asyncio.sleep(0.02)
                    continue
                for delivery in await self._deliveries.take(free):
                    self._under_way.add(delivery.key)
                    group.create_task(self._deliver(delivery))
            pulse.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            why = "given up" if delivery.times > TRIES else await self._attempt(delivery)
            if not why:
                await self._deliveries.done(delivery)
            elif delivery.times >= TRIES:
                await self._deliveries.bury(delivery, why)
            else:
                await self._deliveries.keep([delivery.key])  # Its backoff begins now.
        finally:
            self._under_way.discard(delivery.key)

    async def _attempt(self, delivery: Delivery) -> str:
        """Send a webhook when it is its turn, and return what went wrong, if anything."""
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
        except httpx.HTTPError as error:
            return repr(error)
        return "" if answer.is_success else f"answered {answer.status_code}"

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(PULSE)
            await self._deliveries.keep(list(self._under_way))


async def main(address: str, name: str) -> None:
    client = redis.asyncio.Redis.from_url(address)
    pacer = Pacer("100/second", per="subscription", store=address)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=5) as http:
        worker = Worker(Deliveries(client, name), pacer, http, os.environ.get("SECRET", ""))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    await pacer.aclose()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
