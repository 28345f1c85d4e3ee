"""What one event loop keeps open to Redis: the interface, and the client for a single server."""

import asyncio
from collections.abc import Callable
from typing import Any

import redis.asyncio

from ratelimit.clock import Clock
from ratelimit.model.charge import Charge
from ratelimit.stores.base import T
from ratelimit.stores.messages import Outcome, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import Batcher, BatchResult, OnBatch
from ratelimit.stores.redis.errors import translate_errors
from ratelimit.stores.redis.executor import ScriptExecutor
from ratelimit.stores.redis.in_doubt import InDoubtCalls
from ratelimit.stores.redis.pending_call import PendingCall


class RedisClient:
    """Sends the calls of one event loop: charges over pipelined connections, everything else through redis-py.

    `redis` is redis-py's client.
    """

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        self.redis = client
        self._timeout, self._connect_timeout = timeout, connect_timeout

    @property
    def is_settled(self) -> bool:
        """Whether no call is in doubt and nothing runs in the background."""
        raise NotImplementedError

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked, in one call with the other requests that wait."""
        raise NotImplementedError

    def submit_soon(
        self, request: StoreRequest, then: Callable[[StoreRequest, Outcome], T]
    ) -> asyncio.Future[T] | None:
        """Do as `submit`, by a future of what `then` makes of the outcome; `None` where there is no such way."""
        del request, then
        return None

    def slot_of(self, charge: Charge) -> int:
        """Return the hash slot of a charge, or 0 for all where there are none."""
        del charge
        return 0

    async def run(self, *command: Any) -> Any:
        """Run one Redis command, and connect where that is needed, within the connect timeout; raises `StoreError`."""
        async with translate_errors(max(self._timeout, self._connect_timeout)):
            return await self.redis.execute_command(*command)

    async def drain(self) -> None:
        """Send the waiting requests, and wait for the calls in flight."""
        raise NotImplementedError

    async def resolve_in_doubt(self) -> bool:
        """Look up the in-doubt calls, and return whether none remains."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Wait for the calls in flight and close the connections."""
        await self.redis.aclose()


class StandaloneClient(RedisClient):
    """The client for a single server, or for the master that Sentinels name."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        clock: Clock | None,
        timeout: float,
        connect_timeout: float,
        on_batch: OnBatch | None = None,
    ) -> None:
        super().__init__(client, timeout, connect_timeout)
        self._in_doubt = InDoubtCalls(self._look_up, self.submit, timeout)
        make_connection = client.connection_pool.make_connection
        self._executor = ScriptExecutor(make_connection, clock, timeout, self._in_doubt, connect_timeout)
        self._batcher = Batcher(self._executor.send, on_batch)

    @property
    def is_settled(self) -> bool:
        """Whether no call is in doubt and nothing runs in the background."""
        return self._in_doubt.is_empty and self._executor.is_settled

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked, in one call with the other requests that wait."""
        return await self._batcher.submit(request)

    def submit_soon(self, request: StoreRequest, then: Callable[[StoreRequest, Outcome], T]) -> asyncio.Future[T]:
        """Do as `submit`, by a future of what `then` makes of the outcome."""
        return self._batcher.submit_soon(request, then)

    async def drain(self) -> None:
        """Send the waiting requests, and wait for the calls in flight."""
        await self._batcher.drain()

    async def resolve_in_doubt(self) -> bool:
        """Look up the in-doubt calls, and return whether none remains."""
        return await self._in_doubt.resolve()

    async def aclose(self) -> None:
        """Wait for the calls in flight and close the connections."""
        await self.drain()
        await self._in_doubt.aclose()
        await self._executor.aclose()
        await super().aclose()
        manager = getattr(self.redis.connection_pool, "sentinel_manager", None)
        for sentinel in manager.sentinels if manager is not None else ():
            await sentinel.aclose()

    def _look_up(self, call: PendingCall, on_result: Callable[[BatchResult], None]) -> None:
        self._executor.look_up(call, on_result)
