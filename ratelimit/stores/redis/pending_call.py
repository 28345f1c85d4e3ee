"""A script call on its way."""

import asyncio
from collections.abc import Callable, Sequence

from ratelimit.clock import system_clock
from ratelimit.stores.messages import StoreRequest
from ratelimit.stores.redis.batching import BatchResult
from ratelimit.stores.redis.codec import decode


class PendingCall:
    """One batch on its way: its reply is awaited on `connections` connections, and it may be sent once more.

    `lookup_only` marks a call that asks for the kept reply of an earlier one and executes nothing.
    """

    __slots__ = (
        "arguments",
        "asking",
        "connections",
        "deadline",
        "done",
        "lookup_only",
        "now",
        "number",
        "on_result",
        "requests",
        "retried",
        "sent",
        "timer",
    )

    def __init__(
        self, requests: Sequence[StoreRequest], on_result: Callable[[BatchResult], None], now: int | None
    ) -> None:
        self.requests, self.on_result, self.now = requests, on_result, now
        self.arguments: list[bytes] = []
        self.deadline, self.number = 0.0, 0
        self.connections = 0
        self.sent = self.retried = self.done = self.lookup_only = self.asking = False
        self.timer: asyncio.TimerHandle | None = None

    def result_of(self, reply: bytes) -> BatchResult:
        """Return the store replies that the server's bytes hold (none: nothing was kept), or why they hold none."""
        if self.lookup_only and not reply:
            return []
        try:
            return list(decode(reply, self.requests, system_clock() if self.now is None else self.now, self.number))
        except Exception as error:  # noqa: BLE001 - handed to the callers
            return error
