"""One worker of a fleet: calls an app with the limiter at a steady pace, and writes down the answers.

`python -m benchmarks.faults.worker URL BEGIN SECONDS PACE FILE SHIFT` begins at an instant of the monotonic clock, which
all processes share. For each request it writes [begun, seconds, status, degraded]. Its wall clock is off by `SHIFT`
seconds; written `~SHIFT`, from the middle of the run on.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

PAUSE = 0.002
"""Seconds between two looks at the clock."""


def shift_clock(shift: str, since: float) -> None:
    """Change the wall clock of this process by `shift` seconds; with `~`, from the instant `since` on."""
    real, seconds = time.time_ns, float(shift.removeprefix("~"))

    def shifted() -> int:
        off = seconds if not shift.startswith("~") or time.monotonic() >= since else 0.0
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


async def request_once(app: Any, answers: list[list[Any]]) -> None:
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


async def work(url: str, begin: float, seconds: float, pace: float) -> list[list[Any]]:
    """Make requests at a steady pace, without waiting for earlier ones, and return their answers."""
    app, answers, in_flight = build(url).build_middleware_stack(), list[list[Any]](), set[asyncio.Task[None]]()
    stack = app
    while not hasattr(stack, "limiter"):
        stack = stack.app
    await stack.limiter.start()
    while time.monotonic() < begin:  # noqa: ASYNC110 - all workers begin at one instant
        await asyncio.sleep(PAUSE)
    number = 0
    while (now := time.monotonic()) < begin + seconds:
        while number < (now - begin) * pace:
            task = asyncio.create_task(request_once(app, answers))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            number += 1
        await asyncio.sleep(PAUSE)
    while in_flight:
        await asyncio.wait(in_flight)
        await asyncio.sleep(0)
    await stack.limiter.aclose()
    return answers


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    url, begin, seconds, pace, file, shift = sys.argv[1:]
    if shift != "0":
        shift_clock(shift, float(begin) + float(seconds) / 2)
    Path(file).write_text(json.dumps(asyncio.run(work(url, float(begin), float(seconds), float(pace)))))
