"""Request ids: the request's own where a URI can hold it, else a new one; `tests/behaviour/test_refusal_log.py` has the rest."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ratelimit.asgi.request_id import request_id_header, request_id_of, with_instance


def test_a_problem_gets_an_instance() -> None:
    """As its last member."""
    body = with_instance(b'{"status":429}', "urn:uuid:1")
    assert json.loads(body) == {"status": 429, "instance": "urn:uuid:1"}
    assert request_id_header("a") == (b"x-request-id", b"a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on Windows")
def test_forked_workers_make_other_ids() -> None:
    """Also in an app that sets the seed of the common generator."""
    script = """
import os, random
from ratelimit.asgi.request_id import request_id_of
random.seed(1)
read, write = os.pipe()
for _ in range(2):
    if os.fork() == 0:
        os.write(write, (request_id_of({"headers": []}) + " ").encode())
        os._exit(0)
    os.wait()
print(os.read(read, 99).decode() + request_id_of({"headers": []}))
"""
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert len({one for run in runs for one in run.stdout.split()}) == 6


def test_new_ids_differ() -> None:
    """Of two requests without one."""
    scope: dict[str, Any] = {"headers": []}
    assert request_id_of(scope) != request_id_of(scope)
    assert request_id_of({"headers": [(b"X-Request-Id", b"abc-1")]}) == "abc-1"
