"""The line: replies in the order of the calls, however they are cut; what breaks reaches everybody who waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.line import Line, Refused


class Connection:
    """What redis-py would bring: streams to a server that has let us in."""

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
    """Says what it is told to say, whatever is asked."""

    def __init__(self) -> None:
        self.heard = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while data := await reader.read(65536):
            self.heard += data
        writer.close()

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writers[-1].write(part)
            await self.writers[-1].drain()
            for _ in range(3):
                await asyncio.sleep(0)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Line, Server, Connection]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    connection: Any = Connection(listening.sockets[0].getsockname()[1])
    line = Line(connection)
    await line.connect()
    async with asyncio.timeout(10):
        while not server.writers:  # noqa: ASYNC110 - the other end of a real connection
            await asyncio.sleep(0)
    try:
        yield line, server, connection
    finally:
        await line.aclose()
        listening.close()
        await listening.wait_closed()


def asking(line: Line, times: int, timeout: float = 10) -> list["asyncio.Future[Any]"]:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(times)]
    for future in futures:
        line.call(b"x", future.set_result, loop.time() + timeout)
    return futures


async def all_of(futures: list["asyncio.Future[Any]"]) -> list[Any]:
    async with asyncio.timeout(10):
        return [await future for future in futures]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
async def test_replies_are_put_together(cut: int) -> None:
    """Wherever the network cuts them: bulk strings that hold line ends, empty ones, and errors, in order."""
    said = b"$3\r\na\r\n\r\n$0\r\n\r\n-ERR no\r\n$5\r\nhello\r\n"
    async with connected() as (line, server, _):
        futures = asking(line, 4)
        await server.say(*(said[at : at + cut] for at in range(0, len(said), cut)))
        first, empty, error, last = await all_of(futures)
        assert (first, empty, last) == (b"a\r\n", b"", b"hello")
        assert isinstance(error, Refused)
        assert (error.code, str(error)) == ("ERR", "the store answered ERR no")


@pytest.mark.parametrize("said", [b":5\r\n", b"*1\r\n$1\r\na\r\n", b"$-1\r\n", b"%1\r\n", b"HTTP/1.1 400\r\n", b"\r\n"])
async def test_what_was_not_asked_for_breaks_the_line(said: bytes) -> None:
    """Nothing that follows it can be told apart: everybody who waits hears of it, and the next call connects anew."""
    async with connected() as (line, server, connection):
        futures = asking(line, 2)
        await server.say(said)
        errors = await all_of(futures)
        assert [type(error) for error in errors] == [StoreError, StoreError]
        assert not line.open
        await line.connect()
        assert connection.connected == 2
        (future,) = asking(line, 1)
        async with asyncio.timeout(10):
            while len(server.writers) < 2:  # noqa: ASYNC110 - the other end of a real connection
                await asyncio.sleep(0)
        await server.say(b"$2\r\nok\r\n")
        assert await all_of([future]) == [b"ok"]


async def test_an_answer_that_nobody_asked_for_breaks_the_line() -> None:
    """A reply too many would be taken for the next one's."""
    async with connected() as (line, server, _):
        futures = asking(line, 1)
        await server.say(b"$1\r\na\r\n$1\r\nb\r\n")
        assert await all_of(futures) == [b"a"]
        await asyncio.sleep(0)
        assert not line.open


async def test_what_is_overdue_breaks_the_line() -> None:
    """Everybody who waits on it gets `StoreTimeout`: the replies that follow would come late as well."""
    async with connected() as (line, _, _):
        early, late = asking(line, 1, timeout=0.02), asking(line, 1, timeout=60)
        errors = await all_of([*early, *late])
        assert [type(error) for error in errors] == [StoreTimeout, StoreTimeout]
        assert not line.open


async def test_a_reply_in_time_moves_the_watch_on() -> None:
    """The deadline of a call that was answered says nothing about the next."""
    async with connected() as (line, server, _):
        first, second = asking(line, 1, timeout=0.05), asking(line, 1, timeout=60)
        await server.say(b"$1\r\na\r\n")
        assert await all_of(first) == [b"a"]
        await asyncio.sleep(0.1)  # The first one's deadline, by the loop's own clock.
        assert line.open
        await server.say(b"$1\r\nb\r\n")
        assert await all_of(second) == [b"b"]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_server_that_hangs_up(end: str) -> None:
    """Everybody who waits gets `StoreUnavailable`, half a reply or not, and so does who calls before it is known."""
    async with connected() as (line, server, _):
        futures = asking(line, 2)
        await server.say(b"$5\r\nhal")
        hang_up: Callable[[], None] = getattr(server.writers[0].transport, end)
        hang_up()
        assert [type(error) for error in await all_of(futures)] == [StoreUnavailable] * 2
        assert not line.open
        assert [type(error) for error in await all_of(asking(line, 1))] == [StoreUnavailable]


async def test_a_connection_that_is_cut_off_is_closed() -> None:
    """Whoever gives up while connecting leaves nothing open."""
    closed = list[bool]()

    class Slow(Connection):
        async def connect(self) -> None:
            await asyncio.Event().wait()

        async def disconnect(self, *, nowait: bool = False) -> None:
            closed.append(nowait)

    connection: Any = Slow(1)
    task = asyncio.create_task(Line(connection).connect())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert closed == [True, True]
