"""The promise: a process that is forked counts by itself, and what its parent has still to report is reported once."""

import json
import subprocess
import sys

import pytest

from tests.support.forking import CHECKS
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize(
    ("story", "admitted"),
    [("preloaded", 3 * CHECKS), ("after_use", 4 * CHECKS), ("in_a_running_loop", 3 * CHECKS), ("in_an_outage", None)],
)
def test_what_was_admitted_is_what_is_counted(
    redis_server: RedisServer, redis_url: str, story: str, admitted: int | None
) -> None:
    """By all processes together: nothing is lost, and nothing is counted twice."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.forking", story, redis_url, str(redis_server.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found, counted = json.loads(done.stdout)
    assert counted == found
    assert admitted in (None, found)
