"""A pipelined connection: calls are sent without waiting for the replies to earlier ones."""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from ratelimit._utils.tasks import SharedAttempt
from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.redis.errors import translate_errors

OnReply = Callable[[bytes | StoreError], None]
"""Takes the reply to a call, as the server sent it, or the error that it ended with."""

CONNECT_TIMEOUT: Final = 2.0
"""Seconds that connecting may take, with the login: up to six round trips."""

_LOGIN_ERRORS: Final = ("NOAUTH", "WRONGPASS", "NOPERM")
_CRLF: Final = b"\r\n"
_MAX_HEADER: Final = 16
"""Bytes of the type and the length of a string reply: no reply is longer than fifteen digits say."""
_SCRIPT_LINE: Final = re.compile(r"@?user_script: ?\d+: ")
_INNER_ERROR: Final = re.compile(r": -?([A-Z]+) ")


class ErrorReply(StoreError):
    """The server answered with an error; `code` is its first word."""

    def __init__(self, text: str) -> None:
        self.text = text
        # An error that stops a script is reported inside the script's own error.
        inner = _INNER_ERROR.search(text) if text.startswith("ERR Error running script") else None
        self.code = inner[1] if inner else text.partition(" ")[0]
        super().__init__(text)

    def __str__(self) -> str:
        is_login = self.code in _LOGIN_ERRORS
        answered, code = ("refused the login:", "RL405") if is_login else ("answered", "RL406")
        # An error of a script begins with the line that raised it.
        return f"the store {answered} {_SCRIPT_LINE.split(self.text)[-1]:.100} [{code}]"


class PipelinedConnection(asyncio.Protocol):
    """Sends encoded commands whose reply is one string, and hands each reply to the callback of its call.

    redis-py connects and logs in. From then on its streams are bypassed, because they cost a task and several turns of
    the event loop for each call. A call that misses its deadline closes the connection, and with it fails every call
    that waits for a reply. With `coalesces`, the commands of one turn of the event loop go out in one write.
    """

    def __init__(
        self, connection: AbstractConnection, connect_timeout: float = CONNECT_TIMEOUT, *, coalesces: bool = False
    ) -> None:
        self._connection: Any = connection
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._connecting = SharedAttempt(self._connect)
        self.connect_seconds = 0.0
        """How long it took to connect and log in: at least two round trips."""
        self._transport: asyncio.Transport | None = None
        self._streams: asyncio.BaseProtocol | None = None
        self._pending: deque[tuple[float, OnReply]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._received = b""
        self._outgoing: list[bytes] | None = [] if coalesces else None
        self._error: StoreError = StoreUnavailable("the store closed the connection [RL404]")

    @property
    def is_open(self) -> bool:
        """Whether calls can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def connect(self) -> None:
        """Connect, unless the connection is open; raises `StoreError`.

        Connecting takes several round trips. It goes on in the background, for at most the connect timeout, if the
        waiting caller is cancelled: the next caller waits for the same attempt.
        """
        if not self.is_open:
            await self._connecting.wait()

    async def _connect(self) -> None:
        began = self._loop.time()
        try:
            async with translate_errors(self._connect_timeout):
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
        except BaseException:
            await self._connection.disconnect(nowait=True)
            raise
        self.connect_seconds = self._loop.time() - began
        self.attach(self._connection._writer.transport)  # noqa: SLF001 - as redis-py's own subclasses do

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over a transport that is connected and logged in."""
        self._transport = transport
        self._streams = transport.get_protocol()
        self._received, self._error = b"", StoreUnavailable("the store closed the connection [RL404]")
        if self._outgoing:  # Those calls have failed with the connection before.
            self._outgoing.clear()
        transport.set_protocol(self)

    def call(self, command: bytes, on_reply: OnReply, deadline: float) -> None:
        """Send a command; `on_reply` gets its reply, or an error at `deadline` (by the event loop's clock)."""
        if self._transport is None:
            on_reply(self._error)
            return
        self._pending.append((deadline, on_reply))
        if self._outgoing is None:
            self._transport.write(command)
        else:
            if not self._outgoing:
                self._loop.call_soon(self._write_outgoing)
            self._outgoing.append(command)
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._check_deadline)

    def _write_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing or [], []
        if self._transport is not None:
            self._transport.write(b"".join(outgoing))

    def abort(self) -> None:
        """Close the connection at once: every pending call fails, and the next caller has to connect again."""
        self._abort(self._error)

    async def aclose(self) -> None:
        """Close the connection, also one that is being made, and wait until that is done."""
        await self._connecting.cancel()
        await self._connection.disconnect()

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        received = self._received + data if self._received else data
        while (end := received.find(_CRLF)) >= 0:
            kind, size = received[:1], 0
            if kind == b"$" and received[1:end].isdigit() and end <= _MAX_HEADER:
                size = int(received[1:end])
                if len(received) < end + size + 4:
                    break
                reply: bytes | StoreError = received[end + 2 : end + 2 + size]
                received = received[end + size + 4 :]
            elif kind == b"+":
                reply, received = received[1:end], received[end + 2 :]
            elif kind == b"-":
                reply, received = ErrorReply(received[1:end].decode("utf-8", "replace")), received[end + 2 :]
            else:
                self._abort(StoreError("the store sent a reply of an unexpected type [RL407]"))
                return
            if not self._pending:
                self._abort(StoreError("the store sent a reply without a call [RL407]"))
                return
            _, on_reply = self._pending.popleft()
            on_reply(reply)
        self._received = received

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every call that waits for a reply."""
        self._transport = None
        if self._streams is not None:
            self._streams.connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, deque()
        for _, on_reply in pending:
            on_reply(self._error)

    def _check_deadline(self) -> None:
        self._timer = None
        if not self._pending:
            return
        deadline, _ = self._pending[0]
        if self._loop.time() >= deadline:
            self._abort(StoreTimeout("the store did not answer in time [RL403]"))
        else:
            self._timer = self._loop.call_at(deadline, self._check_deadline)

    def _abort(self, error: StoreError) -> None:
        self._error = error
        if self._transport is not None:
            self._transport.abort()
