"""TLS in front of a server without TLS."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trustme

from tests.support.ports import free_port


class TlsProxy:
    """Accepts TLS connections for `localhost`, and other `addresses`, by a certificate of its own or a given authority."""

    def __init__(
        self, folder: Path, behind: int, authority: trustme.CA | None = None, addresses: Sequence[str] = ()
    ) -> None:
        self.port, self._behind = free_port(), behind
        authority = authority or trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", *addresses).configure_cert(self._context)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.taken = 0
        """Connections whose handshake was completed."""
        self.passed = 0
        """Bytes that clients sent."""

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}?ssl_ca_certs={self.authority}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, ssl=self._context)

    async def stop(self) -> None:
        """Close every connection and accept no more."""
        if self._server is not None:
            self._server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._between(reader, writer)
        finally:
            self._open.discard(task)
            await _closed(writer)

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        ways = [asyncio.create_task(self._forward(reader, back)), asyncio.create_task(_copy(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _closed(back)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.passed += len(data)
            writer.write(data)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()
