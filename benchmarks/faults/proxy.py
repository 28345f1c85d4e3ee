"""A proxy in front of a server that loses, cuts, delays or repeats its replies, or holds its commands back."""

import asyncio
import random
import re
from contextlib import suppress
from typing import Final

_COMMAND: Final = re.compile(rb"(?:^|\r\n)\*\d+\r\n")


class Proxy:
    """Forwards commands to `port`, and treats the replies by `mode`.

    `pass` forwards them; `lost` breaks the connection instead; `cut` breaks it in the middle of a reply; `twice` forwards a
    reply twice; `slow` forwards it after `delay` seconds; `loading` answers every command with `-LOADING`; `late` holds
    commands back for `delay` seconds, and with them their connection; `far` forwards everything after half of `delay`.
    `share` is the fraction of replies (`late`: commands) that a mode applies to.

    `connections` counts those that were accepted, and `open_connections` those that are open.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.mode, self.share, self.delay = "pass", 1.0, 0.2
        self._random = random.Random(7)
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = self.connections = 0
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def open_connections(self) -> int:
        """The number of clients that are connected."""
        return len(self._open) // 2

    def stall(self) -> None:
        """Forward nothing, in either direction, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again, also what was held back."""
        self._flowing.set()

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
        self.connections += 1
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
            await self._flowing.wait()
            if self.mode == "loading":
                client.write(b"-LOADING Redis is loading the dataset in memory\r\n" * len(_COMMAND.findall(data)))
                continue
            if self.mode == "late" and self._random.random() < self.share:
                await asyncio.sleep(self.delay)
            await self._write(server, data)
        raise ConnectionResetError

    async def _forward_replies(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            await self._flowing.wait()
            mode = self.mode if self._random.random() < self.share else "pass"
            if mode == "lost":
                raise ConnectionResetError
            if mode == "slow":
                await asyncio.sleep(self.delay)
            await self._write(
                client, data[: len(data) // 2] if mode == "cut" else data * 2 if mode == "twice" else data
            )
            if mode == "cut":
                await asyncio.sleep(0)
                raise ConnectionResetError
        raise ConnectionResetError

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.mode == "far":
            asyncio.get_running_loop().call_later(self.delay / 2, _write_open, writer, data)
            return
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()


def _write_open(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
