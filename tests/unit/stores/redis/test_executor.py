"""The script executor: each call is executed once, whatever happens to its replies; in virtual time.

`tests/behaviour/test_lost_replies.py` holds the same promise on a real Redis. Also tests
`stores.redis.pending_call`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from ratelimit.errors import StoreTimeout, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import Batcher
from ratelimit.stores.redis.connection import ErrorReply
from ratelimit.stores.redis.executor import ScriptExecutor
from ratelimit.stores.redis.in_doubt import InDoubtCalls
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import window_limit
from tests.support.virtual_time import VirtualLoop, virtually

TIMEOUT = 1.0
CHARGE = Charge(window_limit(5), "{a}k")


class Server:
    """Stands for a Redis: it executes the script once for each kept reply, and treats calls as `faults` says.

    A fault is for one call: `lost` (executed, no reply), `ignored` (neither), `closed` (neither, and the connection is
    closed), or the text of an error. Other calls are executed and answered; the next `refusals` of them are refused, whose
    replies are not kept.
    """

    def __init__(self) -> None:
        self.faults: deque[str] = deque()
        self.commands: list[list[bytes]] = []
        self.executed: list[bytes] = []
        self.charged = self.connections = 0
        self.is_known, self.is_refusing = True, False
        self.refusals = 0
        self._kept: dict[bytes, bytes] = {}

    def make_connection(self) -> Any:
        return Streams(self)

    def answer(self, command: list[bytes]) -> bytes | None:
        """Return the reply to a command, as it is sent; `None` for no reply, and no bytes to close the connection."""
        self.commands.append(command)
        if command[0] == b"ASKING":
            return b"+OK\r\n"
        fault = self.faults.popleft() if self.faults else ""
        if fault == "ignored":
            return None
        if fault == "closed":
            return b""
        if fault not in ("", "lost"):
            return b"-%b\r\n" % fault.encode()
        if command[0] == b"EVALSHA" and not self.is_known:
            return b"-NOSCRIPT No matching script\r\n"
        self.is_known = True
        reply = self.execute(command)
        return None if fault else b"$%d\r\n%b\r\n" % (len(reply), reply)

    def execute(self, command: list[bytes]) -> bytes:
        at = 3 + int(command[2])
        name, body, is_lookup = command[at - 1], command[at], len(command) > at + 1
        if name not in self._kept and not is_lookup and self.refusals:
            self.refusals -= 1
            *_, number = msgpack.unpackb(body)
            refusal: bytes = msgpack.packb([number, 99, 0, 1000, 500])
            return refusal
        if name not in self._kept and not is_lookup:
            self.executed.append(name)
            *_, requests, number = msgpack.unpackb(body)
            charges = count_charges(requests)
            self.charged += charges
            self._kept[name] = msgpack.packb([number, 99, *[4, 1000, 0] * charges])
        return self._kept.get(name, b"")


class Streams:
    """Stands for a connection of redis-py."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._writer: Any = None

    async def connect(self) -> None:
        if self._server.is_refusing:
            raise ConnectionRefusedError
        self._server.connections += 1
        self._writer = SimpleNamespace(transport=Transport(self._server))

    async def disconnect(self, *, nowait: bool = False) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class Transport(asyncio.Transport):
    """Hands each command to the server, and its reply to the protocol in the next turn of the event loop."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._protocol: Any = asyncio.Protocol()
        self._is_closing = False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        reply = self._server.answer(parse(bytes(data)))
        if reply:
            asyncio.get_running_loop().call_soon(self._protocol.data_received, reply)
        elif reply is not None:
            self.abort()

    def abort(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


def count_charges(requests: list[int]) -> int:
    """Return the number of charges in the flat list of a call's requests."""
    charges = at = 0
    while at < len(requests):
        operation, count = requests[at : at + 2]
        at += (4 if operation >= Operation.ACQUIRE else 2) + 3 * count
        charges += count
    return charges


