"""Pipelined connections: replies in the order of the calls, however they are cut; a failure reaches every pending call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.redis.connection import ErrorReply, PipelinedConnection
from tests.support.virtual_time import virtually


class Connection:
    """Stands for a connection of redis-py: streams to a server that has accepted the login."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connected = 0
        self._writer: Any = None

    async def connect(self) -> None:
        self.connected += 1
        _, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def disconnect(self, *, nowait: bool = False) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            if not nowait:
                await writer.wait_closed()


class Server:
    """Sends what the test hands it, whatever the calls were."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writers[-1].write(part)
            await self.writers[-1].drain()
            for _ in range(3):
                await asyncio.sleep(0)


@asynccontextmanager
async def connected(*, coalesces: bool = False) -> AsyncIterator[tuple[PipelinedConnection, Server, Connection]]:
    """Yield a connection, its server, and what stands for redis-py's connection."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    streams: Any = Connection(listening.sockets[0].getsockname()[1])
    connection = PipelinedConnection(streams, coalesces=coalesces)
    await connection.connect()
    async with asyncio.timeout(60):
        while not server.writers:  # noqa: ASYNC110 - the other end of a real connection
            await asyncio.sleep(0)
    try:
        yield connection, server, streams
    finally:
        await connection.aclose()
        listening.close()
        await listening.wait_closed()


def calls(connection: PipelinedConnection, times: int, timeout: float = 60) -> list["asyncio.Future[Any]"]:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(times)]
    for future in futures:
        connection.call(b"x", future.set_result, loop.time() + timeout)
    return futures


async def all_of(futures: list["asyncio.Future[Any]"]) -> list[Any]:
    async with asyncio.timeout(60):
        return [await future for future in futures]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
async def test_replies_are_put_together(cut: int) -> None:
    """Wherever the network cuts them: bulk strings that hold line ends, empty ones, and errors, in order."""
    replies = b"$3\r\na\r\n\r\n$0\r\n\r\n-ERR no\r\n$5\r\nhello\r\n"
    async with connected() as (connection, server, _):
        futures = calls(connection, 4)
        await server.send(*(replies[at : at + cut] for at in range(0, len(replies), cut)))
        first, empty, error, last = await all_of(futures)
        assert (first, empty, last) == (b"a\r\n", b"", b"hello")
        assert isinstance(error, ErrorReply)
        assert (error.code, str(error)) == ("ERR", "the store answered ERR no [RL406]")


@pytest.mark.parametrize(
    "reply", [b":5\r\n", b"*1\r\n$1\r\na\r\n", b"$-1\r\n", b"%1\r\n", b"HTTP/1.1 400\r\n", b"\r\n"]
)
async def test_a_reply_of_another_type_closes_the_connection(reply: bytes) -> None:
    """Replies after it cannot be attributed to a call: every pending call fails, and the next one connects again."""
    async with connected() as (connection, server, streams):
        futures = calls(connection, 2)
        await server.send(reply)
        errors = await all_of(futures)
        assert [type(error) for error in errors] == [StoreError, StoreError]
        assert not connection.is_open
        await connection.connect()
        assert streams.connected == 2
        (future,) = calls(connection, 1)
        async with asyncio.timeout(60):
            while len(server.writers) < 2:  # noqa: ASYNC110 - the other end of a real connection
                await asyncio.sleep(0)
        await server.send(b"$2\r\nok\r\n")
        assert await all_of([future]) == [b"ok"]


async def test_a_reply_without_a_call_closes_the_connection() -> None:
    """It would be taken for the reply to the next call."""
    async with connected() as (connection, server, _):
        futures = calls(connection, 1)
        await server.send(b"$1\r\na\r\n$1\r\nb\r\n")
        assert await all_of(futures) == [b"a"]
        await asyncio.sleep(0)
        assert not connection.is_open


async def test_an_overdue_reply_closes_the_connection() -> None:
    """Every pending call gets `StoreTimeout`: the replies that follow would come late as well."""
    async with connected() as (connection, _, _):
        early, late = calls(connection, 1, timeout=0.02), calls(connection, 1, timeout=60)
        errors = await all_of([*early, *late])
        assert [type(error) for error in errors] == [StoreTimeout, StoreTimeout]
        assert not connection.is_open


