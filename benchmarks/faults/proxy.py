"""A proxy in front of a server that loses, cuts, delays or repeats its replies, or holds its commands back."""

import asyncio
import random
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_COMMAND: Final = re.compile(rb"(?:^|\r\n)\*\d+\r\n")
_GARBAGE: Final = b"\x15\x03\x00 this is no reply\r\n\xff\xfe"
_TLS_HANDSHAKE: Final = b"\x16"
"""The first byte that a client sends that wants TLS."""

CLIENTS_ADDRESS: Final = "127.0.0.1"
"""The address from which clients connect; servers connect from others."""


def is_client(address: str) -> bool:
    """Return whether a connection from `address` is a client's, and not another server's."""
    return address == CLIENTS_ADDRESS


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.address: str = client.get_extra_info("peername")[0]
        self.is_silent = False

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Forwards commands to `port`, and treats the replies to clients by `mode`.

    `pass` forwards them; `lost` breaks the connection instead; `reset` does so with a TCP reset; `cut` breaks it in the
    middle of a reply; `twice` forwards a reply twice; `garbage` forwards other bytes instead; `bytes` forwards each byte by
    itself; `slow` forwards it after `delay` seconds; `loading` answers every command with `-LOADING`; `late` holds commands
    back for `delay` seconds, and with them their connection; `far` forwards everything after half of `delay`. `share` is the
    fraction of replies (`late`: commands) that a mode applies to. A connection takes `connecting` seconds longer.

    `listening_at` is the proxy's own port (0: any), `tls` the port of a terminator to which connections with TLS go.
    `connections` counts those that were accepted, and `open_connections` those that are open.
    """

    def __init__(self, port: int, listening_at: int = 0, tls: int = 0) -> None:
        self._server_port, self._tls = port, tls
        self.mode, self.share, self.delay, self.connecting = "pass", 1.0, 0.2, 0.0
        self._random = random.Random(7)
        self._listening: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.port, self.connections = listening_at, 0
        self._is_held: Callable[[str], bool] | None = None
        self._flowing = asyncio.Event()

    @property
    def open_connections(self) -> int:
        """The number of clients that are connected."""
        return len(self._links)

    def stall(self, is_held: Callable[[str], bool] = is_client) -> None:
        """Forward nothing, in either direction, of connections from the addresses that are held, until `flow`."""
        self._is_held = is_held
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again, also what was held back."""
        self._is_held = None
        self._flowing.set()

    def silence(self) -> None:
        """Drop everything, in either direction, of the clients' connections that are open now; new ones work."""
        for link in self._links:
            link.is_silent = is_client(link.address)

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and break those that are open."""
        if self._listening is not None:
            self._listening.close()
        for link in list(self._links):
            link.abort()
        for client in self._clients:  # Also those for which it is still connecting.
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Nothing waits for this task.
        finally:
            writer.transport.abort()
            self._clients.discard(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.connecting)
        first = await reader.read(1) if self._tls else b""
        port = self._tls if first == _TLS_HANDSHAKE else self._server_port
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        if writer.is_closing():  # The proxy was stopped.
            server_writer.transport.abort()
            return
        server_writer.write(first)
        self.connections += 1
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._forward_commands(reader, link), self._forward_replies(server_reader, link))
        finally:
            link.abort()
            self._links.discard(link)

    async def _let_flow(self, link: _Link) -> bool:
        """Wait while the link is held, and return whether it forwards anything."""
        while self._is_held is not None and self._is_held(link.address):
            await self._flowing.wait()
        return not link.is_silent

    def _mode_of(self, link: _Link) -> str:
        return self.mode if is_client(link.address) else "pass"

    async def _forward_commands(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await reader.read(65536):
            if not await self._let_flow(link):
                continue
            mode = self._mode_of(link)
            if mode == "loading":
                link.client.write(b"-LOADING Redis is loading the dataset in memory\r\n" * len(_COMMAND.findall(data)))
                continue
            if mode == "late" and self._random.random() < self.share:
                await asyncio.sleep(self.delay)
            await self._write(link.server, data, mode)
        raise ConnectionResetError

    async def _forward_replies(self, server: asyncio.StreamReader, link: _Link) -> None:
        while data := await server.read(65536):
            if await self._let_flow(link):
                mode = self._mode_of(link)
                await self._reply(link, data, mode if self._random.random() < self.share else "pass")
        raise ConnectionResetError

    async def _reply(self, link: _Link, data: bytes, mode: str) -> None:
        if mode == "reset":
            reset(link.client)
        if mode in ("lost", "reset"):
            raise ConnectionResetError
        if mode == "slow":
            await asyncio.sleep(self.delay)
        for part in _as_forwarded(data, mode):
            await self._write(link.client, part, mode)
        if mode == "cut":
            await asyncio.sleep(0)
            raise ConnectionResetError

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, mode: str) -> None:
        if mode == "far":
            asyncio.get_running_loop().call_later(self.delay / 2, _write_open, writer, data)
            return
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()


def _as_forwarded(data: bytes, mode: str) -> list[bytes]:
    """Return the parts in which a reply is forwarded."""
    if mode == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    other = {"cut": data[: len(data) // 2], "twice": data * 2, "garbage": _GARBAGE}
    return [other.get(mode, data)]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a TCP reset."""
    no_linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    writer.transport.abort()


def _write_open(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
