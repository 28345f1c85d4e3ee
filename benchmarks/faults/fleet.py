"""The fleet of workers that a fault is measured with."""

import asyncio
import json
import math
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent
WORKERS: Final = 4
PACE: Final = 100
"""Requests per second of each worker."""

_STARTING_S: Final = 1.5
"""Seconds from when all workers are ready until they begin: by then each knows of the others."""


class Found(NamedTuple):
    """What a worker leaves: its answers, and what its metrics say; nothing where it was killed.

    An answer is when the request began, how many seconds it took, its status, and whether it was degraded.
    """

    answers: list[list[Any]]
    metrics: dict[str, float] | None


@dataclass
class Fleet:
    """Workers that serve for `seconds`, from the instant `begin` of the monotonic clock on."""

    url: str
    folder: Path
    seconds: float
    variant: str
    clock_shifts: Sequence[str]
    begin: float = math.inf
    workers: list[Process] = field(default_factory=list)
    killed: list[Process] = field(default_factory=list)
    _numbers: int = -1

    async def start(self) -> None:
        """Start all workers, and let them begin together."""
        await asyncio.gather(*(self._start() for _ in range(WORKERS)))
        self.begin = time.monotonic() + _STARTING_S
        for worker in self.workers:
            self._tell(worker, self.begin)

    async def replace(self, number: int) -> None:
        """Kill a worker in the middle of what it does, and start another one."""
        self.workers[number].kill()
        self.killed.append(self.workers[number])
        self._tell(await self._start(), time.monotonic())

    async def found(self) -> list[Found]:
        """Wait for the workers, and return what they leave; raises `RuntimeError` where one failed."""
        for worker in self.workers:
            if await worker.wait() and worker not in self.killed:
                raise RuntimeError("a worker failed")
        return [self._found(self.folder / str(number)) for number in range(len(self.workers))]

    async def stop(self) -> None:
        """Kill the workers that still run."""
        for worker in self.workers:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()

    async def _start(self) -> Process:
        """Start a worker, and wait until it is ready."""
        number = self._numbers = self._numbers + 1
        shift = self.clock_shifts[number % len(self.clock_shifts)]
        arguments = [self.url, PACE, self.folder / str(number), shift, self.variant]
        command = [sys.executable, "-m", "benchmarks.faults.worker", *map(str, arguments)]
        worker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        self.workers.append(worker)
        assert worker.stdout is not None
        await worker.stdout.readline()
        return worker

    def _tell(self, worker: Process, begin: float) -> None:
        assert worker.stdin is not None
        worker.stdin.write(f"{begin} {self.begin + self.seconds}\n".encode())

    def _found(self, path: Path) -> Found:
        lines, metrics = path.with_suffix(".answers").read_text().splitlines(), path.with_suffix(".metrics")
        answers = [json.loads(line) for line in lines]
        return Found(answers, json.loads(metrics.read_text()) if metrics.exists() else None)
