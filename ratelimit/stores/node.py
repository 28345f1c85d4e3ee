"""A server, and the calls to it: each is done once, however often it has to be sent."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from ratelimit.clock import Clock, system_clock
from ratelimit.errors import StoreError
from ratelimit.stores.base import CORRECTIONS, Request
from ratelimit.stores.group_commit import GroupCommit, Told
from ratelimit.stores.line import Line, Refused
from ratelimit.stores.mapped import mapped
from ratelimit.stores.wire import SCRIPT, SCRIPT_SHA, decode, encode, pack

logger = logging.getLogger("ratelimit")

_HAND_CLOCK_TTL: Final = 86_400_000
"""Milliseconds that keys live at least where the clock was handed in: it does not run with the server's."""

_MOST_DOUBTFUL: Final = 1000
"""Calls of which nobody knows whether they were done; beyond that the oldest stay as they are."""

_ELSEWHERE: Final = ("READONLY", "MASTERDOWN")
"""What a server answers that is not the master any more, before it has done anything."""

ELSEWHERE_NOW: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
"""What a node of a Cluster answers that is not the one to ask, or not now."""

_PAUSE: Final = 0.3
"""Seconds at least between two times that it is asked what became of calls."""


class Call:
    """One batch on its way: its reply is expected on `lines` lines, and it may be sent once more."""

    __slots__ = (
        "arguments",
        "asking",
        "deadline",
        "done",
        "lines",
        "now",
        "number",
        "recall",
        "requests",
        "sent",
        "then",
        "timer",
        "tried_again",
    )

    def __init__(self, requests: Sequence[Request], then: Callable[[Told], None], now: int | None) -> None:
        self.requests, self.then, self.now = requests, then, now
        self.arguments: list[bytes] = []
        self.deadline, self.number = 0.0, 0
        self.lines = 0
        self.sent = self.tried_again = self.done = self.recall = self.asking = False
        self.timer: asyncio.TimerHandle | None = None