def parse(data: bytes) -> list[bytes]:
    """Return the arguments of one encoded command."""
    first, _, rest = data.partition(b"\r\n")
    arguments = list[bytes]()
    for _ in range(int(first[1:])):
        size, _, rest = rest.partition(b"\r\n")
        arguments.append(rest[: int(size[1:])])
        rest = rest[int(size[1:]) + 2 :]
    return arguments


class Executor(ScriptExecutor):
    """An executor with the in-doubt calls that belong to it, as the client for a single server has them."""

    def __init__(self, server: Server, clock: ManualClock | None = None) -> None:
        batcher = Batcher(self.send)
        self.in_doubt = InDoubtCalls(self.look_up, batcher.submit, TIMEOUT)
        super().__init__(server.make_connection, clock, TIMEOUT, self.in_doubt)

    @property
    def is_settled(self) -> bool:
        return super().is_settled and self.in_doubt.is_empty


async def send(executor: ScriptExecutor, *requests: StoreRequest, asking: bool = False) -> Any:
    """Return the result of a call."""
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    executor.send(requests, result.set_result, asking=asking)
    return await result


def with_server(
    play: Callable[[Server, Executor], Coroutine[Any, Any, None]], clock: ManualClock | None = None
) -> None:
    """Run `play` with an executor on a new server."""

    async def whole(loop: VirtualLoop) -> None:
        server = Server()
        executor = Executor(server, clock)
        await play(server, executor)
        await executor.aclose()

    virtually(whole)


def readings(result: Any) -> list[Any]:
    assert isinstance(result, Sequence), result
    return [list(reply.readings) for reply in result]


def test_calls_share_one_connection_and_have_names_of_their_own() -> None:
    """Each call carries another idempotency key, so the reply of one is never taken for that of another."""

    async def play(server: Server, executor: Executor) -> None:
        results = await asyncio.gather(*(send(executor, StoreRequest([CHARGE])) for _ in range(3)))
        assert [readings(result) for result in results] == [[[(4, 1000, 0)]]] * 3
        assert (server.connections, len(set(server.executed))) == (1, 3)
        assert executor.is_settled

    with_server(play)


def test_a_script_that_the_server_does_not_know_is_sent_in_full_once() -> None:
    """After a restart of the server, or SCRIPT FLUSH."""

    async def play(server: Server, executor: Executor) -> None:
        server.is_known = False
        for _ in range(2):
            assert readings(await send(executor, StoreRequest([CHARGE]))) == [[(4, 1000, 0)]]
        assert [command[0] for command in server.commands] == [b"EVALSHA", b"EVAL", b"EVALSHA"]
        assert len(server.executed) == 2

    with_server(play)


def test_a_call_whose_reply_is_lost_is_sent_once_more() -> None:
    """After half of its time, on a second connection; it is executed once, and the good connection is kept."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["lost"]
        assert readings(await send(executor, StoreRequest([CHARGE]))) == [[(4, 1000, 0)]]
        assert asyncio.get_running_loop().time() == TIMEOUT / 2
        assert (len(server.commands), len(server.executed), server.connections) == (2, 1, 2)
        await send(executor, StoreRequest([CHARGE]))
        assert server.connections == 2

    with_server(play)


def test_a_call_whose_connection_is_closed_is_sent_once_more_at_once() -> None:
    """On a new connection, without a wait."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["closed"]
        assert readings(await send(executor, StoreRequest([CHARGE]))) == [[(4, 1000, 0)]]
        assert (asyncio.get_running_loop().time(), server.connections, len(server.executed)) == (0.0, 2, 1)

    with_server(play)


