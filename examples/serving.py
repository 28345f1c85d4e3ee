"""Starts an example under uvicorn, for those that show it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


class DemoError(Exception):
    """Says what did not happen as it should."""


@asynccontextmanager
async def serving(app: str, **environment: str) -> AsyncIterator[str]:
    """Serve an app on a port of its own and yield its address."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 - our own server, with our own arguments
        [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"],
        env={**os.environ, **environment},
    )
    try:
        await ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ready(url: str, process: subprocess.Popen[bytes]) -> None:
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
    msg = "the server did not start; what it said stands above"
    raise DemoError(msg)
