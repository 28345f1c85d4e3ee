"""The hot-path suite, timed by pytest-benchmark: `make bench-core`."""

import asyncio
from typing import Any

import pytest

from benchmarks.core import cases


async def names() -> tuple[str, ...]:
    """Return the names of all cases."""
    async with cases() as every:
        return tuple(every)


@pytest.mark.parametrize("name", asyncio.run(names()))
async def test_core(name: str, benchmark: Any) -> None:
    """Time one case."""
    async with cases() as every:
        benchmark(every[name])
