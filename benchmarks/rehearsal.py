"""Count the lines of an access log that a rehearsal decides per second, against reading and splitting them."""

import gc
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from benchmarks.harness import compared, in_turns, result
from benchmarks.report import Result
from examples.rehearsal.make_log import FORMAT
from examples.rehearsal.make_log import main as make_log
from ratelimit import Limit, RateLimitSettings
from ratelimit.rehearsal.access_log import AccessLog
from ratelimit.rehearsal.callers import CallerFields, LogCallers
from ratelimit.rehearsal.replay import Replay

ROUNDS, LINES = 5, 100_000
SPLIT, REPLAY = "reading and splitting the lines", "replay of three windows"


def run() -> Result:
    """Measure and return microseconds of CPU per line."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "access.log")
        make_log(path, LINES)
        times = in_turns({SPLIT: lambda: split(path), REPLAY: lambda: replay(path)}, ROUNDS)
    best = 1e6 / min(times[REPLAY])
    return result(
        "rehearsal",
        "CPU of a line of an access log, three windows",
        goal="≥ 50,000 lines/s",
        measured=f"{compared(times, SPLIT)[REPLAY]:.1f}× reading and splitting it; up to {best:,.0f} lines/s",
        unit="µs",
        times=times,
        first=SPLIT,
    )


def split(path: str) -> float:
    """Read and split all lines."""
    began = process_time()
    with Path(path).open() as log:
        parts = sum(len(line.split()) for line in log)
    return (process_time() - began) / LINES * 1e6 + 0 * parts


def replay(path: str) -> float:
    """Replay all lines."""
    limits = [
        Limit(name="token", rate="120/minute", per="token", burst=0.25),
        Limit(name="ip", rate="600/minute", per="ip"),
        Limit(name="endpoint", rate="60/minute", per=["endpoint", "token"]),
    ]
    routes = ["/v1/agents/{id}", "/v1/agents/{id}/runs", "/v1/runs", "/v1/exports/full"]
    found = Replay(RateLimitSettings(limits=limits), LogCallers(CallerFields(token="remote_user")), routes=routes)
    log = AccessLog([path], format_name=FORMAT, caller_fields=["remote_user", "remote_addr"])
    gc.disable()
    began = process_time()
    found.run(log)
    gc.enable()
    return (process_time() - began) / LINES * 1e6
