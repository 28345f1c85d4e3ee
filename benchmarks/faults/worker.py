"""One worker of a fleet: an app with the limiter, asked at a steady pace, that notes what everybody was answered.

`python -m benchmarks.faults.worker URL BEGIN SECONDS PACE FILE SHIFT` begins at an instant of the monotonic clock, which
all processes share, and writes a list of [begun, seconds, status, degraded] for each request. Its wall clock is off by
`SHIFT` seconds, from the middle on if that is written `~SHIFT`.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

PAUSE = 0.002


def shift_clock(told: str, since: float) -> None:
    """Let the wall clock of this process be off."""
    real, seconds = time.time_ns, float(told.removeprefix("~"))

    def shifted() -> int:
        off = seconds if not told.startswith("~") or time.monotonic() >= since else 0.0
        return real() + round(off * 1e9)

    time.time_ns = shifted


def build(url: str) -> Any:
    """Return the app: one token that is asked for more than it may, and a quota that counts everything."""
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


async def ask(app: Any, told: list[list[Any]]) -> None:
    """Make one request and note its answer."""
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
    except Exception:  # noqa: BLE001 - an exception is what a client sees as 500
        entry[2] = 500
    entry[1] = time.monotonic() - entry[0]
    told.append(entry)


async def work(url: str, begin: float, seconds: float, pace: float) -> list[list[Any]]:
    """Ask at a steady pace, whatever becomes of earlier requests."""
    served, told, under_way = build(url).build_middleware_stack(), list[list[Any]](), set[asyncio.Task[None]]()
    stack = served
    while not hasattr(stack, "limiter"):
        stack = stack.app
    await stack.limiter.start()
    while time.monotonic() < begin:  # noqa: ASYNC110 - all workers begin at one instant
        await asyncio.sleep(PAUSE)
    number = 0
    while (now := time.monotonic()) < begin + seconds:
        while number < (now - begin) * pace:
            task = asyncio.create_task(ask(served, told))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.sleep(PAUSE)
    while under_way:
        await asyncio.wait(under_way)
        await asyncio.sleep(0)
    await stack.limiter.aclose()
    return told


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    address, start, lasts, speed, file, off = sys.argv[1:]
    if off != "0":
        shift_clock(off, float(start) + float(lasts) / 2)
    answers = asyncio.run(work(address, float(start), float(lasts), float(speed)))
    Path(file).write_text(json.dumps(answers))
