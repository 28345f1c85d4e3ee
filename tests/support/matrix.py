"""Runs the whole suite with every server on one Python, and on every Python with one server (`make test-matrix`).

Arguments go to pytest. PYTHONS and SERVERS in the environment select some (`PYTHONS="3.12 3.13" SERVERS=valkey-9`).
"""

import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path

from tests.support.server_binary import ServerMissingError, find, version

PYTHONS = os.environ.get("PYTHONS", "3.11 3.12 3.13 3.14 3.13t 3.14t").split()
SERVERS = os.environ.get("SERVERS", "redis-6.2 redis-7 redis-8 valkey-9").split()
SERVER_OF_ALL_PYTHONS = "redis-8"
LOGS = Path("build/matrix")
SECONDS = 3600
"""After which a run is interrupted, and has failed."""


class SkippedError(Exception):
    """There is no such Python on this machine."""


class InstallError(Exception):
    """The packages cannot be installed for this Python."""


@dataclass(frozen=True)
class Run:
    """The suite on one Python with one server, and what came of it."""

    python: str
    server: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: int = 0
    remark: str = ""

    @property
    def row(self) -> str:
        return f"| {' | '.join(map(str, astuple(self)))} |"


def main(arguments: Sequence[str]) -> int:
    """Run all, print a table, and return 1 if a run failed, or none passed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    runs = []
    for number, (python, server) in enumerate(plan := list(planned()), 1):
        print(f"\n== {number} of {len(plan)}: Python {python}, {server}", flush=True)
        runs.append(tried(python, server, arguments))
        print(runs[-1].row, flush=True)
    print("\n| Python | server | passed | failed | skipped | seconds | remark |\n|---|---|---|---|---|---|---|")
    print("\n".join(each.row for each in runs))
    return int(any(each.failed for each in runs) or not any(each.passed for each in runs))


def planned() -> Iterator[tuple[str, str]]:
    """Yield Python and server of each run."""
    own = own_python()
    yield from ((own, server) for server in SERVERS if own in PYTHONS)
    yield from ((python, SERVER_OF_ALL_PYTHONS) for python in PYTHONS if python != own)


def own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"


def tried(python: str, server: str, arguments: Sequence[str]) -> Run:
    run = Run(python, server)
    try:
        return suite(environment(python), find(server), replace(run, server=version(find(server))), arguments)
    except (SkippedError, ServerMissingError) as error:
        return replace(run, remark=f"not run: {error}")
    except InstallError as error:
        return replace(run, failed=1, remark=str(error))


@cache
def environment(name: str) -> str:
    """Make the environment of a Python, and return its interpreter."""
    if name == own_python():
        return sys.executable
    if (program := interpreter(name)) is None:
        raise SkippedError(f"there is no python{name}")
    folder = f"{sys.prefix}-{name}"
    making = ["make", "--no-print-directory", f"VENV={folder}", f"PYTHON={program}", f"{folder}/.dev"]
    if subprocess.run(making, check=False).returncode:
        raise InstallError("its packages cannot be installed")
    return f"{folder}/bin/python"


def interpreter(name: str) -> str | None:
    """Return a Python of this version that runs: on PATH, else of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{name}"), *map(str, root.glob(f"versions/*/bin/python{name}"))]
    return next((each for each in candidates if each and runs(each)), None)


def runs(program: str) -> bool:
    return not subprocess.run([program, "-c", "import venv"], capture_output=True, check=False).returncode


def suite(python: str, server: str, run: Run, arguments: Sequence[str]) -> Run:
    """Run all tests, with those of the topologies, and read what came of them from the report."""
    report = LOGS / f"{run.python}-{run.server}.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-n", "2", "-m", "", f"--junit-xml={report}", *arguments]
    code = ended(command, {**os.environ, "REDIS_SERVER": server})
    if not report.exists():
        return replace(run, failed=1, remark=f"pytest ended with {code}")
    return read(report, replace(run, python=said_version(python)), code)


def ended(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end; one that takes too long is interrupted, and says what has failed until then."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return process.wait()


def read(report: Path, run: Run, code: int) -> Run:
    figures = next(ET.parse(report).getroot().iter("testsuite")).attrib
    failed = int(figures["failures"]) + int(figures["errors"])
    skipped = int(figures["skipped"])
    return replace(
        run,
        passed=int(figures["tests"]) - failed - skipped,
        failed=max(failed, int(code != 0)),
        skipped=skipped,
        seconds=round(float(figures["time"])),
    )


def said_version(python: str) -> str:
    script = "import platform, sys; print(platform.python_version() + sys.abiflags)"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