def test_a_call_without_a_reply_is_in_doubt_and_looked_up_later() -> None:
    """Its caller goes on after the timeout; `on_orphaned` gets what was done, from the kept reply."""
    orphaned = list[Any]()

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["lost", "ignored"]
        request = StoreRequest([CHARGE], on_orphaned=lambda _, reply: orphaned.append(reply))
        assert isinstance(await send(executor, request), StoreTimeout)
        assert asyncio.get_running_loop().time() == TIMEOUT
        assert not executor.is_settled
        assert await executor.in_doubt.resolve()
        assert [type(reply) for reply in orphaned] == [StoreReply]
        assert [list(reply.readings) for reply in orphaned] == [[(4, 1000, 0)]]
        assert (len(server.executed), executor.is_settled) == (1, True)

    with_server(play)


def test_the_next_reply_starts_the_look_up() -> None:
    """The server answers again: nothing else is waited for."""
    orphaned = list[Any]()

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["lost", "ignored"]
        await send(executor, StoreRequest([CHARGE], on_orphaned=lambda _, reply: orphaned.append(reply)))
        await send(executor, StoreRequest([CHARGE]))
        for _ in range(4):
            await asyncio.sleep(0)
        assert (len(orphaned), executor.is_settled) == (1, True)

    with_server(play)


@pytest.mark.parametrize(("operation", "executions"), [(Operation.CHARGE, 0), (Operation.ADJUST, 1)])
def test_a_call_that_was_not_executed_is_sent_again_only_if_it_is_a_correction(
    operation: Operation, executions: int
) -> None:
    """The caller of a charge has decided without it; a correction is still due."""
    orphaned = list[Any]()

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["ignored", "ignored"]
        request = StoreRequest([CHARGE], operation, 0, 0, lambda _, reply: orphaned.append(reply))
        assert isinstance(await send(executor, request), StoreTimeout)
        assert await executor.in_doubt.resolve()
        assert (len(server.executed), orphaned) == (executions, [])

    with_server(play)


def test_a_server_that_is_no_master_any_more_is_left() -> None:
    """It has done nothing: the call goes to a new connection, which may lead to the new master."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["READONLY You can't write against a read only replica."]
        assert readings(await send(executor, StoreRequest([CHARGE]))) == [[(4, 1000, 0)]]
        assert (server.connections, len(server.executed)) == (2, 1)
        server.faults += ["READONLY no", "READONLY no"]
        assert isinstance(await send(executor, StoreRequest([CHARGE])), ErrorReply)

    with_server(play)


def test_a_redirection_is_handed_on_and_nothing_is_in_doubt() -> None:
    """The Cluster client sends the call to the node that is named, with ASKING where it is importing the hash slot."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["ASK 1 other:6379"]
        result = await send(executor, StoreRequest([CHARGE]))
        assert isinstance(result, ErrorReply)
        assert (result.code, executor.is_settled) == ("ASK", True)
        assert readings(await send(executor, StoreRequest([CHARGE]), asking=True)) == [[(4, 1000, 0)]]
        assert [command[0] for command in server.commands] == [b"EVALSHA", b"ASKING", b"EVALSHA"]

    with_server(play)


def test_a_server_that_refuses_connections_fails_a_call_at_once() -> None:
    """Nothing was sent: a charge is not in doubt, and a correction, which is due, is."""

    async def play(server: Server, executor: Executor) -> None:
        server.is_refusing = True
        assert isinstance(await send(executor, StoreRequest([CHARGE])), StoreUnavailable)
        await asyncio.sleep(0)
        assert (asyncio.get_running_loop().time(), executor.is_settled) == (0.0, True)
        assert isinstance(await send(executor, StoreRequest([CHARGE], Operation.ADJUST)), StoreUnavailable)
        assert not executor.is_settled
        server.is_refusing = False
        assert await executor.in_doubt.resolve()
        assert len(server.executed) == 1

    with_server(play)


def test_a_reply_of_another_call_is_not_taken() -> None:
    """The replies after it may belong to any call, so the connection is closed and the call sent once more."""

    class Repeating(Server):
        """Answers every call on its first connection with the reply to the first one."""

        first: bytes | None = None

        def answer(self, command: list[bytes]) -> bytes | None:
            reply = super().answer(command)
            self.first = self.first or reply
            return self.first if self.connections == 1 else reply

    async def play(loop: VirtualLoop) -> None:
        server = Repeating()
        executor = Executor(server)
        await send(executor, StoreRequest([CHARGE]))
        assert readings(await send(executor, StoreRequest([CHARGE]))) == [[(4, 1000, 0)]]
        assert (server.connections, len(server.executed)) == (2, 2)
        await executor.aclose()

    virtually(play)


