"""An app whose workers each serve their own metrics, on a port that they write into a folder."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ratelimit import Identity, Limit, RateLimitMiddleware, RateLimitSettings
from ratelimit.telemetry import PrometheusListener

SETTINGS = RateLimitSettings(
    store=os.environ.get("STORE", "memory://"),
    store_timeout=10,
    limits=[
        Limit(name="token", rate="50/hour", per="token", burst=0.2, paths="/limited"),
        Limit(name="shadow", rate="10/hour", per="token", shadow=True, paths="/limited"),
        Limit(name="org", rate="100000/hour", per="org", paths=["/limited", "/org"]),
    ],
    exempt=["/health"],
)


def identify(connection: HTTPConnection) -> Identity:
    return Identity(token=connection.headers.get("x-token"), org=connection.headers.get("x-org"))


async def answer(request: Request) -> Response:
    return PlainTextResponse("ok")


REGISTRY = CollectorRegistry()
app = Starlette(
    routes=[Route(path, answer) for path in ("/limited", "/org", "/free", "/health")],
    middleware=[
        Middleware(
            RateLimitMiddleware,
            settings=SETTINGS,
            identify=identify,
            listeners=[PrometheusListener(registry=REGISTRY)],
        )
    ],
)
if folder := os.environ.get("METRICS_FOLDER"):
    server, _ = start_http_server(0, addr="127.0.0.1", registry=REGISTRY)
    (Path(folder) / f"{os.getpid()}").write_text(str(server.server_port))
