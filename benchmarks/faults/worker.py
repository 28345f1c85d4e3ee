"""One worker of a fleet: calls an app with the limiter at a steady pace, and writes down the answers.

`python -m benchmarks.faults.worker URL PACE FILE SHIFT VARIANT` says `ready`, and is told when to begin and to end: two
instants of the monotonic clock, which all processes share. It writes [begun, seconds, status, degraded] for each request into
`FILE.answers`, as soon as it has answered, and at its end what its metrics say (`counts_of`) into `FILE.metrics`. Its wall
clock is off by `SHIFT` seconds; written `~SHIFT`, from the middle of the run on.

The variant `two loops` uses the app in a second event loop too, which notices the outage first and is stopped then.
`forked` builds the app and decides once in this process, and serves in a forked child.
"""

import asyncio
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAUSE = 0.002
"""Seconds between two looks at the clock."""


class Journal(list[list[Any]]):
    """The answers so far, each of which is in the file at once, also if the process is killed then."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, answer: list[Any]) -> None:
        """Add an answer."""
        os.write(self._file, f"{json.dumps(answer)}\n".encode())
        super().append(answer)


@dataclass
class Span:
    """When the load begins and ends, as soon as that is known."""

    begin: float = math.inf
    end: float = math.inf

    def ask(self) -> None:
        """Say that this process is ready, and wait until it is told."""
        print("ready", flush=True)
        self.begin, self.end = map(float, sys.stdin.readline().split())


def shift_clock(shift: str, span: Span) -> None:
    """Change the wall clock of this process by `shift` seconds; with `~`, from the middle of the load on."""
    real, seconds = time.time_ns, float(shift.removeprefix("~"))

    def shifted() -> int:
        off = seconds if not shift.startswith("~") or time.monotonic() >= (span.begin + span.end) / 2 else 0.0
        return real() + round(off * 1e9)

    time.time_ns = shifted


def build(url: str) -> Any:
    """Return an app whose callers all have the same token and organization."""
    from starlette.applications import Starlette  # noqa: PLC0415 - after the clock was shifted
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import PlainTextResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    from benchmarks.faults.settings import settings  # noqa: PLC0415
    from ratelimit import Identity, RateLimitMiddleware  # noqa: PLC0415

    async def item(request: Request) -> PlainTextResponse:
        return PlainTextResponse("degraded" if request.state.ratelimit.degraded else "ok")

    app = Starlette(routes=[Route("/", item)])
    app.add_middleware(
        RateLimitMiddleware, settings=settings(url), identify=lambda connection: Identity(token="t", org="acme")
    )
    return app


async def request_once(app: Any, answers: Journal) -> None:
    """Make one request, and append its answer to `answers`."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
        "state": {},
    }
    entry: list[Any] = [time.monotonic(), 0.0, 0, False]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        entry[2] = message.get("status", entry[2])

    try:
        await app(scope, receive, send)
        entry[3] = scope["state"]["ratelimit"].degraded
    except Exception:  # noqa: BLE001 - a server answers an exception with 500
        entry[2] = 500
    entry[1] = time.monotonic() - entry[0]
    answers.append(entry)


def counts_of(app: Any) -> dict[str, float]:
    """Return what the metrics say: requests, local decisions, outages, and corrections that wait or are lost."""
    from ratelimit.telemetry.measures import snapshot  # noqa: PLC0415

    values: Any = snapshot([limiter_in(app)])
    requests = values["ratelimit.requests"]
    return {
        "requests": sum(requests.values()),
        "refused": sum(number for (result, _, _), number in requests.items() if result != "admitted"),
        "local": sum(number for (_, _, source), number in requests.items() if source == "local"),
        **{name: values[f"ratelimit.{name}"][()] for name in ("store.outages", "outbox.pending", "outbox.lost")},
    }


def limiter_in(stack: Any) -> Any:
    """Return the limiter of a middleware stack."""
    while not hasattr(stack, "limiter"):
        stack = stack.app
    return stack.limiter


async def work(app: Any, answers: Journal, span: Span, pace: float) -> None:
    """Make requests at a steady pace, without waiting for earlier ones."""
    in_flight = set[asyncio.Task[None]]()
    await limiter_in(app).start()
    await asyncio.to_thread(span.ask)
    while time.monotonic() < span.begin:  # noqa: ASYNC110 - all workers begin at one instant
        await asyncio.sleep(PAUSE)
    number = 0
    while (now := time.monotonic()) < span.end:
        while number < (now - span.begin) * pace:
            task = asyncio.create_task(request_once(app, answers))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            number += 1
        await asyncio.sleep(PAUSE)
    while in_flight:
        await asyncio.wait(in_flight)
        await asyncio.sleep(0)
    await limiter_in(app).aclose()


def stop_in_outage(app: Any, answers: Journal) -> None:
    """Make a few requests a second in an event loop of this thread, until one is decided locally; then stop the loop."""
    loop = asyncio.new_event_loop()  # It is neither closed nor run again: as one that hangs.

    async def serve() -> None:
        while not (answers and answers[-1][3]):
            await request_once(app, answers)
            await asyncio.sleep(0.05)

    loop.run_until_complete(serve())


def counting(url: str) -> Any:
    """Return the app as a server calls it, whose limiter counts for metrics."""
    app = build(url).build_middleware_stack()
    limiter_in(app).observer.count()
    return app


def serve(app: Any, path: Path, variant: str, span: Span, pace: float) -> None:
    """Serve as the variant says, and write what the metrics say."""
    answers = Journal(path.with_suffix(".answers"))

    def go_on() -> None:
        asyncio.run(work(app, answers, span, pace))
        path.with_suffix(".metrics").write_text(json.dumps(counts_of(app)))

    if variant == "forked":
        serve_forked(app, answers, go_on)
        return
    if variant == "two loops":
        threading.Thread(target=stop_in_outage, args=(app, answers), daemon=True).start()
    go_on()


def serve_forked(app: Any, answers: Journal, go_on: Callable[[], None]) -> None:
    """Answer one request here, and go on in a forked child."""
    with asyncio.Runner() as runner:
        runner.run(request_once(app, answers))
        child = os.fork()
        if child == 0:
            go_on()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        runner.run(limiter_in(app).aclose())
        if status:
            raise RuntimeError("the forked worker failed")


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    url, pace, file, shift, variant = sys.argv[1:]
    span = Span()
    if shift != "0":
        shift_clock(shift, span)
    serve(counting(url), Path(file), variant, span, float(pace))