def test_an_injected_clock_goes_with_the_call(clock: ManualClock) -> None:
    """The script counts by it, and replies are dated by it; without one the server's own time counts."""

    async def play(server: Server, executor: Executor) -> None:
        (reply,) = await send(executor, StoreRequest([CHARGE]))
        now, ttl_floor, *_ = msgpack.unpackb(server.commands[0][5])
        assert (now, reply.now, reply.store_ms) == (clock() // 1000, clock(), 99)
        assert ttl_floor == 86_400_000

    with_server(play, clock)


def test_a_call_that_does_not_name_the_key_of_its_reply_is_sent_once() -> None:
    """The server may be unable to keep the reply: sent again, the call would be executed again."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["lost"]
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        executor.send([StoreRequest([CHARGE])], result.set_result, names_reply_key=False)
        assert isinstance(await result, StoreTimeout)
        (command,) = server.commands
        assert command[2:4] == [b"1", b"{a}k"]
        assert command[-2:-1] == [b"unnamed"]

    with_server(play)


def test_a_call_on_a_connection_that_is_left_goes_to_the_one_that_answers() -> None:
    """A second connection is opened at most once in a second, but the call needs none: there is an open one."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["ignored", "ignored"]
        first = asyncio.create_task(send(executor, StoreRequest([CHARGE])))
        await asyncio.sleep(TIMEOUT * 0.3)
        second = asyncio.create_task(send(executor, StoreRequest([CHARGE])))
        async with asyncio.timeout(2 * TIMEOUT):
            results = await asyncio.gather(first, second)
        assert [readings(result) for result in results] == [[[(4, 1000, 0)]]] * 2
        assert server.connections == 2

    with_server(play)


def test_a_refused_call_that_was_sent_twice_is_never_done_later() -> None:
    """The copy that is still on its way may find room: it is looked up, and what it has charged is given back."""
    orphaned = list[Any]()

    async def play(server: Server, executor: Executor) -> None:
        request = StoreRequest([CHARGE], on_orphaned=lambda _, reply: orphaned.append(reply))
        server.faults += ["ignored"]
        server.refusals = 1
        assert readings(await send(executor, request)) == [[(0, 1000, 500)]]
        server.execute(server.commands[0])  # The first copy arrives.
        assert await executor.in_doubt.resolve()
        assert server.commands[-1][-1] == b"lookup"
        assert [list(reply.readings) for reply in orphaned] == [[(4, 1000, 0)]]

    with_server(play)


def test_an_admitted_call_that_was_sent_twice_is_not_looked_up() -> None:
    """Its reply is kept, so the other copy charges nothing."""

    async def play(server: Server, executor: Executor) -> None:
        server.faults += ["ignored"]
        await send(executor, StoreRequest([CHARGE]))
        assert executor.in_doubt.is_empty

    with_server(play)


@pytest.mark.parametrize("redirect", ["MOVED 1 other:6379", "TRYAGAIN Multiple keys"])
def test_a_second_copy_that_is_redirected_leaves_the_call_in_doubt(redirect: str) -> None:
    """The first copy may have been executed: sent to another node under another name, the call would be made twice."""
    orphaned = list[Any]()

    async def play(server: Server, executor: Executor) -> None:
        request = StoreRequest([CHARGE], on_orphaned=lambda _, reply: orphaned.append(reply))
        server.faults += ["lost", redirect]
        assert isinstance(await send(executor, request), StoreTimeout)
        assert await executor.in_doubt.resolve()
        assert (len(server.executed), len(orphaned)) == (1, 1)

    with_server(play)
