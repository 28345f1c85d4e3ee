"""A real Redis or Valkey for the tests, started and stopped by them."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.server_binary import binary
from tests.support.waiting import until


class RedisServer:
    """A server on this machine.

    `announced` and `bus` are the ports at which clients and other servers, and the other nodes of a Cluster, are told to
    reach it, where those are not its own.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        announced: int = 0,
        bus: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self.port = port or free_port()
        self.announced, self.bus = announced or self.port, bus or self.port + 10_000
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            binary(),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder), "--loglevel", "warning"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the server, with these options in addition to its own, and wait until it responds."""
        command = [*self._command, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self._environment)
        with self.client() as client:
            until(lambda: self._responds(client), "the server did not come up")

    def _responds(self, client: redis.Redis) -> bool:
        assert self._process is not None
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            assert self._process.poll() is None, "the server ended at once"
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """Let the server hang: its connections stay open, and no call is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, retry=Retry(NoBackoff(), 0))
