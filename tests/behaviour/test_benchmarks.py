"""The hot-path suite of `make bench-core`: each case runs, and has a baseline to be compared with."""

import json

from benchmarks.core import cases
from benchmarks.instructions import BASELINE


async def test_each_case_runs_and_has_a_baseline() -> None:
    """On every version of the interpreter that has one."""
    async with cases() as every:
        results = {name: case() for name, case in every.items()}
    assert results["a refusal that is remembered"]
    assert len(results["a batch of 32, read"]) == 32  # type: ignore[arg-type]
    for version, baseline in json.loads(BASELINE.read_text()).items():
        assert baseline.keys() == results.keys(), version
