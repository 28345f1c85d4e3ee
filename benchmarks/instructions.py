"""Count the instructions of each case of the hot-path suite, and name the cases that need 10 % more than the baseline.

Valgrind counts the instructions of user code, which do not depend on the load of the machine. They depend on the
interpreter, so there is a baseline for each of its versions. `python -m benchmarks.instructions [--accept]` compares with
the baseline, or replaces it.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.core import cases

REPEATS, WARM_UP, TOLERANCE = 100, 300, 1.10
BASELINE: Final = Path(__file__).parent / "core_baseline.json"
VERSION: Final = ".".join(platform.python_version_tuple()[:2])

_MARK: Final = "getloadavg"
"""A function of the C library that no other code here calls: when it is called, valgrind writes its counts."""


def main() -> None:
    """Count, print the comparison, and fail if a case has become slower."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted")
        return
    counts = count_instructions()
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    before = known.get(VERSION, {})
    slower = []
    for name, instructions in counts.items():
        ratio = instructions / before[name] if name in before else None
        print(f"  {name:36} {instructions:10,.0f} instructions   {'new' if ratio is None else f'{ratio:.3f}×'}")
        if ratio is not None and ratio > TOLERANCE:
            slower.append(f"{name}: {before[name]:,.0f} → {instructions:,.0f} instructions")
    if "--accept" in sys.argv:
        BASELINE.write_text(json.dumps({**known, VERSION: counts}, indent=1) + "\n")
    elif slower:
        sys.exit("more than 10 % above the baseline:\n  " + "\n  ".join(slower))


def count_instructions() -> dict[str, int]:
    """Return the instructions of one operation of each case."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={_MARK}"]
        done = subprocess.run(
            [*valgrind, sys.executable, "-m", "benchmarks.instructions", "--run"],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"valgrind failed: {done.stderr[-500:]}")
        names = done.stdout.splitlines()
        # Valgrind writes a part before each case and one after it: the second holds the counts of the case.
        parts = [_total(out.with_name(f"{out.name}.{number}")) for number in range(1, 2 * len(names) + 1)]
    return {name: round(part / REPEATS) for name, part in zip(names, parts[1::2], strict=True)}


def _total(part: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", part.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"valgrind wrote no total into {part.name}")
    return int(found[1])


async def run() -> None:
    """Run each case between two marks; valgrind runs this in a child process."""
    async with cases() as every:
        for name, case in every.items():
            for _ in range(WARM_UP):
                case()
            os.getloadavg()
            for _ in range(REPEATS):
                case()
            os.getloadavg()
            print(name)


if __name__ == "__main__":
    asyncio.run(run()) if "--run" in sys.argv else main()
