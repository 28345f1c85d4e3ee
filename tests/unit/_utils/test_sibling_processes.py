"""Workers of one server are counted; `tests/behaviour/test_deployment_warnings.py` tests it under the four servers."""

import multiprocessing
import subprocess
import sys

import pytest

from ratelimit._utils.sibling_processes import worker_count

COUNT = "from ratelimit._utils.sibling_processes import worker_count; print(worker_count())"


def test_a_process_on_its_own_is_one_worker() -> None:
    """Also where its parent, this test, runs it beside others."""
    assert worker_count() == 1
    others = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    try:
        done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.communicate()
    assert done.stdout == "1\n"


def test_spawned_processes_of_one_parent_are_several_workers() -> None:
    """As uvicorn, hypercorn and granian start them."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.apply(worker_count) == 3


FORKING = """
import os
from ratelimit._utils.sibling_processes import worker_count
started, start = os.pipe()
ended, end = os.pipe()
for _ in range(2):
    if os.fork() == 0:
        os.read(started, 1)
        os.write(1, b"%d\\n" % worker_count())
        os.read(ended, 1)
        os._exit(0)
os.write(start, b"xx")
while input() != "end": pass
os.write(end, b"xx")
"""


def test_forked_processes_of_one_parent_are_several_workers() -> None:
    """As gunicorn starts them; both live until both have counted."""
    forking = [sys.executable, "-c", FORKING]
    with subprocess.Popen(forking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["2\n", "2\n"]
        process.stdin.write("end\n")


def test_elsewhere_the_announced_number_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes cannot be listed."""

    def fail(parent: int) -> int:
        raise OSError

    monkeypatch.setattr("ratelimit._utils.sibling_processes._siblings", fail)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert worker_count() == 4
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    assert worker_count() == 1