class Node:
    """Sends batches to one server, in the order in which they come, on one connection.

    The server keeps the reply to each call for some seconds, under a name that the call brings with it. So a call
    whose reply is lost, or half of whose time has passed without one, is sent once more on a new connection, and is
    still done once. Where both fail, who asked goes on without it; when the server is back it is asked whether the call
    was done: what it did for them is handed to `Request.abandoned`, and corrections that were not done are sent again.
    """

    def __init__(self, make: Callable[[], AbstractConnection], clock: Clock | None, timeout: float) -> None:
        self._make, self._clock, self._timeout = make, clock, timeout
        self._loop = asyncio.get_running_loop()
        self._line = Line(make())
        self._spare: Line | None = None
        self._name, self._numbers = secrets.token_hex(6), count()
        self._doubtful: deque[Call] = deque(maxlen=_MOST_DOUBTFUL)
        self._cleared = float("-inf")
        self._asking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._commit = GroupCommit(self.send)

    def send(
        self,
        requests: Sequence[Request],
        then: Callable[[Told], None],
        *,
        deadline: float | None = None,
        asking: bool = False,
    ) -> None:
        """Begin the call for a batch; `then` gets the answers, or an error at `deadline` (the event loop's time).

        Without a deadline that is after `timeout` seconds. `asking` tells the node of a Cluster that it was named for
        slots that it does not have yet.
        """
        now = None if self._clock is None else self._clock()
        call = Call(requests, then, now)
        call.asking, call.number = asking, next(self._numbers)
        call.arguments = encode(
            requests,
            now=None if now is None else now // 1000,
            ttl_floor=0 if now is None else _HAND_CLOCK_TTL,
            name=f"{self._name}{call.number}",
            number=call.number,
        )
        self._start(call, deadline)

    async def settle(self) -> bool:
        """Ask what became of the calls that nobody knows of, and say whether none is left."""
        if self._doubtful:
            self._clear_up()
        ends = self._loop.time() + 2 * self._timeout
        while (self._asking or self._tasks) and self._loop.time() < ends:  # noqa: ASYNC110 - as long as calls take
            await asyncio.sleep(0.001)
        return not self._doubtful

    async def aclose(self) -> None:
        """Wait for the calls under way and hang up."""
        await self._commit.aclose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in (self._line, self._spare):
            if line is not None:
                await line.aclose()

    def _start(self, call: Call, deadline: float | None = None) -> None:
        now = self._loop.time()
        call.deadline = now + self._timeout if deadline is None else deadline
        call.timer = self._loop.call_at((now + call.deadline) / 2, self._again, call)
        self._put_on(self._line, call)

    def _put_on(self, line: Line, call: Call) -> None:
        call.lines += 1
        if line.open:
            self._write(line, call)
        else:
            self._spawn(self._connect_and_write(line, call))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect_and_write(self, line: Line, call: Call) -> None:
        try:
            async with mapped(call.deadline - self._loop.time()):
                await line.connect()
        except StoreError as error:
            self._told(call, line, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            self._finish(call, error)
        except BaseException:
            self._told(call, line, StoreError("the call to the store was cut off"))
            raise
        else:
            self._write(line, call)

    def _write(self, line: Line, call: Call) -> None:
        call.sent = True

        def told(reply: bytes | StoreError) -> None:
            if isinstance(reply, Refused) and reply.code == "NOSCRIPT":
                # Nothing was charged: the server does not know the script (any more).
                if call.asking:
                    line.call(pack(b"ASKING"), _heard, call.deadline)
                line.call(pack(b"EVAL", SCRIPT.encode(), *call.arguments), told, call.deadline)
            else:
                self._told(call, line, reply)

        if call.asking:
            line.call(pack(b"ASKING"), _heard, call.deadline)
        line.call(pack(b"EVALSHA", SCRIPT_SHA.encode(), *call.arguments), told, call.deadline)

    def _told(self, call: Call, line: Line, reply: bytes | StoreError) -> None:
        call.lines -= 1
        if call.done:
            return
        if isinstance(reply, bytes):
            answers = _answers(reply, call)
            if not isinstance(answers, Exception):
                self._keep(line)
            else:  # What follows on this line may be anybody's.
                line.hang_up()
                if not call.tried_again:
                    self._again(call)
                    return
            self._finish(call, answers)
        elif isinstance(reply, Refused) and (reply.code not in _ELSEWHERE or call.tried_again):
            self._finish(call, reply)
        elif isinstance(reply, Refused):
            line.hang_up()  # Who connects anew may find the one that has become the master.
            self._again(call)
        elif not call.tried_again and self._loop.time() < call.deadline:
            self._again(call)
        elif not call.lines:
            self._finish(call, reply)

    def _again(self, call: Call) -> None:
        """Send a call once more, on a new connection: the one that it went on is broken, or says nothing."""
        if call.done or call.tried_again:
            return
        call.tried_again = True
        if not self._line.open:
            self._put_on(self._line, call)
            return
        if self._spare is None:
            self._spare = Line(self._make())
        self._put_on(self._spare, call)

    def _keep(self, line: Line) -> None:
        """Go on with the line that answers."""
        other = self._spare
        if other is None:
            return
        if line is other:
            self._line, other = other, self._line
        self._spare = None
        self._spawn(other.aclose())

    def _finish(self, call: Call, told: Told) -> None:
        call.done = True
        if call.timer is not None:
            call.timer.cancel()
        if not isinstance(told, Exception):
            if self._doubtful and not call.recall and self._loop.time() - self._cleared >= _PAUSE:
                self._clear_up()
        elif isinstance(told, Refused) and told.code in ELSEWHERE_NOW:
            pass  # It was not done, and whoever knows the other nodes goes on with it.
        elif not call.recall and (call.sent or any(request.op in CORRECTIONS for request in call.requests)):
            # Also where the server has refused: that may have been the answer to something else.
            self._doubt(call)
        call.then(told)

    def _doubt(self, call: Call) -> None:
        if len(self._doubtful) == _MOST_DOUBTFUL:
            logger.error("the store is away for too long: it is not asked what became of the oldest calls")
        self._doubtful.append(call)

    def _clear_up(self) -> None:
        """Find out what became of the calls that nobody knows of: their replies are kept where they were done."""
        doubtful, self._doubtful = self._doubtful, deque(maxlen=_MOST_DOUBTFUL)
        self._cleared = self._loop.time()
        self._asking += len(doubtful)
        for old in doubtful:
            call = Call(old.requests, partial(self._recalled, old), old.now)
            call.arguments, call.number, call.recall = [*old.arguments, b"recall"], old.number, True
            self._start(call)

    def _recalled(self, old: Call, told: Told) -> None:
        self._asking -= 1
        if isinstance(told, Exception):
            self._doubt(old)
        elif told:
            for request, answer in zip(old.requests, told, strict=True):
                if request.abandoned is not None:
                    request.abandoned(request, answer)
        else:  # It was not done, and what nobody decided otherwise meanwhile is done now.
            for request in old.requests:
                if request.op in CORRECTIONS:
                    self._spawn(self._redo(request))

    async def _redo(self, request: Request) -> None:
        # Where that fails too, it is doubtful again.
        with suppress(StoreError):
            await self._commit.submit(request)


def _heard(reply: bytes | StoreError) -> None:
    """Take note of nothing: what matters is the reply that follows."""


def _answers(reply: bytes, call: Call) -> Told:
    if call.recall and not reply:
        return []
    try:
        return list(decode(reply, call.requests, system_clock() if call.now is None else call.now, call.number))
    except Exception as error:  # noqa: BLE001 - told to who waits
        return error
