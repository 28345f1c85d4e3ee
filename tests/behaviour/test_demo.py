"""The promise of the README: `make demo` shows the main features and exits with 0."""

import os
import subprocess
import sys

import pytest

from tests.support.ports import free_port


def demo(store: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "examples.server.demo", "--store", store]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, env={**os.environ, "COLUMNS": "100"}
    )


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_the_demo_shows_all_features_and_exits_with_0(kind: str, request: pytest.FixtureRequest) -> None:
    """Success, burst, refusal with its body, an override, Retry-After, the organization, the quota, and overload."""
    done = demo("memory://" if kind == "memory" else request.getfixturevalue("redis_url"))
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "POST /api/agents 201 Created",
        "X-RateLimit-Remaining: 119",
        "760 reads sent: 750 served, 10 refused",
        "Retry-After:",
        '"scope": "token"',
        "X-RateLimit-Scope: org",
        "PUT /internal/overrides 200 OK",
        "GET /api/agents 403 Forbidden",
        "api-errors#monthly_quota_exceeded",
        "GET /healthz 200 OK",
        "people",
        "backfill",
        "all as promised",
    ):
        assert expected in done.stdout, expected
    assert done.stderr == ""


@pytest.mark.parametrize("store", [f"redis://127.0.0.1:{free_port()}", "postgres://x"], ids=["away", "unknown"])
def test_a_demo_without_its_store_fails(store: str) -> None:
    """It exits with 1 and one line where the store does not answer or is unknown."""
    done = demo(store)
    assert done.returncode == 1
    assert done.stdout.startswith("not as promised: ")
    assert "Traceback" not in done.stdout + done.stderr
