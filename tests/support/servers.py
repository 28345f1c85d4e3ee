"""The four servers that people run ASGI apps with, each as a real process with several workers."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.ports import free_port
from tests.support.uvicorn_server import wait_for

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian")


def command(server: str, app: str, port: int, workers: int) -> list[str]:
    """Return the command line that serves an app."""
    return {
        "uvicorn": ["-m", "uvicorn", app, "--port", f"{port}", "--workers", f"{workers}", "--log-level", "warning"],
        "gunicorn": ["-m", "gunicorn", app, "-b", f"127.0.0.1:{port}", "-w", f"{workers}", *GUNICORN],
        "hypercorn": ["-m", "hypercorn", app, "-b", f"127.0.0.1:{port}", "-w", f"{workers}"],
        "granian": ["-m", "granian", app, "--interface", "asgi", "--port", f"{port}", "--workers", f"{workers}"],
    }[server]


GUNICORN = ("-k", "uvicorn_worker.UvicornWorker", "--log-level", "warning")


class Server:
    """A server that runs: its address, and what it has written so far."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self._log = url, log

    @property
    def log(self) -> str:
        """What the server and its workers have written to their output."""
        return self._log.read_text()


@contextmanager
def serving(server: str, app: str, *, workers: int, **environment: str) -> Iterator[Server]:
    """Serve an app with so many workers, and end the server and all of them afterwards."""
    port = free_port()
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command(server, app, port, workers)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        found = Server(f"http://127.0.0.1:{port}", Path(log.name))
        try:
            wait_for(process, found.url)
            yield found
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server of its own session, and whatever is left of its workers."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
