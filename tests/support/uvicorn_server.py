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
from tests.support.waiting import until


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
    """Wait until a server answers."""
    until(lambda: _responds(process, url), f"{process.args!r} did not come up")


def _responds(process: "subprocess.Popen[bytes]", url: str) -> bool:
    assert process.poll() is None, f"{process.args!r} ended at once"
    try:
        httpx2.get(f"{url}/none", timeout=5)
    except httpx2.TransportError:
        return False
    return True
