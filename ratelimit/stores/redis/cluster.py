"""The client for a Redis Cluster: batches by hash slot, redirections, and requests that span several slots."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import MovedError

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.clock import Clock
from ratelimit.errors import StoreError, StorePartiallyUnavailable, StoreTimeout, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.stores.redis.batching import Batcher, BatchResult, OnBatch
from ratelimit.stores.redis.client import RedisClient
from ratelimit.stores.redis.codec import NO_KEYS_TAG
from ratelimit.stores.redis.connect import no_retries
from ratelimit.stores.redis.connection import ErrorReply
from ratelimit.stores.redis.executor import REDIRECTS, ScriptExecutor
from ratelimit.stores.redis.in_doubt import InDoubtCalls
from ratelimit.stores.redis.pending_call import PendingCall
from ratelimit.stores.redis.split_requests import Part, by_window, split, submit_parts
from ratelimit.stores.redis.topology import Topology

_RETRY_PAUSE_S: Final = 0.005
"""Seconds until a hash slot that is not served is asked for again."""

_NO_KEYS_SLOT: Final = key_slot(NO_KEYS_TAG.encode())
"""The hash slot of requests without charges."""

_NODE_DOWN_S: Final = 0.3
"""Seconds for which a node that did not answer is not asked."""

_STALE: Final = ("READONLY", "LOADING", "MASTERDOWN")
"""Errors of a node that does not serve the hash slot, although the topology says so."""

OnResult = Callable[[BatchResult], None]

Start = Callable[..., None]
"""Starts a call on a node: `(executor, on_result, deadline=…, asking=…)`."""


class _SlotIsMigrating(StorePartiallyUnavailable):
    """The keys of a call lie on two nodes, because their hash slot is being migrated. Nothing was done."""


class ClusterClient(RedisClient):
    """The client for a Cluster: requests in one hash slot travel together, and all nodes are asked at once.

    A request whose keys lie in several hash slots is charged in all of them or in none (`split_requests`). So is one
    whose hash slot is being migrated, key by key. Slots that have moved are followed. A node that does not answer gets
    one call in 0.3 s; other calls that need it fail at once.
    """

    def __init__(
        self,
        client: RedisCluster,
        clock: Clock | None,
        timeout: float,
        connect_timeout: float,
        on_batch: OnBatch | None = None,
    ) -> None:
        super().__init__(client, timeout, connect_timeout)
        self._on_batch = on_batch
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._in_doubt = InDoubtCalls(self._look_up, self.submit, timeout)
        self._executors: dict[str, ScriptExecutor] = {}
        self._batchers: dict[int, Batcher] = {}
        self._topology = Topology(client, connect_timeout)
        self._split, self._tasks = BackgroundTasks(), BackgroundTasks()
        self._down_until: dict[str, float] = {}

    @property
    def is_settled(self) -> bool:
        """Whether no call is in doubt and nothing runs in the background."""
        is_idle = not (self._split or self._tasks) and self._in_doubt.is_empty and self._topology.is_settled
        return is_idle and all(executor.is_settled for executor in self._executors.values())

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked in each hash slot, all or nothing where the operation is."""
        parts = split(request, _slot_of, self._submit_in_slot)
        if len(parts) > 1:
            return await self._submit_parts(request, parts)
        return await self._submit_in_slot(_slot_of(request.charges[0]) if parts else _NO_KEYS_SLOT, request)

    def slot_of(self, charge: Charge) -> int:
        """Return the hash slot of a charge."""
        return _slot_of(charge)

    async def drain(self) -> None:
        """Send the waiting requests, and wait for the calls in flight to all nodes."""
        await self._split.drain()
        drained = set[int]()
        while waiting := self._batchers.keys() - drained:  # A request for another slot may come meanwhile.
            for slot in waiting:
                await self._batchers[slot].drain()
            drained |= waiting

    async def resolve_in_doubt(self) -> bool:
        """Look up the in-doubt calls of all nodes, and return whether none remains."""
        return await self._in_doubt.resolve()

    async def aclose(self) -> None:
        """Wait for the calls in flight and close the connections."""
        await self.drain()
        await self._in_doubt.aclose()
        await self._tasks.cancel()
        await self._topology.aclose()
        for executor in self._executors.values():
            await executor.aclose()
        await super().aclose()
        # redis-py does nothing where it has closed itself after an error; a refresh may have connected since then.
        for nodes in ("nodes_cache", "startup_nodes"):
            await self.redis.nodes_manager.aclose(nodes)

    async def _submit_in_slot(self, slot: int, request: StoreRequest) -> StoreReply:
        try:
            return await self._batcher(slot).submit(request)
        except _SlotIsMigrating:
            parts = split(by_window(request), _key_of, partial(self._submit_key, slot))
            return await self._submit_parts(request, parts)

    async def _submit_parts(self, request: StoreRequest, parts: Sequence[Part]) -> StoreReply:
        # A task of its own, so that closing waits for it; a caller that is cancelled cancels it.
        task = self._split.spawn(self._reply_of_parts(request, parts))
        try:
            return await task
        except asyncio.CancelledError:
            # It may have ended just before, and has then nothing left to cancel.
            if task.done() and not task.cancelled() and not task.exception() and request.on_orphaned is not None:
                request.on_orphaned(request, task.result())
            raise

    async def _reply_of_parts(self, request: StoreRequest, parts: Sequence[Part]) -> StoreReply:
        reply = await submit_parts(parts, self._split, self._in_doubt.add_unsent)
        return reply._replace(readings=reply.readings[: len(request.charges)])

    async def _submit_key(self, slot: int, key: str, request: StoreRequest) -> StoreReply:
        """Do what is asked with one key of a hash slot that is being migrated, in a call that names this key alone."""
        del key
        return await Batcher(partial(self._send, slot, names_reply_key=False)).submit(request)

    def _batcher(self, slot: int) -> Batcher:
        batcher = self._batchers.get(slot)
        if batcher is None:
            batcher = self._batchers[slot] = Batcher(partial(self._send, slot), self._on_batch)
        return batcher

    def _send(
        self, slot: int, requests: Sequence[StoreRequest], on_result: OnResult, *, names_reply_key: bool = True
    ) -> None:
        def start(executor: ScriptExecutor, on_result: OnResult, **options: Any) -> None:
            executor.send(requests, on_result, names_reply_key=names_reply_key, **options)

        found = self._known_executor(slot)
        if found is None:
            self._tasks.spawn(self._route(slot, start, on_result, requests))
            return
        name, executor = found
        deadline = self._loop.time() + self._timeout

        def on_reply(result: BatchResult) -> None:
            self._record_health(name, result)
            if isinstance(result, Exception):
                self._tasks.spawn(self._route(slot, start, on_result, requests, deadline=deadline, first=result))
            else:
                on_result(result)

        start(executor, on_reply, deadline=deadline)

    def _known_executor(self, slot: int) -> tuple[str, ScriptExecutor] | None:
        """Return the name and the executor of the node that serves a hash slot, where nothing has to be found out."""
        node: Any = self._topology.known_node(slot)
        executor = None if node is None or node.name in self._down_until else self._executors.get(node.name)
        return None if executor is None else (node.name, executor)

    def _look_up(self, call: PendingCall, on_result: OnResult) -> None:
        def start(executor: ScriptExecutor, on_result: OnResult, **options: Any) -> None:
            executor.look_up(call, on_result, **options)

        _, reply_key, *_ = call.look_up_arguments()
        self._tasks.spawn(self._route(key_slot(reply_key), start, on_result))

    async def _route(
        self,
        slot: int,
        start: Start,
        on_result: OnResult,
        requests: Sequence[StoreRequest] = (),
        *,
        deadline: float | None = None,
        first: BatchResult | None = None,
    ) -> None:
        """Start a call on the node of a hash slot; of `requests` what has to be done is kept where no node is found.

        `first` is what the node that was known has answered.
        """
        try:
            result = await self._follow_redirects(slot, start, deadline or self._loop.time() + self._timeout, first)
            if isinstance(result, ErrorReply) and result.code in REDIRECTS:
                kind = _SlotIsMigrating if result.code == "TRYAGAIN" else StorePartiallyUnavailable
                result = kind(str(result))  # Nothing was done.
            elif isinstance(result, Exception) and not isinstance(result, ErrorReply):
                self._topology.schedule_refresh()
            on_result(result)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            self._in_doubt.add_unsent(requests)
            on_result(error)
        except BaseException:
            self._in_doubt.add_unsent(requests)
            on_result(StoreError("the call to the store was interrupted [RL408]"))
            raise

    async def _ask_node(self, slot: int, start: Start, deadline: float, asking: str | None) -> BatchResult:
        """Ask the node of a hash slot, or the one at the address `asking` with ASKING."""
        name, executor = await self._executor(slot, asking, deadline)
        if self._loop.time() < self._down_until.get(name, 0.0):
            return StorePartiallyUnavailable("a node of the Cluster is down [RL404]")
        if name in self._down_until:  # This call finds out, and no other one meanwhile.
            self._down_until[name] = self._loop.time() + _NODE_DOWN_S
        reply: asyncio.Future[BatchResult] = self._loop.create_future()
        start(executor, partial(_set_result, reply), deadline=deadline, asking=asking is not None)
        result = await reply
        self._record_health(name, result)
        return result

    async def _follow_redirects(
        self, slot: int, start: Start, deadline: float, result: BatchResult | None
    ) -> BatchResult:
        """Ask the node of a hash slot, and the nodes that it names instead; `result` is what was answered already."""
        asking: str | None = None
        while True:
            if result is None:
                result = await self._ask_node(slot, start, deadline, asking)
            if not isinstance(result, ErrorReply) or self._loop.time() + _RETRY_PAUSE_S >= deadline:
                return result
            asking = result.text.rpartition(" ")[2] if result.code == "ASK" else None
            if result.code == "MOVED":
                await self._topology.move_slot(MovedError(result.text.partition(" ")[2]))
                self._topology.schedule_refresh()
            elif result.code == "CLUSTERDOWN":
                self._topology.schedule_refresh()
                await asyncio.sleep(_RETRY_PAUSE_S)
            elif asking is None:
                if result.code in _STALE:
                    self._topology.schedule_refresh()
                return result
            result = None

    def _record_health(self, name: str, result: BatchResult) -> None:
        if isinstance(result, (StoreTimeout, StoreUnavailable)):
            self._down_until[name] = self._loop.time() + _NODE_DOWN_S
        else:
            self._down_until.pop(name, None)

    async def _executor(self, slot: int, address: str | None, deadline: float) -> tuple[str, ScriptExecutor]:
        """Return the name and the executor of the node that serves a hash slot, or of the one at an address."""
        node = await self._topology.node(slot, address, deadline - self._loop.time())
        if node is None:
            raise StoreUnavailable("the Cluster does not know the node that it named [RL404]")
        if node.name not in self._executors:

            def make_connection() -> Any:
                return node.connection_class(**{**node.connection_kwargs, "retry": no_retries()})

            self._executors[node.name] = ScriptExecutor(
                make_connection, self._clock, self._timeout, self._in_doubt, self._connect_timeout, coalesces=True
            )
        return node.name, self._executors[node.name]


def _slot_of(charge: Charge) -> int:
    return int(key_slot(charge.key.encode()))


def _key_of(charge: Charge) -> str:
    return charge.key


def _set_result(reply: "asyncio.Future[BatchResult]", result: BatchResult) -> None:
    if not reply.done():  # The client was closed meanwhile.
        reply.set_result(result)
