"""A script call on its way."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from ratelimit.clock import system_clock
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import BatchResult
from ratelimit.stores.redis.codec import decode

_READING: Final = (Operation.PEEK, Operation.USAGE)
"""Operations that change nothing."""


class PendingCall:
    """One batch on its way: its reply is awaited on `connections` connections, and it may be sent once more.

    `lookup_only` marks a call that asks for the kept reply of an earlier one and executes nothing. `is_named` says that
    the call names the key of its reply, so that the server is sure to keep it. `copies` counts how often it was sent.
    """

    __slots__ = (
        "arguments",
        "asking",
        "connections",
        "copies",
        "deadline",
        "done",
        "is_named",
        "lookup_only",
        "now",
        "number",
        "on_result",
        "requests",
        "retried",
        "timer",
    )

    def __init__(
        self, requests: Sequence[StoreRequest], on_result: Callable[[BatchResult], None], now: int | None
    ) -> None:
        self.requests, self.on_result, self.now = requests, on_result, now
        self.arguments: list[bytes] = []
        self.is_named = True
        self.deadline, self.number = 0.0, 0
        self.connections = self.copies = 0
        self.retried = self.done = self.lookup_only = self.asking = False
        self.timer: asyncio.TimerHandle | None = None

    def may_be_done_later(self, replies: Sequence[StoreReply]) -> bool:
        """Say whether another copy of this call, still on its way, may do what these replies refuse.

        The server keeps a reply, which another copy gets too, only where the call has changed or corrected something.
        """
        if self.copies < 2:
            return False
        pairs = [(request, request.is_refused(reply)) for request, reply in zip(self.requests, replies, strict=True)]
        if any(not is_refused and request.operation not in _READING for request, is_refused in pairs):
            return False
        return any(is_refused for _, is_refused in pairs)

    def look_up_arguments(self) -> list[bytes]:
        """Return the arguments that ask for this call's kept reply, under the one key that this takes."""
        body, reply_key = self.arguments[-1], self.arguments[-2]
        if not self.is_named:
            body, reply_key = self.arguments[2], self.arguments[-1]
        return [b"1", reply_key, body, b"lookup"]

    def result_of(self, reply: bytes) -> BatchResult:
        """Return the store replies that the server's bytes hold (none: nothing was kept), or why they hold none."""
        if self.lookup_only and not reply:
            return []
        try:
            return list(decode(reply, self.requests, system_clock() if self.now is None else self.now, self.number))
        except Exception as error:  # noqa: BLE001 - handed to the callers
            return error
