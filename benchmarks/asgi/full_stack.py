"""Count requests per second through the whole stack: uvicorn, the app, three layers on Redis with headers, and back.

One uvicorn worker serves each app. `wrk` sends the requests, or `benchmarks.load` where `wrk` is not installed: over 32
connections, each request with one of a thousand tokens.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.harness import ROOT, compared, in_turns, peers_python, redis, result
from benchmarks.report import Result
from tests.support.ports import free_port
from tests.support.uvicorn_server import wait_for

ROUNDS, SECONDS, CONNECTIONS, TOKENS = 3, 2, 32, 1000

APPS: Final = {
    # For each app, whose environment it runs in, and its factory in `stack_apps`.
    "Starlette, bare": ("ours", "bare"),
    "ours, three limits": ("ours", "limited"),
    "ours, three limits, refusing": ("ours", "refusing"),
    "FastAPI, bare": ("peers", "fastapi_bare"),
    "slowapi, three limits": ("peers", "slowapi_limited"),
    "fastapi-limiter, three limits": ("peers", "fastapi_limiter_limited"),
}

_WRK: Final = f"""
local n = 0
request = function()
  n = n + 1
  wrk.headers["authorization"] = "Bearer t" .. (n % {TOKENS})
  return wrk.format("GET", "/items/1")
end
"""


def run() -> Result:
    """Measure and return requests per second."""
    pythons = {"ours": sys.executable, "peers": peers_python()}
    with redis() as server, TemporaryDirectory() as folder:
        measures: dict[str, Callable[[], float]] = {
            name: partial(served, pythons[whose], app, server.url, Path(folder)) for name, (whose, app) in APPS.items()
        }
        times = in_turns(measures, ROUNDS)
    ratios = compared(times, "Starlette, bare")
    fastapi = compared(times, "FastAPI, bare")
    return result(
        "full_stack",
        f"Requests per second under uvicorn, {CONNECTIONS} connections, three layers on Redis with headers",
        goal="ahead of every other library",
        measured=f"{ratios['ours, three limits']:.2f} of the bare app, refusing {ratios['ours, three limits, refusing']:.2f}; "
        f"slowapi {fastapi['slowapi, three limits']:.2f}, fastapi-limiter "
        f"{fastapi['fastapi-limiter, three limits']:.2f} of theirs",
        unit="requests/s",
        times=times,
        first="Starlette, bare",
    )


def served(python: str, app: str, url: str, folder: Path) -> float:
    """Serve an app, generate load for a few seconds, and return requests per second."""
    port = free_port()
    command = [python, "-m", "uvicorn", f"benchmarks.asgi.stack_apps:{app}", "--factory", "--port", str(port)]
    command += ["--loop", "asyncio"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning", "--no-access-log"], cwd=ROOT, env={**os.environ, "STACK_REDIS": url}
    )
    try:
        wait_for(process, f"http://127.0.0.1:{port}")
        answers_per_second(port, 0.5, folder)  # A warm-up.
        return answers_per_second(port, SECONDS, folder)
    finally:
        process.terminate()
        process.wait()


def answers_per_second(port: int, seconds: float, folder: Path) -> float:
    """Generate load, and return the number of answers per second."""
    if shutil.which("wrk") is None:
        command = [sys.executable, "-m", "benchmarks.load", str(port), str(CONNECTIONS), str(seconds), str(TOKENS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)["per_second"])
    script = folder / "tokens.lua"
    script.write_text(_WRK)
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    done = subprocess.run(
        ["wrk", *options, f"http://127.0.0.1:{port}/items/1"], capture_output=True, text=True, check=True
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])
