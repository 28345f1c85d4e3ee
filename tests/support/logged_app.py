"""An app that writes its own access log: JSON lines with microseconds, and what its limiter has decided of each request.

The limiter's clock is the time of the last event that the log knows of, so that the log says exactly when each decision was made.
`LOGGED` in the environment holds the settings, and the path of the log.
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit import Identity, Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings


class Clock:
    """The time of the last event, 250 µs after the one before: a request began, or its response did.

    So the traffic has one pace on every machine, and reaches the limits on each.
    """

    def __init__(self) -> None:
        self.now = time.time_ns() // 1000

    def __call__(self) -> int:
        return self.now

    def tick(self) -> int:
        self.now += 250
        return self.now


CLOCK = Clock()
GIVEN: dict[str, Any] = json.loads(os.environ.get("LOGGED", '{"settings": {}, "path": "/dev/null"}'))


def write(line: str) -> None:
    with Path(GIVEN["path"]).open("a") as log:
        log.write(line)


class Logged:
    """Writes the log, outside of the limiter."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        began, status = CLOCK.tick(), 0
        scope["ended"] = None

        async def noted(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self.app(scope, receive, noted)
        line = {
            "start_time": f"{began}",
            "duration_us": (scope["ended"] or began) - began,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            **{name: headers.get(f"x-{name}") for name in ("token", "org", "plan")},
            "refused": scope["ended"] is None,
        }
        write(json.dumps(line) + "\n")


class Ended:
    """Notes when a response begins, inside of the limiter, before what it gives back is given back."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                scope["ended"] = CLOCK.tick()
            await send(message)

        await self.app(scope, receive, noted)


def identify(connection: HTTPConnection) -> Identity:
    headers = connection.headers
    return Identity(token=headers.get("x-token"), org=headers.get("x-org"), plan=headers.get("x-plan"))


async def answer(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.headers.get("x-takes", "0")))
    return PlainTextResponse("ok", int(request.headers.get("x-status", "200")))


ROUTES = [
    Route("/v1/agents/{id}", answer),
    Route("/v1/runs", answer, methods=["GET", "POST"]),
    Route("/v1/batches", answer, methods=["POST"]),
]
settings = RateLimitSettings.model_validate(GIVEN["settings"])
limiter = Limiter(settings, MemoryStore(clock=CLOCK), CLOCK)
plain = Starlette(routes=ROUTES)
app = Logged(RateLimitMiddleware(Ended(plain), limiter=limiter, identify=identify))
