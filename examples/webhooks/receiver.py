"""A receiver of webhooks: checks signatures, counts each webhook once, and measures the pace.

`/hooks/flaky` fails the first two attempts of every 20th webhook, and `/hooks/dead` answers each one with 500. The environment
sets SECRET. Signatures follow Standard Webhooks (standardwebhooks.com).
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

from examples.webhooks.deliveries import signature

secret = os.environ.get("SECRET", "")
attempts: defaultdict[str, int] = defaultdict(int)
received: defaultdict[str, set[str]] = defaultdict(set)
arrivals: defaultdict[str, list[float]] = defaultdict(list)
starts: defaultdict[str, list[float]] = defaultdict(list)
counts = {"duplicates": 0, "forged": 0}


async def receive(request: Request) -> Response:
    subscription = request.path_params["subscription"]
    try:
        body = await request.body()
    except ClientDisconnect:  # The worker was killed while it sent the webhook.
        return Response(status_code=400)
    key, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    arrivals[subscription].append(asyncio.get_running_loop().time())
    starts[subscription].append(float(request.headers["x-started-at"]))
    if request.headers["webhook-signature"] != signature(secret, key, timestamp, body):
        counts["forged"] += 1
        return Response(status_code=400)
    attempts[key] += 1
    number = json.loads(body)["number"]
    if subscription == "dead" or (subscription == "flaky" and number % 20 == 0 and attempts[key] <= 2):
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
            # When the pacer let them go, by the clock that all processes of a machine share; and when they arrived.
            "started": [busiest(starts[name], 0.1), busiest(starts[name], 1.0)],
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
