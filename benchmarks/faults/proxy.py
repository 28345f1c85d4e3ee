"""A proxy in front of a server that loses, cuts, delays and repeats what the server answers."""

import asyncio
import random
import re
from contextlib import suppress
from typing import Final

_COMMAND: Final = re.compile(rb"(?:^|\r\n)\*\d+\r\n")


class Proxy:
    """Forwards to `port` until `mode` says otherwise.

    `pass`; `lost`: the connection breaks instead of the reply, `share` of the times; `cut`: it breaks in the middle of
    the reply; `twice`: the reply comes twice; `slow`: it comes `delay` seconds later; `loading`: every command is
    answered with `-LOADING`.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.mode, self.share, self.delay = "pass", 1.0, 0.2
        self._random = random.Random(7)
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and break those that are open."""
        if self._listening is not None:
            self._listening.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, away = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, away}
        self._open |= ends
        try:
            await asyncio.gather(self._ask(reader, away, writer), self._answer(there, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._open -= ends

    async def _ask(self, reader: asyncio.StreamReader, away: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.mode == "loading":
                back.write(b"-LOADING Redis is loading the dataset in memory\r\n" * len(_COMMAND.findall(data)))
            else:
                away.write(data)
                await away.drain()
        raise ConnectionResetError

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            mode = self.mode if self._random.random() < self.share else "pass"
            if mode == "lost":
                raise ConnectionResetError
            if mode == "slow":
                await asyncio.sleep(self.delay)
            writer.write(data[: len(data) // 2] if mode == "cut" else data * 2 if mode == "twice" else data)
            with suppress(ConnectionError):
                await writer.drain()
            if mode == "cut":
                await asyncio.sleep(0)
                raise ConnectionResetError
        raise ConnectionResetError
