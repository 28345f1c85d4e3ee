"""Count the instructions of each case of the hot-path suite, and name what needs 10 % more than the baseline.

The counts are valgrind's, of user code alone, and the same again on a busy machine. They depend on the interpreter, so
the baseline is kept by its version. `python -m benchmarks.instructions [--accept]` compares or writes it.
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
"""A function of the C library that nothing of ours calls: where it is entered, valgrind writes what it counted."""


def main() -> None:
    """Count, print the comparison, and fail where something has become slower."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted")
        return
    counts = counted()
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


def counted() -> dict[str, int]:
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
        # Before each case and after it one part is written: the second of the two is the case.
        parts = [_total(out.with_name(f"{out.name}.{number}")) for number in range(1, 2 * len(names) + 1)]
    return {name: round(part / REPEATS) for name, part in zip(names, parts[1::2], strict=True)}


def _total(part: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", part.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"valgrind wrote no total into {part.name}")
    return int(found[1])


async def run() -> None:
    """Run each case, marked; this is what valgrind watches."""
    for name, case in (await cases()).items():
        for _ in range(WARM_UP):
            case()
        os.getloadavg()
        for _ in range(REPEATS):
            case()
        os.getloadavg()
        print(name)


if __name__ == "__main__":
    asyncio.run(run()) if "--run" in sys.argv else main()
