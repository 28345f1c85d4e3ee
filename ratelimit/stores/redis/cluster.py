"""The client for a Redis Cluster: batches by hash slot, redirections, and requests that span several slots."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.clock import Clock
from ratelimit.errors import StoreError, StorePartiallyUnavailable, StoreTimeout, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import Reading
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import Batcher, BatchResult
from ratelimit.stores.redis.client import RedisClient
from ratelimit.stores.redis.codec import NO_KEYS_TAG
from ratelimit.stores.redis.connect import no_retries
from ratelimit.stores.redis.connection import ErrorReply
from ratelimit.stores.redis.errors import translate_errors
from ratelimit.stores.redis.executor import REDIRECTS, ScriptExecutor

_RETRY_PAUSE_S: Final = 0.005
"""Seconds until a hash slot that is being migrated is asked for again."""

_REFRESH_INTERVAL_S: Final = 0.25
"""Seconds at least between two reads of the Cluster's topology."""

_NODE_DOWN_S: Final = 0.3
"""Seconds for which a node that did not answer is not asked."""

_RETRIED: Final = ("TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN")
"""Errors that may be over in a moment."""

Part = tuple[int, StoreRequest]
"""The charges of a request that lie in one hash slot, as a request of their own."""


class ClusterClient(RedisClient):
    """The client for a Cluster: requests in one hash slot travel together, and all nodes are asked at once.

    A request whose keys lie in several hash slots is charged slot by slot, and given back where a later slot refuses or
    fails. Slots that have moved are followed; a slot that is being migrated is asked for again until the timeout. A node
    that does not answer gets one call in 0.3 s; other calls that need it fail at once.
    """

    def __init__(self, client: RedisCluster, clock: Clock | None, timeout: float, connect_timeout: float) -> None:
        super().__init__(client, timeout, connect_timeout)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._executors: dict[str, ScriptExecutor] = {}
        self._batchers: dict[int, Batcher] = {}
        self._tasks = BackgroundTasks()
        self._refreshed_at = float("-inf")
        self._down_until: dict[str, float] = {}

    @property
    def is_settled(self) -> bool:
        """Whether no call is in doubt and nothing runs in the background."""
        return not self._tasks and all(executor.is_settled for executor in self._executors.values())

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked in each hash slot, all or nothing where the operation is."""
        indexes: dict[int, list[int]] = {}
        for index, charge in enumerate(request.charges):
            indexes.setdefault(key_slot(charge.key.encode()), []).append(index)
        if len(indexes) <= 1:
            slot = next(iter(indexes), key_slot(NO_KEYS_TAG.encode()))
            return await self._batcher(slot).submit(request)
        parts = [
            (slot, request._replace(charges=[request.charges[index] for index in own])) for slot, own in indexes.items()
        ]
        if request.operation in (Operation.CHARGE, Operation.ACQUIRE, Operation.RELEASE):
            replies = await self._slot_by_slot(parts)
        else:
            replies = await asyncio.gather(*(self._batcher(slot).submit(part) for slot, part in parts))
        return _joined(replies, list(indexes.values()))

    async def resolve_in_doubt(self) -> bool:
        """Look up the in-doubt calls of all nodes, and return whether none remains."""
        return all([await executor.resolve_in_doubt() for executor in list(self._executors.values())])

    async def aclose(self) -> None:
        """Wait for the calls in flight and close the connections."""
        for batcher in self._batchers.values():
            await batcher.aclose()
        await self._tasks.cancel()
        for executor in self._executors.values():
            await executor.aclose()
        await super().aclose()

    async def _slot_by_slot(self, parts: Sequence[Part]) -> list[StoreReply]:
        replies: list[StoreReply] = []
        try:
            for slot, part in parts:
                replies.append(await self._batcher(slot).submit(part))
                if part.is_refused(replies[-1]):
                    break
            else:
                return replies
        except BaseException:
            self._tasks.spawn(self._give_back_after_failure(parts, replies))
            raise
        return await self._refused(parts, replies)

    async def _refused(self, parts: Sequence[Part], replies: list[StoreReply]) -> list[StoreReply]:
        """Give back what the slots before the refusing one have charged, and ask the others how they stand."""
        given_back = await self._give_back(parts, replies[:-1])
        rest = parts[len(replies) :]
        peeks = [
            self._batcher(slot).submit(part._replace(operation=Operation.PEEK, on_orphaned=None)) for slot, part in rest
        ]
        return [*given_back, replies[-1], *await asyncio.gather(*peeks)]

    async def _give_back(self, parts: Sequence[Part], replies: Sequence[StoreReply]) -> list[StoreReply]:
        given_back = []
        for (slot, part), reply in zip(parts, replies, strict=False):
            credits_ = [_credit(charge) for charge in part.made(reply)]
            request = StoreRequest(credits_, Operation.ADJUST, part.holder, reply.store_ms)
            after = iter((await self._batcher(slot).submit(request)).readings)
            readings = [
                next(after) if wait_ms <= 0 else (remaining, reset_ms, wait_ms)
                for remaining, reset_ms, wait_ms in reply.readings
            ]
            given_back.append(reply._replace(readings=readings))
        return given_back

    async def _give_back_after_failure(self, parts: Sequence[Part], replies: Sequence[StoreReply]) -> None:
        await self._give_back(parts, replies)

    def _batcher(self, slot: int) -> Batcher:
        batcher = self._batchers.get(slot)
        if batcher is None:
            batcher = self._batchers[slot] = Batcher(partial(self._send, slot))
        return batcher

    def _send(self, slot: int, requests: Sequence[StoreRequest], on_result: Callable[[BatchResult], None]) -> None:
        deadline = self._loop.time() + self._timeout
        self._tasks.spawn(self._route(slot, requests, on_result, deadline))

    async def _route(
        self, slot: int, requests: Sequence[StoreRequest], on_result: Callable[[BatchResult], None], deadline: float
    ) -> None:
        try:
            result = await self._follow_redirects(slot, requests, deadline)
            if isinstance(result, ErrorReply) and result.code in REDIRECTS:
                result = StorePartiallyUnavailable(str(result))  # Nothing was done.
            elif isinstance(result, Exception) and not isinstance(result, ErrorReply):
                self._schedule_refresh()
            on_result(result)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            on_result(error)
        except BaseException:
            on_result(StoreError("the call to the store was interrupted"))
            raise

    async def _follow_redirects(self, slot: int, requests: Sequence[StoreRequest], deadline: float) -> BatchResult:
        """Ask the node of a hash slot, and the nodes that it names instead."""
        asking: str | None = None
        while True:
            name, executor = await self._executor(slot, asking, deadline)
            if self._loop.time() < self._down_until.get(name, 0.0):
                return StorePartiallyUnavailable("a node of the Cluster is down")
            result = await _send_once(executor, requests, deadline, asking=asking is not None)
            self._record_health(name, result)
            if not isinstance(result, ErrorReply) or self._loop.time() + _RETRY_PAUSE_S >= deadline:
                return result
            asking = result.text.rpartition(" ")[2] if result.code == "ASK" else None
            if result.code == "MOVED":
                await self._move_slot(MovedError(result.text.partition(" ")[2]))
                self._schedule_refresh()
            elif result.code in _RETRIED:
                self._schedule_refresh()
                await asyncio.sleep(_RETRY_PAUSE_S)
            elif asking is None:
                return result

    def _record_health(self, name: str, result: BatchResult) -> None:
        if isinstance(result, (StoreTimeout, StoreUnavailable)):
            self._down_until[name] = self._loop.time() + _NODE_DOWN_S
        else:
            self._down_until.pop(name, None)

    async def _executor(self, slot: int, address: str | None, deadline: float) -> tuple[str, ScriptExecutor]:
        """Return the name and the executor of the node that serves a hash slot, or of the one at an address."""
        async with translate_errors(deadline - self._loop.time()):
            await self.redis.initialize()
            node = self._node_of_slot(slot) if address is None else await self._node_at(slot, address)
        if node is None:
            raise StoreUnavailable("the Cluster does not know the node that it named")
        if node.name not in self._executors:

            def make_connection() -> Any:
                return node.connection_class(**{**node.connection_kwargs, "retry": no_retries()})

            self._executors[node.name] = ScriptExecutor(
                make_connection, self._clock, self._timeout, self._connect_timeout
            )
        return node.name, self._executors[node.name]

    def _node_of_slot(self, slot: int) -> Any:
        return self.redis.nodes_manager.get_node_from_slot(slot)

    async def _node_at(self, slot: int, address: str) -> Any:
        host, _, port = address.rpartition(":")
        node = self.redis.nodes_manager.get_node(host=host, port=int(port))
        if node is None:  # redis-py has not heard of it yet.
            await self._move_slot(AskError(f"{slot} {address}"))
            node = self.redis.nodes_manager.get_node(host=host, port=int(port))
        return node

    async def _move_slot(self, redirect: MovedError | AskError) -> None:
        nodes = self.redis.nodes_manager
        if hasattr(nodes, "move_slot"):
            await nodes.move_slot(redirect)
        else:  # redis-py before 7.1 moves the slot when its node is asked for next.
            nodes._moved_exception = redirect  # noqa: SLF001
            nodes.get_node_from_slot(redirect.slot_id)

    def _schedule_refresh(self) -> None:
        """Read the Cluster's topology in the background."""
        if self._loop.time() - self._refreshed_at >= _REFRESH_INTERVAL_S:
            self._refreshed_at = self._loop.time()
            self._tasks.spawn(self._refresh())

    async def _refresh(self) -> None:
        try:
            await self.redis.nodes_manager.initialize()
        except (RedisError, OSError, TimeoutError):
            return  # The next call that fails schedules another refresh.


async def _send_once(
    executor: ScriptExecutor, requests: Sequence[StoreRequest], deadline: float, *, asking: bool
) -> BatchResult:
    result: asyncio.Future[BatchResult] = asyncio.get_running_loop().create_future()
    executor.send(requests, result.set_result, deadline=deadline, asking=asking)
    return await result


def _credit(charge: Charge) -> Charge:
    """Return what gives a charge back."""
    return charge._replace(cost=-1 if charge.limit.kind == "concurrency" else -charge.cost)


def _joined(replies: Sequence[StoreReply], indexes: Sequence[Sequence[int]]) -> StoreReply:
    """Put the readings of the parts in the order of the whole; of several clocks the earliest counts."""
    readings: list[Reading] = [(0, 0, 0)] * sum(map(len, indexes))
    for reply, own in zip(replies, indexes, strict=True):
        for index, reading in zip(own, reply.readings, strict=True):
            readings[index] = reading
    return StoreReply(readings, replies[0].now, min(reply.store_ms for reply in replies))
