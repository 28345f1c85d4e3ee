"""Ports for servers under test, which no other test run on this machine gets at the same time."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, COUNT = 10_000, 10_000
"""Below the ports of outgoing connections; a Cluster's bus listens 10,000 higher, where no other server is put."""

_COUNTER = Path(tempfile.gettempdir()) / f"ratelimit-tests-{os.getuid()}.port"


def free_port() -> int:
    """Return the next port that is free, from a counter that all test runs of this user share."""
    with _COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        taken = int(counter.read() or os.getpid())
        port = next(port for step in range(1, COUNT) if is_free(port := FIRST + (taken + step) % COUNT))
        counter.truncate(0)
        counter.write(str(port - FIRST))
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
