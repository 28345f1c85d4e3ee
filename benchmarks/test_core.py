"""The hot-path suite, timed by pytest-benchmark: `make bench-core`."""

from typing import Any

import pytest

from benchmarks.core import cases

NAMES = (
    "the app alone",
    "the app with three limits",
    "the app, refusing",
    "a check of three limits",
    "charges of a caller who is known",
    "charges of a new caller",
    "a decision of three limits",
    "headers",
    "a refusal that is remembered",
    "a batch of 32, packed",
    "a batch of 32, read",
)


@pytest.mark.parametrize("name", NAMES)
async def test_core(name: str, benchmark: Any) -> None:
    """Time one case."""
    every = await cases()
    assert set(every) == set(NAMES)
    benchmark(every[name])
