"""Runs the apps of the migration pages, each with counters of its own, under a list of requests."""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ratelimit.testing import ManualClock

FOLDER = Path(__file__).parent.parent.parent / "examples" / "migration"

Step = tuple[int, str, str | None]
"""How many times in a row, what (`"GET /health"`), and the API key."""

Answer = tuple[str, int, str]
"""What was asked for, the status and the body."""


def load(name: str) -> ModuleType:
    """Run an app's file once more, so that its limits have not been used."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def responses(client: Any, steps: Sequence[Step]) -> list[tuple[str, Any]]:
    """Send each request as often as it says, one after the other."""
    found = []
    for times, asked, key in steps:
        method, path = asked.split()
        headers = {} if key is None else {"x-api-key": key}
        found += [(asked, client.request(method, path, headers=headers)) for _ in range(times)]
    return found


def answers(client: Any, steps: Sequence[Step]) -> list[Answer]:
    return [(asked, response.status_code, response.text) for asked, response in responses(client, steps)]


def refused(found: Sequence[Answer]) -> set[str]:
    """Return what was refused at least once."""
    return {asked for asked, status, _ in found if status == 429}


def needs_fastapi_limiter(series: str) -> None:
    """Skip the test unless a version of this series, such as `0.1`, is installed."""
    pytest.importorskip("fastapi_limiter")
    if not version("fastapi-limiter").startswith(f"{series}."):
        pytest.skip(f"fastapi-limiter {version('fastapi-limiter')} is installed, not {series}")


def move_limits(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    """Let the `limits` package, on which slowapi is built, read this clock."""
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=lambda: clock.now / 1_000_000))
