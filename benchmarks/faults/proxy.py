"""A proxy in front of a server that loses, cuts, delays or repeats its replies."""

import asyncio
import random
import re
from contextlib import suppress
from typing import Final

_COMMAND: Final = re.compile(rb"(?:^|\r\n)\*\d+\r\n")


class Proxy:
    """Forwards commands to `port`, and treats the replies by `mode`.

    `pass` forwards them; `lost` breaks the connection instead; `cut` breaks it in the middle of a reply; `twice` forwards a
    reply twice; `slow` forwards it after `delay` seconds; `loading` answers every command with `-LOADING`. `share` is the
    fraction of replies that a mode applies to.
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
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, server_writer}
        self._open |= ends
        try:
            await asyncio.gather(
                self._forward_commands(reader, server_writer, writer), self._forward_replies(server_reader, writer)
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._open -= ends

    async def _forward_commands(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self.mode == "loading":
                client.write(b"-LOADING Redis is loading the dataset in memory\r\n" * len(_COMMAND.findall(data)))
            else:
                server.write(data)
                await server.drain()
        raise ConnectionResetError

    async def _forward_replies(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            mode = self.mode if self._random.random() < self.share else "pass"
            if mode == "lost":
                raise ConnectionResetError
            if mode == "slow":
                await asyncio.sleep(self.delay)
            client.write(data[: len(data) // 2] if mode == "cut" else data * 2 if mode == "twice" else data)
            with suppress(ConnectionError):
                await client.drain()
            if mode == "cut":
                await asyncio.sleep(0)
                raise ConnectionResetError
        raise ConnectionResetError
