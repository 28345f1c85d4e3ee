"""Shared parts of the benchmarks: a Redis server, child processes that measure, and the environment of the other libraries."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

from benchmarks.report import Result
from tests.support.redis_server import RedisServer

Step = TypeVar("Step")

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"


@contextmanager
def redis() -> Iterator[RedisServer]:
    """Run a Redis server that keeps nothing on disk."""
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def peers_python() -> str:
    """Return the interpreter of the environment with the other libraries; the first call creates it."""
    python, wanted, done = PEERS / "bin" / "python", Path(__file__).parent / "peers.txt", PEERS / ".done"
    if not done.exists() or done.read_text() != wanted.read_text():
        print("  installing the other libraries into .venv-peers (once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        install: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "-r", wanted]
        subprocess.run(install, check=True)
        done.write_text(wanted.read_text())
    return str(python)


def child(python: str, module: str, *arguments: object) -> dict[str, float]:
    """Run a module in a child process and return the JSON object on its last line."""
    command = [python, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {arguments}: {done.stderr[-500:]}")
    printed: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return printed


def progress(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield each step, and show which one runs."""
    for number, step in enumerate(steps):
        print(f"\r  {number + 1} of {len(steps)}: {step!s:60.60}", end="", flush=True)
        yield step
    print(f"\r{'':80}\r", end="")


def in_turns(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each measure once per round, so that a machine that slows down slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            print(f"\r  round {number + 1} of {rounds}: {name:40}", end="", flush=True)
            times[name].append(measure())
    print(f"\r{'':70}\r", end="")
    return times


def compared(times: dict[str, list[float]], first: str) -> dict[str, float]:
    """Return the median over the rounds of each one's ratio to `first`."""
    return {
        name: median(one / base for one, base in zip(each, times[first], strict=True)) for name, each in times.items()
    }


def result(
    name: str, question: str, *, goal: str, measured: str, unit: str, times: dict[str, list[float]], first: str
) -> Result:
    """Print the figures of a benchmark, and return them."""
    ratios = compared(times, first)
    for one, each in times.items():
        print(f"  {one:40} {median(each):12.1f} {unit:16} {ratios[one]:8.2f}×")
    return Result(
        name=name,
        question=question,
        goal=goal,
        measured=measured,
        unit=unit,
        bars={one: round(median(each), 2) for one, each in times.items()},
        spread={one: (round(min(each), 2), round(max(each), 2)) for one, each in times.items()},
        ratios={one: round(ratio, 3) for one, ratio in ratios.items()},
    )