async def test_a_reply_in_time_leaves_the_next_deadline() -> None:
    """The deadline of a call that was answered does not end the next call."""
    async with connected() as (connection, server, _):
        first, second = calls(connection, 1, timeout=0.05), calls(connection, 1, timeout=60)
        await server.send(b"$1\r\na\r\n")
        assert await all_of(first) == [b"a"]
        await asyncio.sleep(0.1)  # Beyond the first deadline, which goes by the event loop's clock.
        assert connection.is_open
        await server.send(b"$1\r\nb\r\n")
        assert await all_of(second) == [b"b"]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_server_that_closes_the_connection(end: str) -> None:
    """Every pending call gets `StoreUnavailable`, half a reply or not, and so does a call on the closed connection."""
    async with connected() as (connection, server, _):
        futures = calls(connection, 2)
        await server.send(b"$5\r\nhal")
        hang_up: Callable[[], None] = getattr(server.writers[0].transport, end)
        hang_up()
        assert [type(error) for error in await all_of(futures)] == [StoreUnavailable] * 2
        assert not connection.is_open
        assert [type(error) for error in await all_of(calls(connection, 1))] == [StoreUnavailable]


async def test_connecting_goes_on_without_its_caller_and_ends_with_the_connection() -> None:
    """A cancelled caller ends no attempt, which the next caller waits for; closing the connection ends it."""
    closed = list[bool]()

    class Slow(Connection):
        async def connect(self) -> None:
            await asyncio.Event().wait()

        async def disconnect(self, *, nowait: bool = False) -> None:
            closed.append(nowait)

    streams: Any = Slow(1)
    connection = PipelinedConnection(streams)
    for _ in range(2):
        task = asyncio.create_task(connection.connect())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert closed == [True]
    await connection.aclose()
    assert closed == [True, True, False]


def test_an_attempt_to_connect_has_an_end() -> None:
    """It fails after the connect timeout, and closes what it has opened."""
    closed = list[bool]()

    class Hanging(Connection):
        async def connect(self) -> None:
            await asyncio.Event().wait()

        async def disconnect(self, *, nowait: bool = False) -> None:
            closed.append(nowait)

    async def play() -> None:
        streams: Any = Hanging(1)
        connection = PipelinedConnection(streams, connect_timeout=2.0)
        with pytest.raises(StoreTimeout):
            await connection.connect()
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert closed == [True, True]

    virtually(lambda _: play())


async def test_an_aborted_connection_fails_its_calls_and_connects_again() -> None:
    """`abort` is for a reply that belongs to another call: the replies after it may be wrong as well."""
    async with connected() as (connection, _, streams):
        futures = calls(connection, 2)
        connection.abort()
        assert [type(error) for error in await all_of(futures)] == [StoreUnavailable] * 2
        assert not connection.is_open
        await connection.connect()
        await connection.connect()
        assert (connection.is_open, streams.connected) == (True, 2)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("OOM command not allowed", "OOM", "the store answered OOM command not allowed"),
        ("NOAUTH Authentication required.", "NOAUTH", "the store refused the login: NOAUTH Authentication required."),
        ("-OOM x script: abc, on @user_script:7.", "-OOM", "the store answered -OOM x script: abc, on @user_script:7."),
        (
            "ERR Error running script (call to f_1): @user_script:9: @user_script: 9: -READONLY You can't write",
            "READONLY",
            "the store answered -READONLY You can't write",
        ),
    ],
)
def test_an_error_reply_has_the_code_of_the_innermost_error(text: str, code: str, message: str) -> None:
    """An error that stops a script is reported inside the script's own error, behind the line that raised it."""
    error = ErrorReply(text)
    assert (error.code, str(error)) == (code, f"{message} [{'RL405' if code == 'NOAUTH' else 'RL406'}]")


async def test_calls_of_one_turn_go_out_in_one_write() -> None:
    """Where they are coalesced; each gets its own reply, and what was not written yet fails with the connection."""
    replies: list[Any] = []
    async with connected(coalesces=True) as (connection, server, streams):
        written: list[bytes] = []
        transport = streams._writer.transport
        write = transport.write

        def written_out(data: bytes) -> None:
            written.append(data)
            write(data)

        transport.write = written_out
        deadline = asyncio.get_running_loop().time() + 5
        for command in (b"PING a\r\n", b"PING b\r\n", b"PING c\r\n"):
            connection.call(command, replies.append, deadline)
        assert written == []
        await asyncio.sleep(0)
        assert written == [b"PING a\r\nPING b\r\nPING c\r\n"]
        await server.send(b"+1\r\n+2\r\n$1\r\n3\r\n")
        async with asyncio.timeout(60):
            while len(replies) < 3:  # noqa: ASYNC110 - the other end of a real connection
                await asyncio.sleep(0)
        assert replies == [b"1", b"2", b"3"]
        connection.call(b"PING d\r\n", replies.append, deadline)
        connection.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(replies[3], StoreUnavailable)
