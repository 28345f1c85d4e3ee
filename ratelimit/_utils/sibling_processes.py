"""Tells whether this process is one of several workers of a server."""

import multiprocessing
import os
from pathlib import Path

_SPAWNED = b"multiprocessing.spawn"


def worker_count() -> int:
    """Return the number of workers that the server of this process runs, as far as that can be found out; else 1.

    On Linux these are the processes of the same parent that run the same program: workers that were forked (gunicorn)
    have the parent's command line, those that were spawned (uvicorn, hypercorn, granian) that of `multiprocessing`.
    Elsewhere `WEB_CONCURRENCY` counts. Workers that start later are not seen yet.
    """
    try:
        return max(1, _siblings(os.getppid()))
    except OSError:
        announced = os.environ.get("WEB_CONCURRENCY", "")
        return max(1, int(announced)) if announced.isdigit() else 1


def _siblings(parent: int) -> int:
    """Count the children of a process that run what this process runs; 1 where the parent is no such server."""
    own = _command(os.getpid())
    if multiprocessing.parent_process() is None and own != _command(parent):
        return 1
    running = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    children = [pid for pid in running if _parent_of(pid) == parent]
    return sum(_command(pid) == own or (_SPAWNED in own and _SPAWNED in _command(pid)) for pid in children)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except ProcessLookupError:
        return b""


def _parent_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return 0  # It has ended meanwhile.
    return int(fields[1])
