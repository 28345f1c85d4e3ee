"""A receiver of webhooks, for `examples.webhooks`: checks signatures, keeps each webhook once, and watches the pace.

`/hooks/flaky` fails every 20th webhook the first two times, `/hooks/dead` answers nothing but 500. SECRET comes from the
environment. Signatures are those of Standard Webhooks (standardwebhooks.com).
"""

import asyncio
import json
import os
from bisect import bisect_right
from collections import defaultdict

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.deliveries import signature

secret = os.environ.get("SECRET", "")
tries: defaultdict[str, int] = defaultdict(int)
received: defaultdict[str, set[str]] = defaultdict(set)
arrivals: defaultdict[str, list[float]] = defaultdict(list)
turns: defaultdict[str, list[float]] = defaultdict(list)
counts = {"duplicates": 0, "forged": 0}


async def receive(request: Request) -> Response:
    subscription = request.path_params["subscription"]
    try:
        body = await request.body()
    except ClientDisconnect:  # The worker was killed in the middle of it.
        return Response(status_code=400)
    key, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    arrivals[subscription].append(asyncio.get_running_loop().time())
    turns[subscription].append(float(request.headers["x-turn"]))
    if request.headers["webhook-signature"] != signature(secret, key, stamp, body):
        counts["forged"] += 1
        return Response(status_code=400)
    tries[key] += 1
    number = json.loads(body)["number"]
    if subscription == "dead" or (subscription == "flaky" and number % 20 == 0 and tries[key] <= 2):
        return Response(status_code=500)
    counts["duplicates"] += key in received[subscription]
    received[subscription].add(key)
    return Response(status_code=204)


def busiest(moments: list[float], span: float) -> int:
    """Return the largest number of moments within `span` seconds."""
    ordered = sorted(moments)
    return max((bisect_right(ordered, start + span) - number for number, start in enumerate(ordered)), default=0)


async def report(request: Request) -> JSONResponse:
    subscriptions = {
        name: {
            "received": len(received[name]),
            "requests": len(arrivals[name]),
            # As they were let go, by the clock that all processes of a machine share; and as they came in.
            "busiest": [busiest(turns[name], 0.1), busiest(turns[name], 1.0)],
            "arrived": [busiest(arrivals[name], 0.1), busiest(arrivals[name], 1.0)],
        }
        for name in sorted(arrivals)
    }
    return JSONResponse({**counts, "subscriptions": subscriptions})


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[
        Route("/hooks/{subscription}", receive, methods=["POST"]),
        Route("/report", report),
        Route("/healthz", healthz),
    ]
)
