"""A real uvicorn around `tests.support.apps`, on a port of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.support.ports import free_port
from tests.support.redis_server import pause


@contextmanager
def uvicorn(settings: dict[str, Any], *options: str, app: str = "tests.support.apps:app") -> Iterator[str]:
    """Serve the app with these settings and yield its address; fails if it does not come up."""
    with uvicorn_process(settings, *options, app=app) as (url, _):
        yield url


@contextmanager
def uvicorn_process(
    settings: dict[str, Any], *options: str, app: str = "tests.support.apps:app"
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve as `uvicorn` does, and yield the process too."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", *options]
    process = subprocess.Popen(command, env={**os.environ, "RATELIMIT": json.dumps(settings)})
    try:
        wait_for(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait()


def wait_for(process: "subprocess.Popen[bytes]", url: str) -> None:
    for _ in range(1500):
        assert process.poll() is None, "uvicorn ended at once"
        try:
            httpx2.get(f"{url}/none", timeout=5)
        except httpx2.TransportError:
            pause()
        else:
            return
    msg = "uvicorn did not come up"
    raise AssertionError(msg)
