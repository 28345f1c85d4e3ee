"""A network between workers and a real Redis that does to each message what a schedule says, in virtual time.

Everything but the network is real: the workers' code, and the server that executes each command.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection


class Fate(IntEnum):
    """What becomes of a command. A connection delivers in order: what is behind a message that is held waits as well."""

    PASS = 0
    LOST_REPLY = 1
    """It is executed, and the connection breaks before the reply."""
    LOST_COMMAND = 2
    """The connection breaks before it is executed."""
    SILENCE = 3
    """It is executed, and neither its reply nor any later one on this connection comes."""
    SLOW = 4
    """It is executed when the second copy has been sent, and its reply comes in time."""
    LATE = 5
    """It is executed after all is over, as are later commands on this connection: nobody waits for it any more."""


SLOW_S = 0.07
"""Seconds that a slow command takes: more than half of the store's timeout, and less than the whole."""


class Schedule:
    """Decides by `choices`, in turn, and by the first option after them. `asked` is how many options each choice had."""

    def __init__(self, choices: Sequence[int] = ()) -> None:
        self._choices = choices
        self.asked: list[int] = []
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Schedule {' '.join(Fate(each).name for each in self._choices)} of {len(self.asked)} messages>"

    def choose(self, options: int) -> int:
        """Return one of so many options; after the end of the schedule always the first."""
        if self.is_over:
            return 0
        self.asked.append(options)
        at = len(self.asked) - 1
        return self._choices[at] if at < len(self._choices) else 0


def schedules(run: Callable[[Schedule], None], deviations: int) -> int:
    """Run every schedule with at most so many choices other than the first option; return how many there are."""
    waiting: list[tuple[int, ...]] = [()]
    count = 0
    while waiting:
        choices = waiting.pop()
        schedule = Schedule(choices)
        run(schedule)
        count += 1
        if sum(map(bool, choices)) < deviations:
            for at in range(len(choices), len(schedule.asked)):
                begin = choices + (0,) * (at - len(choices))
                waiting += [(*begin, option) for option in range(1, schedule.asked[at])]
    return count


class Network:
    """Connects workers with the server at `port`; `is_down` loses every command, whatever the schedule says."""

    def __init__(self, port: int, schedule: Schedule) -> None:
        self._server = socket.create_connection(("127.0.0.1", port))
        self._replies = self._server.makefile("rb")
        self._schedule = schedule
        self._late: list[bytes] = []
        self.is_down = False

    def pool(self) -> redis.asyncio.ConnectionPool:
        """Return a pool for a worker, all connections of which go through this network."""
        return _Pool(self)

    def fate(self) -> Fate:
        return Fate.LOST_COMMAND if self.is_down else Fate(self._schedule.choose(len(Fate)))

    def keep(self, command: bytes) -> None:
        """Keep a command that arrives when all is over."""
        self._late.append(command)

    def execute(self, command: bytes) -> bytes:
        """Let the server execute a command, and return its reply as it was sent."""
        self._server.sendall(command)
        header = self._replies.readline()
        return header + self._replies.read(int(header[1:]) + 2) if header.startswith(b"$") else header

    def deliver_late(self) -> None:
        """Let the server execute what was late."""
        for command in self._late:
            self.execute(command)
        self._late.clear()

    def close(self) -> None:
        self._replies.close()
        self._server.close()


class _Transport(asyncio.Transport):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network, self._loop = network, asyncio.get_running_loop()
        self._protocol: Any = asyncio.Protocol()
        self._is_closed = self._is_silent = self._is_held = False

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closed

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort

    def write(self, data: Any) -> None:
        command, fate = bytes(data), Fate.LATE if self._is_held else self._network.fate()
        self._is_silent |= fate == Fate.SILENCE
        self._is_held |= fate == Fate.LATE
        if fate == Fate.LATE:
            self._network.keep(command)
        elif fate == Fate.SLOW:
            self._loop.call_later(SLOW_S, self._execute, command)
        elif fate != Fate.LOST_COMMAND:
            self._execute(command, is_answered=fate == Fate.PASS)
        if fate in (Fate.LOST_COMMAND, Fate.LOST_REPLY):
            self.abort()

    def _execute(self, command: bytes, *, is_answered: bool = True) -> None:
        reply = self._network.execute(command)
        if is_answered and not self._is_silent:
            self._loop.call_soon(self._answer, reply)

    def _answer(self, reply: bytes) -> None:
        if not self._is_closed:
            self._protocol.data_received(reply)


class _Connection:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._writer: SimpleNamespace | None = None

    async def connect(self) -> None:
        self._writer = SimpleNamespace(transport=_Transport(self._network))

    async def disconnect(self, *, nowait: bool = False) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class _Pool(redis.asyncio.ConnectionPool):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    def make_connection(self) -> AbstractConnection:
        connection: Any = _Connection(self._network)
        return connection  # type: ignore[no-any-return]
