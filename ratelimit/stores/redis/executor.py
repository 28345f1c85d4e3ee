"""Executes script calls on one server, each exactly once, however often it has to be sent."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from redis.asyncio.connection import AbstractConnection

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.clock import Clock
from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.messages import StoreRequest
from ratelimit.stores.redis.batching import BatchResult
from ratelimit.stores.redis.codec import SCRIPT, SCRIPT_SHA, encode, encode_command
from ratelimit.stores.redis.connection import CONNECT_TIMEOUT, ErrorReply, PipelinedConnection
from ratelimit.stores.redis.errors import translate_errors
from ratelimit.stores.redis.in_doubt import InDoubtCalls
from ratelimit.stores.redis.pending_call import PendingCall

_INJECTED_CLOCK_TTL_MS: Final = 86_400_000
"""Milliseconds that keys live at least where the clock is injected: it does not run with the server's."""

_NOT_MASTER: Final = ("READONLY", "MASTERDOWN")
"""Errors of a server that is no longer the master; it has done nothing."""

REDIRECTS: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
"""Errors of a Cluster node that is not the one to ask, or not now; it has done nothing."""

_SPARE_INTERVAL_S: Final = 1.0
"""Seconds at least between two second connections that are opened for a slow call."""


class ScriptExecutor:
    """Sends batches to one server in the order in which they come, pipelined on one connection.

    Each call carries an idempotency key, under which the server keeps the reply for some seconds. A call whose reply is
    lost, or that has no reply after half of its time, is therefore sent once more on a second connection, and is still
    executed once. If both attempts fail, the callers go on without a reply and the call goes to `in_doubt`, which finds
    out later what became of it. With `coalesces`, calls of one turn of the event loop are written together.
    """

    def __init__(
        self,
        make_connection: Callable[[], AbstractConnection],
        clock: Clock | None,
        timeout: float,
        in_doubt: InDoubtCalls,
        connect_timeout: float = CONNECT_TIMEOUT,
        *,
        coalesces: bool = False,
    ) -> None:
        self._make_connection, self._clock, self._timeout = make_connection, clock, timeout
        self._in_doubt, self._connect_timeout, self._coalesces = in_doubt, connect_timeout, coalesces
        self._loop = asyncio.get_running_loop()
        self._connection = self._new_connection()
        self._spare: PipelinedConnection | None = None
        self._spare_opened_at = float("-inf")
        self._name, self._numbers = secrets.token_hex(6), count()
        self._tasks = BackgroundTasks()
        self._is_closing = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs in the background."""
        return not self._tasks

    def send(
        self,
        requests: Sequence[StoreRequest],
        on_result: Callable[[BatchResult], None],
        *,
        deadline: float | None = None,
        asking: bool = False,
        names_reply_key: bool = True,
    ) -> None:
        """Start the call for a batch; `on_result` gets the replies, or an error at `deadline` (event loop's clock).

        Without a deadline the call has `timeout` seconds. `asking` precedes it with ASKING, for a Cluster node that is
        importing the hash slot. A call that does not name the key of its reply is sent once, because the server may be
        unable to keep the reply.
        """
        now = None if self._clock is None else self._clock()
        call = PendingCall(requests, on_result, now)
        call.asking, call.number, call.is_named = asking, next(self._numbers), names_reply_key
        call.retried = not names_reply_key
        call.arguments = encode(
            requests,
            now=None if now is None else now // 1000,
            ttl_floor=0 if now is None else _INJECTED_CLOCK_TTL_MS,
            name=f"{self._name}{call.number}",
            number=call.number,
            names_reply_key=names_reply_key,
        )
        self._start(call, deadline)

    def look_up(
        self,
        old: PendingCall,
        on_result: Callable[[BatchResult], None],
        *,
        deadline: float | None = None,
        asking: bool = False,
    ) -> None:
        """Ask for the kept reply of a call; `on_result` gets no replies where it was not executed, and never will be."""
        call = PendingCall(old.requests, on_result, old.now)
        call.arguments, call.number, call.lookup_only, call.asking = old.look_up_arguments(), old.number, True, asking
        self._start(call, deadline)

    async def aclose(self) -> None:
        """Wait for the calls in flight and close the connections."""
        self._is_closing = True
        await self._tasks.cancel()
        for connection in (self._connection, self._spare):
            if connection is not None:
                await connection.aclose()

    def _new_connection(self) -> PipelinedConnection:
        return PipelinedConnection(self._make_connection(), self._connect_timeout, coalesces=self._coalesces)

    def _start(self, call: PendingCall, deadline: float | None = None) -> None:
        now = self._loop.time()
        call.deadline = now + self._timeout if deadline is None else deadline
        call.timer = self._loop.call_at((now + call.deadline) / 2, self._retry, call)
        self._send_on(self._connection, call)

    def _send_on(self, connection: PipelinedConnection, call: PendingCall) -> None:
        call.connections += 1
        if connection.is_open:
            self._write(connection, call)
        else:
            self._tasks.spawn(self._connect_and_write(connection, call))

    async def _connect_and_write(self, connection: PipelinedConnection, call: PendingCall) -> None:
        try:
            async with translate_errors(call.deadline - self._loop.time()):
                await connection.connect()
        except StoreError as error:
            self._replied(call, connection, error)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            self._finish(call, error)
        except BaseException:
            self._replied(call, connection, StoreError("the call to the store was interrupted [RL408]"))
            raise
        else:
            if call.deadline - self._loop.time() > connection.connect_seconds / 2:
                self._write(connection, call)
            else:  # Its reply would come too late, and a missed deadline closes the connection.
                self._replied(call, connection, StoreTimeout("the store did not answer in time [RL403]"))

    def _write(self, connection: PipelinedConnection, call: PendingCall) -> None:
        call.copies += 1

        def on_reply(reply: bytes | StoreError) -> None:
            if isinstance(reply, ErrorReply) and reply.code == "NOSCRIPT":
                # Nothing was charged: the server does not know the script (any more).
                if call.asking:
                    connection.call(encode_command(b"ASKING"), _ignore, call.deadline)
                connection.call(encode_command(b"EVAL", SCRIPT.encode(), *call.arguments), on_reply, call.deadline)
            else:
                self._replied(call, connection, reply)

        if call.asking:
            connection.call(encode_command(b"ASKING"), _ignore, call.deadline)
        connection.call(encode_command(b"EVALSHA", SCRIPT_SHA.encode(), *call.arguments), on_reply, call.deadline)

    def _replied(self, call: PendingCall, connection: PipelinedConnection, reply: bytes | StoreError) -> None:
        call.connections -= 1
        if call.done:
            return
        if isinstance(reply, bytes):
            result = call.result_of(reply)
            if not isinstance(result, Exception):
                self._prefer(connection)
            else:  # Later replies on this connection may belong to any call.
                connection.abort()
                if not call.retried:
                    self._retry(call)
                    return
            self._finish(call, result)
        elif isinstance(reply, ErrorReply) and (reply.code not in _NOT_MASTER or call.retried):
            self._finish(call, reply)
        elif isinstance(reply, ErrorReply):
            connection.abort()  # A new connection may lead to the new master.
            self._retry(call)
        elif not call.retried and self._loop.time() < call.deadline:
            self._retry(call)
        elif not call.connections:
            self._finish(call, reply)

    def _retry(self, call: PendingCall) -> None:
        """Send a call once more: the connection that it was sent on is broken, or silent and a second one is tried."""
        if call.done or call.retried:
            return
        if self._is_closing:
            if not call.connections:
                self._finish(call, StoreUnavailable("the store was closed [RL404]"))
            return
        call.retried = True
        if not (self._connection.is_open and call.connections):
            self._send_on(self._connection, call)
            return
        if self._spare is None:
            if self._loop.time() - self._spare_opened_at < _SPARE_INTERVAL_S:
                return  # Where every call is slow, a second connection is no faster.
            self._spare_opened_at = self._loop.time()
            self._spare = self._new_connection()
        self._send_on(self._spare, call)

    def _prefer(self, connection: PipelinedConnection) -> None:
        """Keep the connection that answers, and close the other one."""
        other = self._spare
        if other is None:
            return
        if connection is other:
            self._connection, other = other, self._connection
        self._spare = None
        self._tasks.spawn(other.aclose())

    def _finish(self, call: PendingCall, result: BatchResult) -> None:
        call.done = True
        if call.timer is not None:
            call.timer.cancel()
        if not isinstance(result, Exception):
            if not call.lookup_only:
                self._in_doubt.resolve_soon()
                if call.may_be_done_later(result):
                    self._in_doubt.add(call)
        elif isinstance(result, ErrorReply) and result.code in REDIRECTS:
            # It was not done, and the Cluster client sends it to another node; unless another copy of it was.
            if call.copies > 1 and not call.lookup_only:
                self._in_doubt.add(call)
                result = StoreTimeout("the store did not answer in time [RL403]")
        elif not call.lookup_only:
            # Also where the server answered with an error: that may have been the reply to another call.
            self._in_doubt.add(call) if call.copies else self._in_doubt.add_unsent(call.requests)
        call.on_result(result)


def _ignore(reply: bytes | StoreError) -> None:
    """Ignore the reply to ASKING: only the reply after it matters."""
