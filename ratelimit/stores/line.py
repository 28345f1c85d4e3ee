"""A connection on which calls follow each other without waiting for one another's replies."""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable

Then = Callable[[bytes | StoreError], None]
"""What is done with the reply to a call: the text that the server sent, or what went wrong."""

_LOGIN: Final = ("NOAUTH", "WRONGPASS", "NOPERM")
_END: Final = b"\r\n"
_LONGEST: Final = 16
"""Characters of the sign and the length of a string: no reply is as long as fifteen digits say."""
_PLACE: Final = re.compile(r"@?user_script: ?\d+: ")
_WITHIN: Final = re.compile(r": -([A-Z]+) ")


class Refused(StoreError):
    """The server answered with an error; `code` is its first word."""

    def __init__(self, text: str) -> None:
        self.text = text
        # What stops a script is told within the script's own error.
        within = _WITHIN.search(text) if text.startswith("ERR Error running script") else None
        self.code = within[1] if within else text.partition(" ")[0]
        super().__init__(text)

    def __str__(self) -> str:
        answered = "refused the login:" if self.code in _LOGIN else "answered"
        # What a script says begins with where it says it.
        return f"the store {answered} {_PLACE.split(self.text)[-1]:.100}"


class Line(asyncio.Protocol):
    """Sends packed commands whose reply is one string, and hands each reply to who made that call.

    redis-py connects and logs in; from then on its streams, with a task and several turns of the event loop for each
    call, are left aside. What is overdue breaks the line, and with it every call that waits for a reply.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection: Any = connection
        self._loop = asyncio.get_running_loop()
        self._connecting = asyncio.Lock()
        self._transport: asyncio.Transport | None = None
        self._streams: asyncio.BaseProtocol | None = None
        self._pending: deque[tuple[float, Then]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._heard = b""
        self._error: StoreError = StoreUnavailable("the store hung up")

    @property
    def open(self) -> bool:
        """Whether calls may be made."""
        return self._transport is not None and not self._transport.is_closing()

    async def connect(self) -> None:
        """Connect, where that is not done; raises what redis-py raises."""
        async with self._connecting:
            if self.open:
                return
            try:
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
            except BaseException:
                await self._connection.disconnect(nowait=True)
                raise
            self._transport = self._connection._writer.transport  # noqa: SLF001 - as those do who derive from it
            self._streams = self._transport.get_protocol()
            self._heard, self._error = b"", StoreUnavailable("the store hung up")
            self._transport.set_protocol(self)

    def call(self, packed: bytes, then: Then, deadline: float) -> None:
        """Send a command; `then` gets its reply, or an error at `deadline` (by the event loop's time)."""
        if self._transport is None:
            then(self._error)
            return
        self._pending.append((deadline, then))
        self._transport.write(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._look)

    def hang_up(self) -> None:
        """Break the line: who waits for a reply hears of it, and who calls next connects anew."""
        self._break(self._error)

    async def aclose(self) -> None:
        """Hang up and wait until that is done."""
        await self._connection.disconnect()

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        heard = self._heard + data if self._heard else data
        while (end := heard.find(_END)) >= 0:
            kind, size = heard[:1], 0
            if kind == b"$" and heard[1:end].isdigit() and end <= _LONGEST:
                size = int(heard[1:end])
                if len(heard) < end + size + 4:
                    break
                reply: bytes | StoreError = heard[end + 2 : end + 2 + size]
                heard = heard[end + size + 4 :]
            elif kind == b"+":
                reply, heard = heard[1:end], heard[end + 2 :]
            elif kind == b"-":
                reply, heard = Refused(heard[1:end].decode("utf-8", "replace")), heard[end + 2 :]
            else:
                self._break(StoreError("the store answered something that was not asked for"))
                return
            if not self._pending:
                self._break(StoreError("the store answered what nobody asked"))
                return
            self._pending.popleft()[1](reply)
        self._heard = heard

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits for a reply."""
        self._transport = None
        if self._streams is not None:
            self._streams.connection_lost(exc)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        pending, self._pending = self._pending, deque()
        for _, then in pending:
            then(self._error)

    def _look(self) -> None:
        self._watch = None
        if not self._pending:
            return
        deadline = self._pending[0][0]
        if self._loop.time() >= deadline:
            self._break(StoreTimeout("the store did not answer in time"))
        else:
            self._watch = self._loop.call_at(deadline, self._look)

    def _break(self, error: StoreError) -> None:
        self._error = error
        if self._transport is not None:
            self._transport.abort()
