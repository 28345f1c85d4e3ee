"""Keys of requests: whose limits they count against, and which route and server they go to."""

import re
from collections.abc import Hashable
from typing import Final

import httpx

from ratelimit.client.admission_queue import RouteKey

_DIGIT: Final = re.compile("[0-9]")


def default_limit_key(request: httpx.Request) -> Hashable:
    """Return whose limits a request counts against: the server and the credentials in `Authorization` or `X-API-Key`."""
    headers = request.headers
    return *server_key(request), hash(headers.get("authorization")), hash(headers.get("x-api-key"))


def route_key(request: httpx.Request) -> RouteKey:
    """Return the route of a request; each path segment that contains a digit is taken for an id."""
    segments = request.url.path.split("/")
    return RouteKey(request.method, "/".join("*" if _DIGIT.search(segment) else segment for segment in segments))


def server_key(request: httpx.Request) -> tuple[str, str, int | None]:
    """Return the scheme, the host and the port that a request goes to; no port is that of the scheme."""
    return request.url.scheme, request.url.host, request.url.port
